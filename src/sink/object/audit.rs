//! Reads the objects of an archive back, for `rillway verify`.
//!
//! The objects of one commit are in memory at a time, as for the sink itself. With `partition_by` these are several,
//! whose records lie between each other: they are merged by their offsets. The archive is not taken over, and the
//! last claim is not decided: the position says which objects count.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Cursor};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::layout::{Kind, Layout};
use super::partitions::Folders;
use super::store::Store;
use super::{ObjectOptions, committer, find_names, parquet_read};
use crate::sink::audit::cells::RowJudge;
use crate::sink::audit::lines::{LineJudge, LineMaker, LineReader};
use crate::sink::audit::{
    AuditError, Auditor, Entry, Found, Judge, Kept, Maker, MakesEach, Order, Sides, Span, Stop,
    Turner, times, turning,
};
use crate::sink::{BadRecord, SinkError};
use crate::types::{Checkpoint, Offset, Reference, StreamName};
use crate::wire::block::Record;

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
        let names = find_names(&*store, options, &self.stream, &self.reference).await?;
        let keys = store.list(&names.table).await?;
        let mut items: Vec<Item> = keys.into_iter().filter_map(item).collect();
        items.sort_by_key(|item| (item.first, item.claim));
        Ok((store, items))
    }
}

/// The objects of one commit: they have the number of its claim in common.
struct Together {
    first: Offset,
    items: Vec<Item>,
}

impl Together {
    fn claim(&self) -> u64 {
        self.items.first().map_or(0, |item| item.claim)
    }
}

/// The commits, in order.
fn together(items: Vec<Item>) -> Vec<Together> {
    let mut commits: Vec<Together> = Vec::new();
    let mut places = std::collections::HashMap::new();
    // The first object of each is the one that begins first, since they are sorted.
    for item in items {
        let at = *places.entry(item.claim).or_insert(commits.len());
        match commits.get_mut(at) {
            Some(commit) => commit.items.push(item),
            None => commits.push(Together { first: item.first, items: vec![item] }),
        }
    }
    commits
}

#[async_trait]
impl Auditor for ObjectAuditor {
    async fn position(&self) -> Result<Option<Checkpoint>, SinkError> {
        let options = self.options()?;
        let store = options.place.open().await?;
        let layout = Layout::new(&options.format, &self.stream)?;
        let names = find_names(&*store, options, &self.stream, &self.reference).await?;
        committer::look(&*store, &names, &layout, committer::Upto::Created).await
    }

    async fn first(&self) -> Result<Option<Offset>, SinkError> {
        Ok(self.items().await?.1.first().map(|item| item.first))
    }

    async fn open(&self, span: Span) -> Result<Sides, AuditError> {
        let layout = Layout::new(&self.options()?.format, &self.stream)?;
        let (store, items) = self.items().await?;
        let commits = within(together(items), span);
        let is_parquet = matches!(layout, Layout::Parquet(_));
        let times = match &layout {
            Layout::Parquet(parquet) => times(Some(parquet.columns.columns())),
            Layout::Ndjson { .. } => times(None),
        };
        let mut items = commits.iter().flat_map(|commit| &commit.items);
        if let Some(other) = items.find(|item| (item.kind == Kind::Parquet) != is_parquet) {
            return Err(AuditError::Cannot(format!(
                "{} is of another format than the configuration has now. Verify the offsets before and after \
                 the change separately, with --from and --to, each with the configuration of its time",
                store.place(&other.key)
            )));
        }
        let partition_by = self.options()?.partition_by.as_ref();
        let folders = partition_by.map(|by| Folders::new(&self.stream, by));
        let (maker, judge, decoder): (Box<dyn Maker>, Box<dyn Judge>, _) = match layout {
            Layout::Parquet(parquet) => {
                let columns = parquet_read::names(&parquet);
                let maker = parquet_read::RowMaker::new(parquet, &self.stream);
                let maker = InFolders { folders, folder: String::new(), maker };
                let judge = RowJudge(columns.clone());
                (Box::new(maker), Box::new(judge), Decoder::Parquet(columns))
            }
            Layout::Ndjson { .. } => {
                let maker = LineMaker::new(&self.stream);
                let maker = InFolders { folders, folder: String::new(), maker };
                (Box::new(maker), Box::new(LineJudge), Decoder::Lines(self.stream.clone()))
            }
        };
        let kept = turning(move |turner| read(store, commits, decoder, span, turner));
        Ok(Sides { kept, maker, judge, order: Order::ByOffset, times, notes: Vec::new() })
    }
}

