//! Properties that are not UTF-8, which AMQP 0.9.1 lets publishers write and RabbitMQ converts to AMQP
//! 1.0.

use fastrand::Rng;
use rillway::sink::conformance::message as data;

use super::*;
use crate::common::amqp091::{Basic, publish, raw_header};

/// A GUID as its raw bytes, a name in Latin-1, and a header value that is neither.
fn odd() -> Vec<Basic> {
    let guid = vec![0xff, 0xfe, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13];
    vec![
        Basic { body: b"{\"n\":0}".to_vec(), ..Basic::default() },
        Basic { correlation_id: Some(guid.clone()), body: b"1".to_vec(), ..Basic::default() },
        Basic { app_id: Some(b"caf\xe9".to_vec()), body: b"2".to_vec(), ..Basic::default() },
        Basic { message_id: Some(guid), body: b"3".to_vec(), ..Basic::default() },
        Basic {
            headers: vec![
                (b"caf\xe9".to_vec(), b"plain".to_vec()),
                (b"plain".to_vec(), b"caf\xe9\xff".to_vec()),
                (b"nul".to_vec(), b"a\0b".to_vec()),
            ],
            body: b"4".to_vec(),
            ..Basic::default()
        },
        Basic { message_id: Some(b"a\0b".to_vec()), body: vec![0xff], ..Basic::default() },
    ]
}

