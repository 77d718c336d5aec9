//! `partition_by`: the folders of the records, and what is refused.

use std::path::Path;
use std::time::Duration;

use super::audit::ObjectAuditor;
use super::*;
use crate::sink::audit::{Auditor as _, Span};
use crate::sink::conformance::{STREAM, message, part};
#[cfg(feature = "object-stores")]
use crate::types::Secret;
use crate::types::{Offset, StreamName};

fn options(root: &Path, parts: &str, open_max: usize) -> ObjectOptions {
    let parts: Vec<Part> = serde_json::from_str(parts).unwrap();
    ObjectOptions {
        place: Place::Folder(root.to_owned()),
        format: Format::Ndjson(Packing::Plain),
        partition_by: Some(Partitioning::new(&parts, &mut Vec::new(), open_max)),
        rotation: Rotation { records: 1_000, bytes: 1 << 20, age: Duration::from_secs(300) },
    }
}

/// Records whose regions are these, from an offset on.
fn batch(first: u64, regions: &[u64]) -> Arc<Batch> {
    let body = |region: &u64| message(format!("{{\"region\":\"r{region}\"}}").as_bytes());
    let messages: Vec<_> = regions.iter().map(body).collect();
    let part = part(first, &messages).unwrap();
    Arc::new(Batch::new(StreamName::from(STREAM), vec![part]).unwrap())
}

async fn open(options: &ObjectOptions) -> Result<ObjectSink, SinkError> {
    ObjectSink::open(options.clone(), STREAM.into(), "r".into()).await
}

async fn write(options: &ObjectOptions, first: u64, regions: &[u64]) {
    let mut sink = open(options).await.unwrap();
    sink.write(&batch(first, regions)).await.unwrap();
    sink.flush().await.unwrap();
    sink.close().await.unwrap();
}

