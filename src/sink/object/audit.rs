//! Reads the objects of an archive back, for `rillway verify`.
//!
//! One object at a time is in memory, as for the sink itself. The archive is not taken over, and the
//! last claim is not decided: the position says which objects count.

use std::io::{BufRead, BufReader, Cursor};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::layout::{Kind, Layout};
use super::store::Store;
use super::{ObjectOptions, committer, find_names, parquet_read};
use crate::sink::SinkError;
use crate::sink::audit::cells::RowJudge;
use crate::sink::audit::lines::{LineJudge, LineMaker, LineReader};
use crate::sink::audit::{
    AuditError, Auditor, Found, Judge, Maker, Order, Sides, Span, Stop, Turner, times, turning,
};
use crate::types::{Checkpoint, Offset, Reference, StreamName};

/// Reads what a sink with these options has committed.
pub(super) struct ObjectAuditor {
    /// The error says why the options are wrong.
    pub(super) options: Result<ObjectOptions, String>,
    pub(super) stream: StreamName,
    pub(super) reference: Reference,
}

/// An object of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    key: String,
    first: Offset,
    /// Number of its claim.
    claim: u64,
    kind: Kind,
}

/// The object of a key; `None` if the sink does not make such names.
fn item(key: String) -> Option<Item> {
    let name = key.rsplit('/').next()?;
    let (numbers, _) = name.split_once('.')?;
    let (first, claim) = numbers.split_once('-')?;
    let (first, claim) = (Offset(first.parse().ok()?), claim.parse().ok()?);
    let kind = Kind::of(&key)?;
    Some(Item { key, first, claim, kind })
}

impl ObjectAuditor {
    fn options(&self) -> Result<&ObjectOptions, SinkError> {
        self.options.as_ref().map_err(|what| SinkError::Fatal(what.clone()))
    }

    /// The archive's objects, in order, and its store.
    async fn items(&self) -> Result<(Arc<dyn Store>, Vec<Item>), SinkError> {
        let options = self.options()?;
        let store = options.place.open().await?;
        let names = find_names(&*store, &options.place, &self.stream, &self.reference).await?;
        let keys = store.list(&names.table).await?;
        let mut items: Vec<Item> = keys.into_iter().filter_map(item).collect();
        items.sort_by_key(|item| (item.first, item.claim));
        Ok((store, items))
    }
}

#[async_trait]
impl Auditor for ObjectAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let options = self.options()?;
        let store = options.place.open().await?;
        let layout = Layout::new(&options.format, &self.stream)?;
        let names = find_names(&*store, &options.place, &self.stream, &self.reference).await?;
        committer::look(&*store, &names, &layout).await
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        Ok(self.items().await?.1.first().map(|item| item.first))
    }

    async fn open(&self, span: Span) -> Result<Sides, AuditError> {
        let layout = Layout::new(&self.options()?.format, &self.stream)?;
        let (store, items) = self.items().await?;
        let items = within(items, span);
        let is_parquet = matches!(layout, Layout::Parquet(_));
        let times = match &layout {
            Layout::Parquet(parquet) => times(Some(parquet.columns.columns())),
            Layout::Ndjson { .. } => times(None),
        };
        if let Some(other) = items.iter().find(|item| (item.kind == Kind::Parquet) != is_parquet) {
            return Err(AuditError::Cannot(format!(
                "{} is of another format than the configuration has now. Verify the offsets before and after \
                 the change separately, with --from and --to, each with the configuration of its time",
                store.place(&other.key)
            )));
        }
        let (maker, judge, decoder): (Box<dyn Maker>, Box<dyn Judge>, _) = match layout {
            Layout::Parquet(parquet) => {
                let columns = parquet_read::names(&parquet);
                let maker = parquet_read::RowMaker::new(parquet, &self.stream);
                let judge = RowJudge(columns.clone());
                (Box::new(maker), Box::new(judge), Decoder::Parquet(columns))
            }
            Layout::Ndjson { .. } => {
                let maker = LineMaker::new(&self.stream);
                (Box::new(maker), Box::new(LineJudge), Decoder::Lines(self.stream.clone()))
            }
        };
        let kept = turning(move |turner| read(store, items, decoder, span, turner));
        Ok(Sides { kept, maker, judge, order: Order::ByOffset, times, notes: Vec::new() })
    }
}

/// The objects that may hold offsets of the span. Where one ends is not in its name, but at the latest where the one
/// begins that was claimed next; unless the position was moved back before that.
fn within(items: Vec<Item>, span: Span) -> Vec<Item> {
    let mut claims: Vec<(u64, Offset)> =
        items.iter().map(|item| (item.claim, item.first)).collect();
    claims.sort_unstable();
    let ends_before = |item: &Item| {
        let at = claims.partition_point(|(claim, _)| *claim <= item.claim);
        claims.get(at).is_some_and(|(_, next)| *next > item.first && *next <= span.from)
    };
    let is_within = |item: &Item| item.first <= span.to && !ends_before(item);
    items.into_iter().filter(is_within).collect()
}