/// A value of a header: all types of AMQP 0.9.1, extreme ones, lists and tables.
fn value(rng: &mut Rng, depth: u32) -> Vec<u8> {
    let with = |code: u8, bytes: &[u8]| [&[code], bytes].concat();
    let sized =
        |code: u8, bytes: &[u8]| [&[code], &(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let edge = *rng.choice(&[0, 1, -1, i64::MIN, i64::MAX, 253_402_300_799]).unwrap();
    let number = if rng.bool() { edge } else { rng.i64(..) };
    let bytes: Vec<u8> = (0..rng.usize(0..20)).map(|_| rng.u8(..)).collect();
    match rng.u32(0..if depth > 0 { 14 } else { 12 }) {
        0 => vec![b'V'],
        1 => with(b't', &[rng.u8(0..2)]),
        2 => with(b'b', &[rng.u8(..)]),
        3 => with(b's', &(number as i16).to_be_bytes()),
        4 => with(b'I', &(number as i32).to_be_bytes()),
        5 => with(b'l', &number.to_be_bytes()),
        6 => with(b'f', &f32::MAX.to_be_bytes()),
        7 => with(b'd', &rng.choice(&[f64::MAX, 5e-324, -0.0]).unwrap().to_be_bytes()),
        8 => with(b'T', &number.to_be_bytes()),
        9 | 10 => sized(b'S', &bytes),
        11 => sized(b'x', &bytes),
        12 => {
            let items: Vec<u8> = (0..rng.u32(0..4)).flat_map(|_| value(rng, depth - 1)).collect();
            sized(b'A', &items)
        }
        _ => sized(b'F', &headers(rng, depth - 1)),
    }
}

fn headers(rng: &mut Rng, depth: u32) -> Vec<u8> {
    let names = ["n", "text", "x-any", "caf\u{e9}", "", "a.b"];
    let count = rng.usize(0..4);
    let chosen = rng.choose_multiple(names, count);
    chosen.into_iter().flat_map(|name| raw_header(name, &value(rng, depth))).collect()
}

/// Generated messages, with neighbours among them, through every sink over AMQP 0.9.1.
async fn over_amqp() -> Result<(), Unavailable> {
    let total = env_or("ANY_MESSAGES", 4_000) / 20;
    let broker = Broker::shared(Version::V4_3).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let web = Web::start(|_| Reply::Keep).await;
    let stream = streams::create(broker, "any-amqp").await;
    let quiet = streams::create(broker, "amqp-quiet").await;
    let mut rng = Rng::with_seed(env_or("ANY_SEED", 7));
    let all = (0..total).map(|offset| {
        let body = match is_neighbour(offset) {
            true => generate::plain(offset),
            false => generate::body_of(&mut rng),
        };
        let text = |rng: &mut Rng| -> Option<Vec<u8>> {
            rng.bool().then(|| (0..rng.usize(0..20)).map(|_| rng.u8(..)).collect())
        };
        let times = [0, 1, 1_767_225_600, 253_402_300_799, 99_999_999_999_999];
        let raw_headers = if is_neighbour(offset) { Vec::new() } else { headers(&mut rng, 3) };
        Basic {
            correlation_id: text(&mut rng),
            message_id: Some(format!("id-{offset}").into_bytes()),
            app_id: text(&mut rng),
            timestamp: rng.choice(times).filter(|_| !is_neighbour(offset)),
            headers: Vec::new(),
            raw_headers,
            body,
        }
    });
    publish(broker, &stream, all.collect()).await;
    put(broker, &quiet, &[data(b"1")]).await;
    let text = configuration(&stream, &quiet, &schema, postgres, &web);
    // Left out: what needs the other protocol, and what differs here in nothing from another one.
    let left_out =
        ["stream", "stdout", "null", "parquetb", "lines", "metrics", "pg_evolved", "lettered"];
    let is_read = |name: &str| !left_out.contains(&name);
    let consumers = text.split("[[consumer]]\n").skip(1);
    let consumers = consumers.filter(|consumer| consumer.split('"').nth(1).is_some_and(is_read));
    let consumers: String = consumers.map(|c| format!("[[consumer]]\n{c}")).collect();
    let uri = format!("amqp://guest:guest@localhost:{}/%2f", broker.amqp_port);
    let home = Home::new(&uri, &consumers);
    let mut daemon = home.start();
    daemon.until_durable("bystander", 0).await;
    for name in DEFAULT.iter().chain(&TYPED).filter(|name| is_read(name)) {
        let what = format!("{name} has read everything");
        let last = Some(total - 1);
        daemon
            .until(name, &what, Duration::from_secs(120), |c| {
                assert_ne!(c["state"], "halted", "{name}: {c}");
                c["received_offset"].as_u64() == last
            })
            .await;
    }
    let metrics = Metrics::of(&daemon).await;
    for name in DEFAULT.iter().chain(&TYPED).filter(|name| is_read(name)) {
        for reason in ["panic", "broker", "reread", "other"] {
            let restarts = metrics.restarts(name, reason);
            assert_eq!(restarts, 0, "{name}: {reason}\n{}", home.log_tail());
        }
    }
    for name in DEFAULT {
        for reason in ["undecodable", "over_limit", "misfit", "refused"] {
            let count = metrics.lost(name, reason);
            assert_eq!(count, 0, "{name} refused some: {reason}\n{}", home.log_tail());
        }
    }
    daemon.terminate().await;
    let everything: BTreeSet<u64> = (0..total).collect();
    let neighbours: BTreeSet<u64> = (0..total).filter(|offset| is_neighbour(*offset)).collect();
    let of_file = |dir: &str| home.offsets(dir, &stream).into_iter().collect::<BTreeSet<u64>>();
    assert_eq!(of_file("file"), everything);
    assert_eq!(web.kept().into_iter().collect::<BTreeSet<u64>>(), everything);
    assert!(neighbours.is_subset(&of_file("mapped")));
    for name in ["lite.db", "typed.db", "evolved.db", "shaped.db", "keyed.db"] {
        let database = rusqlite::Connection::open(home.path(name)).unwrap();
        let mut asked = database.prepare("SELECT offset FROM t").unwrap();
        let found = asked.query_map([], |row| row.get::<_, i64>(0)).unwrap();
        let found: BTreeSet<u64> = found.map(|offset| offset.unwrap() as u64).collect();
        // Only one of these is deleted: `n` is 1.
        let missing = neighbours.difference(&found).filter(|n| **n != 1).count();
        assert_eq!(missing, 0, "{name} misses neighbours");
    }
    Ok(())
}

#[tokio::test]
async fn any_message_over_amqp() {
    or_skip!(over_amqp().await);
}

async fn odd_properties(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let postgres = Postgres::shared().await?;
    let schema = postgres.schema().await;
    let web = Web::start(|_| Reply::Keep).await;
    let stream = streams::create(broker, "old-protocol").await;
    let quiet = streams::create(broker, "old-quiet").await;
    publish(broker, &stream, odd()).await;
    let last = odd().len() as u64 - 1;
    put(broker, &quiet, &[data(b"1")]).await;
    let text = configuration(&stream, &quiet, &schema, postgres, &web);
    // Every omitted value would be a loss: here nothing may be omitted.
    let home = Home::new(&broker.uri(), &text.replace("on_bad_message = \"skip\"", ""));
    let mut daemon = home.start();
    let rows = ["file", "stdout", "null", "lite", "pg", "http", "stream"];
    for name in rows {
        daemon.until_durable(name, last).await;
    }
    for name in ["parquet", "parquetb", "lines"] {
        daemon.until(name, "read", Duration::from_secs(60), |c| c["received_offset"] == last).await;
        assert_ne!(daemon.consumer(name).await.unwrap()["state"], "halted", "{name}");
    }
    daemon.terminate().await;
    let lines = home.lines("file", &stream);
    assert_eq!(lines.len(), odd().len());
    let marked = "//4AAQIDBAUGBwgJCgsMDQ==";
    let id = &lines[1]["properties"];
    assert!(
        id["correlation_id"]["base64"] == marked
            || (id["correlation_id"] == marked && id["correlation_id_encoding"] == "base64"),
        "{id}"
    );
    assert!(lines[2].to_string().contains("Y2Fm6Q=="), "{}", lines[2]);
    assert!(lines[4].to_string().contains("Y2Fm6f8="), "{}", lines[4]);
    let database = rusqlite::Connection::open(home.path("lite.db")).unwrap();
    let id: String =
        database.query_row("SELECT message_id FROM t WHERE offset = 3", [], |r| r.get(0)).unwrap();
    assert_eq!(id, format!("{{\"base64\":\"{marked}\"}}"));
    let sql =
        format!("SELECT message_id FROM {schema}.t WHERE \"offset\" IN (3, 5) ORDER BY \"offset\"");
    let rows = postgres.client().await.query(&sql, &[]).await.unwrap();
    assert_eq!(rows[0].get::<_, String>(0), id);
    assert_eq!(rows[1].get::<_, String>(0), "{\"base64\":\"YQBi\"}");
    let files = home.path("parquet").join(&stream).join("**/*.parquet").display().to_string();
    let sql = format!("SELECT message_id, body FROM read_parquet('{files}') ORDER BY \"offset\"");
    let rows = duckdb::ask(&sql)?;
    assert_eq!(rows[3][0], id);
    assert_eq!(rows[5][1], "{\"base64\":\"/w==\"}");
    Ok(())
}

#[tokio::test]
async fn odd_properties_on_rabbitmq_3_10() {
    or_skip!(odd_properties(Version::V3_10).await);
}

#[tokio::test]
async fn odd_properties_on_rabbitmq_4_3() {
    or_skip!(odd_properties(Version::V4_3).await);
}