/// Folder, number of the claim and offsets of each object, in the order of the claims.
fn objects(root: &Path) -> Vec<(u64, String, Vec<u64>)> {
    let table = root.join(STREAM);
    let mut found = Vec::new();
    let mut folders = vec![table.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let lines =
                text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let offsets = lines.map(|line| line["offset"].as_u64().unwrap()).collect();
            let name = path.file_name().unwrap().to_str().unwrap();
            let claim = name.split_once('-').unwrap().1.split_once('.').unwrap().0;
            let folder = folder.strip_prefix(&table).unwrap().to_str().unwrap().to_owned();
            found.push((claim.parse().unwrap(), folder, offsets));
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn a_commit_has_an_object_for_each_folder() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path(), r#"["/region"]"#, 8);
    let mut sink = open(&options).await.unwrap();
    sink.write(&batch(0, &[1, 2, 1])).await.unwrap();
    sink.write(&batch(3, &[3, 1])).await.unwrap();
    sink.flush().await.unwrap();
    sink.write(&batch(5, &[2, 2])).await.unwrap();
    sink.flush().await.unwrap();
    assert_eq!(sink.position().await.unwrap().unwrap().offset.0, 6);
    let found = objects(dir.path());
    let (first, second) = (found[0].0, found[3].0);
    let folder = |region: u64| format!("region=r{region}");
    assert_eq!(
        found,
        [
            (first, folder(1), vec![0, 2, 4]),
            (first, folder(2), vec![1]),
            (first, folder(3), vec![3]),
            (second, folder(2), vec![5, 6]),
        ]
    );
    // What was staged is removed.
    let staged = dir.path().join(format!("_rillway/{STREAM}/staged"));
    assert_eq!(std::fs::read_dir(staged).unwrap().count(), 0);
}

/// A commit has no more folders than allowed, within a batch and over several.
#[tokio::test]
async fn a_commit_ends_before_it_has_too_many_folders() {
    for open_max in [1, 2, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let options = options(dir.path(), r#"["/region"]"#, open_max);
        let mut sink = open(&options).await.unwrap();
        let regions: Vec<u64> = (0..60).map(|n| n * n % 11).collect();
        for (nth, some) in regions.chunks(20).enumerate() {
            sink.write(&batch(nth as u64 * 20, some)).await.unwrap();
        }
        sink.flush().await.unwrap();
        let found = objects(dir.path());
        let mut claims: Vec<u64> = found.iter().map(|(claim, ..)| *claim).collect();
        claims.dedup();
        let mut next = 0;
        for claim in claims {
            let of_it: Vec<_> = found.iter().filter(|(number, ..)| *number == claim).collect();
            assert!(of_it.len() <= open_max, "{open_max}: {of_it:?}");
            let mut offsets: Vec<u64> = of_it.iter().flat_map(|(.., some)| some.clone()).collect();
            offsets.sort_unstable();
            // Commits follow each other.
            assert!(offsets.iter().copied().eq(next..next + offsets.len() as u64), "{offsets:?}");
            next += offsets.len() as u64;
            for (_, folder, offsets) in of_it {
                let is_there = |n: &u64| *folder == format!("region=r{}", n * n % 11);
                assert!(offsets.iter().all(is_there), "{folder}: {offsets:?}");
            }
        }
        assert_eq!(next, 60, "{open_max}");
    }
}

#[tokio::test]
async fn other_names_of_folders_are_refused_and_other_sources_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let by_region = options(dir.path(), r#"["/region"]"#, 8);
    let elsewhere = options(dir.path(), r#"[{"name":"region","from":"/new/region"}]"#, 8);
    let by_tenant = options(dir.path(), r#"["/tenant"]"#, 8);
    let by_hour = ObjectOptions { partition_by: None, ..by_region.clone() };
    // Before there is an object, nothing is decided.
    open(&by_tenant).await.unwrap();
    write(&by_region, 0, &[1, 2]).await;
    for other in [&by_tenant, &by_hour] {
        let Err(SinkError::Fatal(told)) = open(other).await.map(drop) else { panic!() };
        assert!(told.contains("has folders by region") && told.contains("another `url`"), "{told}");
        let looked = committed(other, &STREAM.into(), &"r".into()).await;
        assert!(matches!(looked, Err(SinkError::Fatal(why)) if why == told));
    }
    write(&elsewhere, 2, &[1, 2]).await;
    write(&by_region, 4, &[3]).await;
    let rest: usize = objects(dir.path()).iter().map(|(.., offsets)| offsets.len()).sum();
    assert_eq!(rest, 5);
    // An archive by hour stays one, also under its own names.
    let dir = tempfile::tempdir().unwrap();
    let place = Place::Folder(dir.path().to_owned());
    let by_hour = ObjectOptions { place: place.clone(), ..by_hour };
    write(&by_hour, 0, &[1]).await;
    let told = open(&ObjectOptions { place, ..by_region }).await.map(drop).unwrap_err().to_string();
    assert!(told.contains("has folders by date, hour"), "{told}");
    write(&options(dir.path(), r#"["date", "hour"]"#, 8), 1, &[1]).await;
    write(&by_hour, 2, &[1]).await;
    let folders: Vec<String> = objects(dir.path()).into_iter().map(|(_, name, _)| name).collect();
    assert!(folders.len() == 3 && folders.iter().all(|name| name == &folders[0]), "{folders:?}");
}

/// Records of a commit that was claimed and not created: what was staged decides.
#[tokio::test]
async fn without_what_was_staged_the_operator_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let by_region = options(dir.path(), r#"["/region"]"#, 8);
    write(&by_region, 0, &[1, 2]).await;
    let path = dir.path().join(format!("_rillway/{STREAM}/checkpoint.json"));
    let mut state: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(state["layout"], 2);
    let settled = state.clone();
    state["claim"] = serde_json::json!({
        "key": format!("_rillway/{STREAM}/staged/1-a-1"),
        "bytes": 1000, "crc": 1, "first_offset": 2, "last_offset": 7, "records": 6,
        "checkpoint": { "offset": 7 }, "staged": { "objects": 2, "number": 99 },
    });
    std::fs::write(&path, state.to_string()).unwrap();
    let at = committed(&by_region, &STREAM.into(), &"r".into()).await.unwrap();
    assert_eq!(at.unwrap().offset.0, 1, "nothing above is known to exist");
    // Other folders are refused even if nothing is in the table: the commit would be finished into it.
    let table = dir.path().join(STREAM);
    std::fs::rename(&table, dir.path().join("away")).unwrap();
    let by_tenant = options(dir.path(), r#"["/tenant"]"#, 8);
    let told = open(&by_tenant).await.map(drop).unwrap_err().to_string();
    assert!(told.contains("not finished (offsets 2 to 7): first start"), "{told}");
    assert!(!told.contains("Take the former"), "{told}");
    std::fs::rename(dir.path().join("away"), &table).unwrap();
    let told = open(&by_region).await.map(drop).unwrap_err().to_string();
    assert!(told.contains("is gone") && told.contains("offsets 2 to 7"), "{told}");
    assert!(told.contains("names end in -99") && told.contains("checkpoint.json"), "{told}");
    // What an operator could not know.
    assert!(told.contains("no other process") && told.contains("before the extension"), "{told}");
    assert!(!told.contains("offsets set"), "it has a former position: {told}");
    // The way out that it names.
    std::fs::write(&path, settled.to_string()).unwrap();
    write(&by_region, 2, &[3]).await;
}

/// A re-created stream begins again, and so does one whose position is moved.
#[tokio::test]
async fn a_new_incarnation_is_written_beside_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let by_region = options(dir.path(), r#"["/region"]"#, 8);
    write(&by_region, 0, &[1, 2, 3]).await;
    let mut sink = open(&by_region).await.unwrap();
    sink.write(&batch(3, &[1, 2])).await.unwrap();
    sink.restart().await.unwrap();
    assert_eq!(sink.position().await.unwrap(), None);
    sink.write(&batch(0, &[2, 2, 1])).await.unwrap();
    sink.flush().await.unwrap();
    let mut all: Vec<u64> = objects(dir.path()).into_iter().flat_map(|(.., some)| some).collect();
    all.sort_unstable();
    assert_eq!(all, [0, 0, 1, 1, 2, 2]);
}

/// What the sink refuses because of its folder is not missing in the archive.
#[tokio::test]
async fn an_audit_refuses_what_has_no_folder() {
    let part_of =
        |required: bool| format!(r#"[{{"name":"region","from":"/region","required":{required}}}]"#);
    let bodies = [r#"{"region":"eu"}"#, r#"{"x":1}"#, r#"{"region":""}"#, "no JSON"];
    let messages: Vec<_> = bodies.iter().map(|body| message(body.as_bytes())).collect();
    let batch = Batch::new(StreamName::from(STREAM), vec![part(5, &messages).unwrap()]).unwrap();
    let batch = Arc::new(batch);
    let columns = ParquetColumns::Envelope { body_is_text: true };
    let parquet = Format::Parquet { zstd_level: None, columns };
    for (format, required) in [
        (parquet, true),
        (Format::Ndjson(Packing::Plain), true),
        (Format::Ndjson(Packing::Plain), false),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let options = ObjectOptions { format, ..options(dir.path(), &part_of(required), 8) };
        let auditor = ObjectAuditor {
            options: Ok(options.clone()),
            stream: STREAM.into(),
            reference: "r".into(),
        };
        let span = Span { from: Offset(5), to: Offset(8) };
        let mut sides = auditor.open(span).await.map_err(|error| error.to_string()).unwrap();
        let (mut made, mut refused) = (Vec::new(), Vec::new());
        sides.maker.make(&batch, &mut made, &mut refused).unwrap();
        let made: Vec<u64> = made.into_iter().map(|entry| entry.offset.0).collect();
        // As the sink does it.
        let mut bad = match open(&options).await.unwrap().write(&batch).await {
            Err(SinkError::Poison(bad)) => bad,
            other => other.map(|_| Vec::new()).unwrap(),
        };
        bad.sort_by_key(|bad| bad.offset);
        assert_eq!(refused, bad);
        assert_eq!(made, if required { vec![5] } else { vec![5, 6, 7, 8] });
    }
}

#[cfg(feature = "object-stores")]
/// Placeholders are filled after the configuration was checked.
#[tokio::test]
async fn keys_that_may_become_too_long_are_refused_before_anything_is_claimed() {
    let dir = tempfile::tempdir().unwrap();
    for (prefix, parts, is_refused) in [
        (600, r#"["/a", "/b"]"#, false),
        (601, r#"["/a", "/b"]"#, true),
        (601, r#"["date", "/b"]"#, false),
        (601, r#"["/a", "hour"]"#, false),
    ] {
        let option = |name: &str, value: &str| (name.to_owned(), Secret::new(value.to_owned()));
        let place = Place::Store {
            url: format!("s3://bucket/{}", "p".repeat(prefix)).parse().unwrap(),
            // Nobody is there.
            options: vec![
                option("endpoint", "http://127.0.0.1:9"),
                option("region", "x"),
                option("access_key_id", "x"),
                option("secret_access_key", "x"),
            ],
            operation_max: Duration::from_secs(5),
        };
        let options = ObjectOptions { place, ..options(dir.path(), parts, 8) };
        let told = open(&options).await.map(drop).unwrap_err();
        match told {
            SinkError::Fatal(why) if is_refused => {
                assert!(why.contains("stores take keys of 1024"), "{why}");
            }
            SinkError::Transient { .. } if !is_refused => {}
            other => panic!("{prefix} {parts}: {other}"),
        }
    }
}