/// How objects are decoded.
#[derive(Clone)]
enum Decoder {
    Lines(StreamName),
    /// The columns, in the order of a row.
    Parquet(Arc<[String]>),
}

impl Decoder {
    fn run(
        &self,
        item: &Item,
        place: &str,
        bytes: Bytes,
        span: Span,
        to: &mut Turner,
    ) -> Result<(), Stop> {
        match self {
            Decoder::Parquet(columns) => parquet_read::read(place, bytes, columns, span, to),
            Decoder::Lines(stream) => {
                let mut lines = match plain(item.kind, bytes) {
                    Ok(lines) => lines,
                    Err(error) => {
                        let what = format!("{place} cannot be read: {error}");
                        return Ok(to.push(Found::Unreadable(what))?);
                    }
                };
                Ok(LineReader::new(stream, span).read(place, &mut *lines, to)?)
            }
        }
    }
}

fn plain(kind: Kind, bytes: Bytes) -> std::io::Result<Box<dyn BufRead + Send>> {
    let bytes = Cursor::new(bytes);
    Ok(match kind {
        Kind::NdjsonZstd => Box::new(BufReader::new(zstd::stream::read::Decoder::new(bytes)?)),
        Kind::NdjsonGzip => Box::new(BufReader::new(flate2::read::MultiGzDecoder::new(bytes))),
        Kind::Ndjson | Kind::Parquet => Box::new(bytes),
    })
}

async fn read(
    store: Arc<dyn Store>,
    items: Vec<Item>,
    decoder: Decoder,
    span: Span,
    mut turner: Turner,
) -> (Turner, Result<(), Stop>) {
    for item in items {
        let place = store.place(&item.key);
        let bytes = match store.read_whole(&item.key).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) => {
                let what = format!("{place} was removed while the archive was read");
                if turner.push_async(Found::Unreadable(what)).await.is_err() {
                    return (turner, Err(Stop::Gone));
                }
                continue;
            }
            Err(error) => return (turner, Err(error.into())),
        };
        let decoder = decoder.clone();
        let decoding = spawn_blocking(move || {
            let decoded = decoder.run(&item, &place, bytes, span, &mut turner);
            (turner, decoded)
        });
        match decoding.await {
            Ok((back, Ok(()))) => turner = back,
            Ok((back, Err(stop))) => return (back, Err(stop)),
            Err(error) => {
                let what = format!("internal error: {error}; please report it");
                return (Turner::closed(), Err(SinkError::Fatal(what).into()));
            }
        }
    }
    (turner, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(keys: &[&str]) -> Vec<Item> {
        keys.iter().filter_map(|key| item((*key).to_owned())).collect()
    }

    #[test]
    fn only_the_sinks_own_names_are_objects() {
        let found = items(&[
            "s/date=2026-11-23/hour=14/00000000000000000005-7.parquet",
            "s/x.csv",
            "s/00000000000000000005.parquet",
            "s/date=2026-11-23/00000000000000000009-12.ndjson.zst",
            "s/_SUCCESS",
        ]);
        let told: Vec<_> = found.iter().map(|item| (item.first.0, item.claim, item.kind)).collect();
        assert_eq!(told, [(5, 7, Kind::Parquet), (9, 12, Kind::NdjsonZstd)]);
    }

    #[test]
    fn objects_outside_of_the_span_are_not_read() {
        let all = items(&["s/0-1.ndjson", "s/10-2.ndjson", "s/20-3.ndjson", "s/30-4.ndjson"]);
        let firsts = |from, to| -> Vec<u64> {
            let span = Span { from: Offset(from), to: Offset(to) };
            within(all.clone(), span).iter().map(|item| item.first.0).collect()
        };
        assert_eq!(firsts(0, 99), [0, 10, 20, 30]);
        assert_eq!(firsts(10, 19), [10]);
        assert_eq!(firsts(9, 20), [0, 10, 20]);
        assert_eq!(firsts(35, 36), [30]);
    }

    /// Claims 1 to 3 reach up to 60; then the position was moved back to 15.
    #[test]
    fn objects_of_before_a_move_reach_further() {
        let all = items(&[
            "s/0-1.ndjson",
            "s/20-2.ndjson",
            "s/40-3.ndjson",
            "s/15-4.ndjson",
            "s/50-5.ndjson",
        ]);
        let claims = |from, to| -> Vec<u64> {
            let span = Span { from: Offset(from), to: Offset(to) };
            within(all.clone(), span).iter().map(|item| item.claim).collect()
        };
        assert_eq!(claims(0, 99), [1, 2, 3, 4, 5]);
        // Where the third one ends is not known.
        assert_eq!(claims(55, 99), [3, 5]);
        assert_eq!(claims(45, 49), [3, 4]);
        assert_eq!(claims(20, 30), [2, 4]);
    }
}