/// Makes records as the sink does, which first finds the folder of each: one without is refused.
struct InFolders<M> {
    folders: Option<Folders>,
    /// The last one that was found.
    folder: String,
    maker: M,
}

impl<M: MakesEach> MakesEach for InFolders<M> {
    fn each(&mut self, record: Record<'_>, into: &mut Vec<Entry>) -> Result<(), BadRecord> {
        if let Some(folders) = &self.folders {
            folders.find(record, &mut self.folder)?;
        }
        self.maker.each(record, into)
    }
}

/// The commits that may hold offsets of the span. Where one ends is not in its name, but at the latest where the one
/// begins that was claimed next; unless the position was moved back before that.
fn within(commits: Vec<Together>, span: Span) -> Vec<Together> {
    let mut claims: Vec<(u64, Offset)> =
        commits.iter().map(|commit| (commit.claim(), commit.first)).collect();
    claims.sort_unstable();
    let ends_before = |commit: &Together| {
        let at = claims.partition_point(|(claim, _)| *claim <= commit.claim());
        claims.get(at).is_some_and(|(_, next)| *next > commit.first && *next <= span.from)
    };
    let is_within = |commit: &Together| commit.first <= span.to && !ends_before(commit);
    commits.into_iter().filter(is_within).collect()
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
    commits: Vec<Together>,
    decoder: Decoder,
    span: Span,
    mut turner: Turner,
) -> (Turner, Result<(), Stop>) {
    for Together { mut items, .. } in commits {
        let (store, decoder) = (Arc::clone(&store), decoder.clone());
        let read = match (items.pop(), items.is_empty()) {
            (Some(item), true) => read_one(store, item, decoder, span, turner).await,
            (last, _) => {
                items.extend(last);
                merge(store, items, decoder, span, turner).await
            }
        };
        match read {
            (back, Ok(())) => turner = back,
            stopped => return stopped,
        }
    }
    (turner, Ok(()))
}

/// An object whose records are read ahead.
struct Ahead {
    kept: Box<dyn Kept>,
    /// The next records; empty at the end.
    next: VecDeque<Found>,
}

impl Ahead {
    async fn fill(&mut self) -> Result<(), SinkError> {
        while self.next.is_empty() {
            match self.kept.next().await? {
                Some(page) => self.next.extend(page),
                None => return Ok(()),
            }
        }
        Ok(())
    }

    /// Order of its next record; one that cannot be read comes first. `None` at the end.
    fn rank(&self) -> Option<Option<Offset>> {
        self.next.front().map(|found| match found {
            Found::Record(entry) => Some(entry.offset),
            Found::Unreadable(_) => None,
        })
    }
}

/// Reads objects whose records lie between each other.
async fn merge(
    store: Arc<dyn Store>,
    items: Vec<Item>,
    decoder: Decoder,
    span: Span,
    mut turner: Turner,
) -> (Turner, Result<(), Stop>) {
    let mut all = Vec::with_capacity(items.len());
    for item in items {
        let (store, decoder) = (Arc::clone(&store), decoder.clone());
        let kept = turning(move |turner| read_one(store, item, decoder, span, turner));
        let mut ahead = Ahead { kept, next: VecDeque::new() };
        if let Err(error) = ahead.fill().await {
            return (turner, Err(error.into()));
        }
        all.push(ahead);
    }
    loop {
        let next = all.iter_mut().filter(|ahead| !ahead.next.is_empty()).min_by_key(|a| a.rank());
        let Some(ahead) = next else { return (turner, Ok(())) };
        if let Some(found) = ahead.next.pop_front()
            && turner.push_async(found).await.is_err()
        {
            return (turner, Err(Stop::Gone));
        }
        if let Err(error) = ahead.fill().await {
            return (turner, Err(error.into()));
        }
    }
}

