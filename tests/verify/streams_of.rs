//! Super streams: each partition is compared by itself, also where all are in one table.

use std::time::Duration;

use super::{differences, verify, whole_report};
use crate::common::daemon::Home;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, eventually, streams};

async fn a_shared_table() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let (name, partitions) = streams::create_super(broker, "verified-super", 3).await;
    for (partition, total) in partitions.iter().zip([100, 200, 300]) {
        streams::publish(broker, partition, (0..total).map(|i| format!("{{\"i\":{i}}}"))).await;
    }
    let home = Home::new(
        &broker.uri(),
        &format!(
            "[[consumer]]\nname = \"c\"\nsuper_stream = \"{name}\"\n\
             batch = {{ max_messages = 50, max_age = \"20ms\" }}\n\
             sink = {{ type = \"sqlite\", path = \"data.db\", table = \"orders\" }}\n"
        ),
    );
    let daemon = home.start();
    let database = || rusqlite::Connection::open(home.path("data.db")).unwrap();
    eventually("all rows are written", Duration::from_secs(60), || async {
        let count = database().query_row("SELECT count(*) FROM orders", [], |row| row.get(0));
        (count == Ok(600)).then_some(())
    })
    .await;
    daemon.terminate().await;
    let (report, code) = whole_report(&home, &["c"]);
    assert_eq!((code, &report["same"]), (0, &true.into()), "{report:#}");
    let same: Vec<_> =
        report["streams"].as_array().unwrap().iter().map(|s| s["same"].clone()).collect();
    assert_eq!(same, [100, 200, 300], "{report:#}");

    database()
        .execute("DELETE FROM orders WHERE offset = 7 AND stream = ?1", [&partitions[1]])
        .unwrap();
    let (report, code) = whole_report(&home, &["c"]);
    let told: Vec<_> = report["streams"].as_array().unwrap().iter().map(differences).collect();
    assert_eq!(
        (code, told),
        (65, ["", "missing [[7,7]]", ""].map(str::to_owned).into()),
        "{report:#}"
    );
    let (report, code) = whole_report(&home, &["c", "--stream", &partitions[2]]);
    assert_eq!((code, report["streams"].as_array().unwrap().len()), (0, 1), "{report:#}");
    let output = verify(&home, &["c", "--stream", "other"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains(&partitions[0]), "{said}");
    Ok(())
}

#[tokio::test]
async fn partitions_in_one_table_are_told_apart() {
    or_skip!(a_shared_table().await);
}
