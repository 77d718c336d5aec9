//! Programs and exactly-once sinks, with the daemon killed at the points at which it hurts most.

use super::*;

const TOTAL: u64 = 600;

#[tokio::test]
async fn killed_daemons_write_each_message_that_is_kept_once() {
    or_skip!(
        async {
            let broker = Broker::shared(Version::V4_3).await?;
            let stream = streams::create(broker, "killed").await;
            let mut messages = all(TOTAL);
            for bad in [0, 57, 58, 300, TOTAL - 1] {
                messages[bad as usize] = message(format!("bad {bad}").as_bytes());
            }
            put(broker, &stream, &messages).await;
            let letters = "on_bad_message = \"dead_letter\"\ndead_letter = { type = \"file\", dir = \"dead\" }\n";
            let files = format!("{PROGRAMS}{letters}");
            let consumers = [
                consumer("files", &stream, &files, "{ type = \"file\", dir = \"files\" }"),
                consumer("lite", &stream, &format!("{PROGRAMS}on_bad_message = \"skip\"\n"), "{ type = \"sqlite\", path = \"lite.db\", table = \"t\" }"),
            ];
            let home = Home::new(&broker.uri(), &consumers.concat());
            let mut deaths = 0;
            for point in ["written:1", "flushed:2", "committed:1", "written:4", "committed:3"] {
                let daemon = home.start_with_fault(&format!("die@{point}"));
                deaths += u64::from(daemon.died_or_done(&["files", "lite"], TOTAL - 1).await);
            }
            assert!(deaths >= 2, "the first two points are always reached");
            let mut daemon = home.start();
            for name in ["files", "lite"] {
                daemon.until_durable(name, TOTAL - 1).await;
            }
            daemon.terminate().await;
            let wanted: Vec<u64> = kept(TOTAL).into_iter().filter(|n| ![58, 300].contains(n)).collect();
            assert_eq!(home.offsets("files", &stream), wanted);
            assert_eq!(home.offsets("dead", &stream), [0, 57, 58, 300, TOTAL - 1]);
            let lite = rusqlite::Connection::open(home.path("lite.db")).unwrap();
            let mut rows = lite.prepare("SELECT offset, body FROM t ORDER BY offset").unwrap();
            let rows: Vec<(u64, String)> = rows
                .query_map([], |row| Ok((row.get::<_, i64>(0)? as u64, row.get(1)?)))
                .unwrap()
                .map(Result::unwrap)
                .collect();
            let expected: Vec<(u64, String)> = wanted.iter().map(|n| (*n, made(*n))).collect();
            assert_eq!(rows, expected);

            // A replay applies the programs: those that are good by now are written, the others stay.
            let other = consumers[0].replace("where = '.region == \"eu\"'", "where = 'true'").replace("map = '{n,", "map = 'if . == null then error(\"none\") else {n,").replace("$message.offset}'", "$message.offset} end'");
            home.configure(&format!("uri = \"{}\"", broker.uri()), &other);
            let replay = home.command(&["dead-letters", "replay", "files"]).output().unwrap();
            let said = String::from_utf8_lossy(&replay.stdout).into_owned() + &String::from_utf8_lossy(&replay.stderr);
            assert!(said.contains("5 are still bad"), "{said}");
            assert!(said.contains("`where`: the body is not JSON"), "{said}");
            Ok::<(), Unavailable>(())
        }
        .await
    );
}