async fn read_one(
    store: Arc<dyn Store>,
    item: Item,
    decoder: Decoder,
    span: Span,
    mut turner: Turner,
) -> (Turner, Result<(), Stop>) {
    let place = store.place(&item.key);
    let bytes = match store.read_whole(&item.key).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => {
            let what = format!("{place} was removed while the archive was read");
            let pushed = turner.push_async(Found::Unreadable(what)).await;
            return (turner, pushed.map_err(|_| Stop::Gone));
        }
        Err(error) => return (turner, Err(error.into())),
    };
    let decoding = spawn_blocking(move || {
        let decoded = decoder.run(&item, &place, bytes, span, &mut turner);
        (turner, decoded)
    });
    match decoding.await {
        Ok(read) => read,
        Err(error) => {
            let what = format!("internal error: {error}; please report it");
            (Turner::closed(), Err(SinkError::Fatal(what).into()))
        }
    }
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
            within(together(all.clone()), span).iter().map(|commit| commit.first.0).collect()
        };
        assert_eq!(firsts(0, 99), [0, 10, 20, 30]);
        assert_eq!(firsts(10, 19), [10]);
        assert_eq!(firsts(9, 20), [0, 10, 20]);
        assert_eq!(firsts(35, 36), [30]);
    }

    /// Claims 1 to 3 reach up to 60; then the position was moved back to 15.
    #[test]
    fn objects_of_before_a_move_reach_further() {
        let mut all = items(&[
            "s/0-1.ndjson",
            "s/20-2.ndjson",
            "s/40-3.ndjson",
            "s/15-4.ndjson",
            "s/50-5.ndjson",
        ]);
        all.sort_by_key(|item| (item.first, item.claim));
        let claims = |from, to| -> Vec<u64> {
            let span = Span { from: Offset(from), to: Offset(to) };
            let commits = within(together(all.clone()), span);
            let mut claims: Vec<u64> = commits.iter().map(Together::claim).collect();
            claims.sort_unstable();
            claims
        };
        assert_eq!(claims(0, 99), [1, 2, 3, 4, 5]);
        // Where the third one ends is not known.
        assert_eq!(claims(55, 99), [3, 5]);
        assert_eq!(claims(45, 49), [3, 4]);
        assert_eq!(claims(20, 30), [2, 4]);
    }

    /// Objects of one claim lie between each other.
    #[test]
    fn the_objects_of_a_commit_are_read_together() {
        let mut all = items(&[
            "s/r=a/0-1.ndjson",
            "s/r=b/2-1.ndjson",
            "s/r=b/10-2.ndjson",
            "s/r=a/15-2.ndjson",
            "s/r=a/20-3.ndjson",
        ]);
        all.sort_by_key(|item| (item.first, item.claim));
        let read = |from, to| -> Vec<Vec<u64>> {
            let span = Span { from: Offset(from), to: Offset(to) };
            let commits = within(together(all.clone()), span);
            commits.iter().map(|c| c.items.iter().map(|item| item.first.0).collect()).collect()
        };
        assert_eq!(read(0, 99), [vec![0, 2], vec![10, 15], vec![20]]);
        assert_eq!(read(12, 13), [vec![10, 15]]);
        assert_eq!(read(16, 20), [vec![10, 15], vec![20]]);
        assert_eq!(read(3, 9), [vec![0, 2]]);
    }
}
