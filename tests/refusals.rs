//! A broker refuses us, or something else than a broker answers: does the error say so, and what to do?

use std::time::Duration;

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, Version, amqp091, eventually, reading, streams};
use crate::tls::{certificates, certified, free_port};

fn consumer(name: &str, stream: &str, sink: &str) -> String {
    format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {sink}\n")
}

/// The output of `check --connect` for a consumer on this broker.
fn told(uri: &str, stream: &str) -> String {
    told_in(&Home::new(uri, &consumer("c", stream, "{ type = \"null\" }")))
}

fn told_in(home: &Home) -> String {
    let checked = home.command(&["check", "--connect"]).output().unwrap();
    let error = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert_eq!(checked.status.code(), Some(69), "{error}");
    error
}

async fn other_ports() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "ports").await;
    let port = broker.amqp_port;
    let amqp = told(&broker.uri_by(port), &stream);
    assert!(amqp.contains("AMQP 0.9.1 port") && amqp.contains(&format!(":{port}")), "{amqp}");
    assert!(amqp.contains("5552"), "{amqp}");
    let encrypted = broker.uri().replacen("rabbitmq-stream:", "rabbitmq-stream+tls:", 1);
    let tls = told(&encrypted, &stream);
    assert!(tls.contains(&format!(":{}", broker.stream_port)) && tls.contains("TLS"), "{tls}");
    Ok(())
}

#[tokio::test]
async fn another_port_says_what_answers_there() {
    or_skip!(other_ports().await);
}

async fn rights_and_limits() -> Result<(), Unavailable> {
    let broker = Broker::private(Version::V4_3).await?;
    let stream = streams::create(&broker, "rights").await;
    broker.ctl(&["rabbitmqctl", "add_user", "svc", "pw"]).await;
    let uri = broker.uri().replacen("guest:guest", "svc:pw", 1);
    let none = told(&uri, &stream);
    assert!(none.contains("set_permissions -p '/' 'svc'"), "{none}");
    broker.ctl(&["rabbitmqctl", "set_permissions", "-p", "/", "svc", "", "", "^other$"]).await;
    let unread = told(&uri, &stream);
    assert!(unread.contains("set_permissions") && unread.contains(&stream), "{unread}");
    broker.ctl(&["rabbitmqctl", "set_vhost_limits", "-p", "/", "{\"max-connections\": 0}"]).await;
    let full = told(&broker.uri(), &stream);
    assert!(full.contains("list_vhost_limits -p '/'"), "{full}");
    assert!(full.contains("a limit of connections is reached"), "{full}");
    broker.ctl(&["rabbitmqctl", "clear_vhost_limits", "-p", "/"]).await;
    broker.ctl(&["rabbitmqctl", "set_user_limits", "guest", "{\"max-connections\": 0}"]).await;
    let full = told(&broker.uri(), &stream);
    assert!(full.contains("list_user_limits --user 'guest'"), "{full}");
    broker.ctl(&["rabbitmqctl", "clear_user_limits", "guest", "all"]).await;
    // The broker gives the same answer for a wrong name.
    let wrong = told(&broker.uri().replace("/%2f", "/elsewhere"), &stream);
    for says in ["virtual host \"elsewhere\"", "there is no such virtual host", "list_vhosts"] {
        assert!(wrong.contains(says), "{wrong}");
    }
    Ok(())
}

#[tokio::test]
async fn a_user_without_rights_and_a_reached_limit_say_what_to_do() {
    or_skip!(rights_and_limits().await);
}

/// The node's own limit: told as a refusal where nothing else is open, and as what it is beside a
/// connection that works. It ends when the limit is raised. AMQP 0.9.1 has another limit, and is told by
/// the broker which it is.
///
/// `check_node_connection_limit` in `rabbit_stream_reader.erl` of RabbitMQ 4.3.6, and in `rabbit_reader.erl`.
async fn the_limit_of_the_node() -> Result<(), Unavailable> {
    let broker = Broker::private(Version::V4_3).await?;
    let stream = streams::create(&broker, "limit").await;
    streams::publish(&broker, &stream, (0..10).map(body)).await;
    let limit = async |most: &str| {
        let set = format!("application:set_env(rabbitmq_stream, max_connections, {most}).");
        broker.ctl(&["rabbitmqctl", "eval", &set]).await
    };
    limit("0").await;
    let full = told(&broker.uri(), &stream);
    assert!(full.contains("of the node, since RabbitMQ 4.3.1: stream.max_connections"), "{full}");

    // Two of the three, and of what looks at the lag.
    limit("2").await;
    let names = ["one", "two", "three"];
    let all =
        names.map(|name| consumer(name, &stream, "{ type = \"null\" }") + "start = \"first\"\n");
    let home = Home::new(&broker.uri(), &all.concat());
    let mut daemon = home.start();
    let (name, reason) =
        eventually("one of the three is refused", Duration::from_secs(60), || async {
            for name in names {
                let consumer = daemon.consumer(name).await?;
                let reason = consumer["reason"].as_str().unwrap_or_default();
                if reason.starts_with("connection limit: ") {
                    return Some((name, reason.to_owned()));
                }
            }
            None
        })
        .await;
    assert!(reason.contains("of the node (stream.max_connections"), "{reason}");
    assert!(reason.contains(&format!(":{}", broker.stream_port)), "{reason}");
    let labels = [&format!("consumer=\"{name}\"")[..], "reason=\"connection_limit\""];
    let counted = daemon.metric("rillway_restarts_total", &labels).await;
    assert!(counted >= Some(1.0), "{counted:?}");
    limit("infinity").await;
    for name in names {
        daemon.until_durable(name, 9).await;
    }
    daemon.terminate().await;

    broker.ctl(&["rabbitmqctl", "eval", "application:set_env(rabbit, connection_max, 0)."]).await;
    let amqp = broker.uri_by(broker.amqp_port).replacen("rabbitmq-stream:", "amqp:", 1);
    let full = told(&amqp, &stream);
    assert!(full.contains("node connection limit (0) is reached"), "{full}");
    Ok(())
}

#[tokio::test]
async fn the_connection_limit_of_a_node_is_named() {
    or_skip!(the_limit_of_the_node().await);
}

/// Both kinds of client on both ports of the management UI, and a plain one on the stream protocol's TLS
/// port.
async fn ports_with_and_without_tls() -> Result<(), Unavailable> {
    let certificates = certificates();
    let (encrypted, https, amqps) = (free_port(), free_port(), free_port());
    let options = certified(&certificates)
        .plugins("management")
        .conf(&format!("stream.listeners.ssl.1 = {encrypted}"))
        .conf(&format!("listeners.ssl.1 = {amqps}"))
        .conf(&format!("management.ssl.port = {https}"))
        .conf("management.ssl.certfile = /node/cert.pem")
        .conf("management.ssl.keyfile = /node/key.pem");
    let broker = Broker::private_with(Version::V4_3, options).await?;
    let told = |scheme: &str, port: u16, keys: &str| {
        let settings = format!(
            "uri = \"{scheme}://guest:guest@localhost:{port}/%2f\"\nconnect_timeout = \"2s\"\n{keys}"
        );
        let home = Home::with_broker(&settings, &consumer("c", "any", "{ type = \"null\" }"));
        std::fs::write(home.path("ca.pem"), &certificates.ca).unwrap();
        let told = told_in(&home);
        assert!(told.contains(&format!("localhost:{port}: ")), "{told}");
        told
    };
    let (plain, tls) = ("rabbitmq-stream", "rabbitmq-stream+tls");
    let (trusting, http) = ("tls = { ca = \"ca.pem\" }", broker.management_port);
    let amqp = broker.amqp_port;
    for (scheme, port, keys, words) in [
        (plain, encrypted, "", &["it answers in TLS", "rabbitmq-stream+tls://"][..]),
        (plain, http, "", &["sent nothing within 2s", "management UI", "5552"][..]),
        (plain, https, "", &["it answers in TLS", "5552"][..]),
        (tls, http, trusting, &["it is an HTTP port", "management UI", "5552"][..]),
        (tls, https, trusting, &["sent nothing within 2s", "management UI", "5552"][..]),
        (tls, broker.stream_port, trusting, &["without TLS"][..]),
        (tls, encrypted, "", &["TLS handshake", "trusted authority", "tls.ca"][..]),
        (plain, amqp, "", &["it is an AMQP 0.9.1 port", "5552"][..]),
        (tls, amqp, trusting, &["it is an AMQP 0.9.1 port", "5551 with TLS"][..]),
        (plain, amqps, "", &["it answers in TLS", "not the port", "5552"][..]),
        (tls, amqps, trusting, &["AMQP 0.9.1", "5551 with TLS"][..]),
    ] {
        let told = told(scheme, port, keys);
        for words in words {
            assert!(told.contains(words), "{scheme} on {port}, {words:?}: {told}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_wrong_port_is_named_with_and_without_tls() {
    or_skip!(ports_with_and_without_tls().await);
}

/// The stream protocol does not distinguish a queue of another type from a missing one, except when one
/// is created.
async fn other_queues(version: Version) -> Result<(), Unavailable> {
    let broker = Broker::shared(version).await?;
    let source = streams::create(broker, "source").await;
    for kind in ["classic", "quorum"] {
        let queue = streams::unique(kind);
        amqp091::declare_queue(broker, &queue, kind).await;
        let read = told(&broker.uri(), &queue);
        assert!(read.contains("classic or quorum queue"), "{read}");
        assert!(read.contains("rabbitmqctl list_queues -p '/' name type"), "{read}");

        let sink = format!("{{ type = \"stream\", stream = \"{queue}\", create = true }}");
        let home = Home::new(&broker.uri(), &consumer("copy", &source, &sink));
        let mut daemon = home.start();
        let says_so = |c: &serde_json::Value| {
            let reason = c["reason"].as_str().unwrap_or_default();
            reason.contains("is not a stream") && reason.contains(&queue)
        };
        daemon.until("copy", "it says what it is", Duration::from_secs(60), says_so).await;
        daemon.terminate().await;
        assert!(!home.log().contains("created, as"), "{}", home.log_tail());

        let text = home.path("text");
        std::fs::write(&text, "x\n").unwrap();
        let text = text.to_str().unwrap();
        if version != Version::V3_10 {
            let publish = home.command(&["publish", "--create", &queue, text]).output().unwrap();
            let error = String::from_utf8_lossy(&publish.stderr).into_owned();
            assert!(!publish.status.success(), "{error}");
            assert!(error.contains("is not a stream"), "{error}");
        }
        amqp091::delete_queue(broker, &queue).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_queue_of_another_type_is_named_on_rabbitmq_4_3() {
    or_skip!(other_queues(Version::V4_3).await);
}

#[tokio::test]
async fn a_queue_of_another_type_is_named_on_rabbitmq_4_0() {
    or_skip!(other_queues(Version::V4_0).await);
}

#[tokio::test]
async fn a_queue_of_another_type_is_named_on_rabbitmq_3_10() {
    or_skip!(other_queues(Version::V3_10).await);
}

/// A disk alarm under a running sink, under one that starts meanwhile, and under `publish`; and a memory
/// alarm, which does not block publishers of streams.
async fn alarms() -> Result<(), Unavailable> {
    let broker = Broker::private(Version::V4_3).await?;
    let (source, target) =
        (streams::create(&broker, "source").await, streams::create(&broker, "target").await);
    let copy = |name: &str| {
        let sink = format!(
            "{{ type = \"stream\", stream = \"{target}\", publisher = \"{name}\", timeout = \"2s\" }}"
        );
        consumer(name, &source, &sink) + "batch = { max_age = \"50ms\" }\nstart = \"first\"\n"
    };
    let home = Home::new(&broker.uri(), &copy("copy"));
    let mut daemon = home.start();
    streams::publish(&broker, &source, (0..10).map(body)).await;
    daemon.until_durable("copy", 9).await;

    let alarms = || broker.ctl(&["rabbitmq-diagnostics", "alarms"]);
    let until_alarmed = async |word: &str| {
        eventually("the broker has the alarm", Duration::from_secs(60), || async {
            alarms().await.contains(word).then_some(())
        })
        .await;
    };
    broker.ctl(&["rabbitmqctl", "set_vm_memory_high_watermark", "0.00001"]).await;
    until_alarmed("Memory alarm").await;
    streams::publish(&broker, &source, (10..20).map(body)).await;
    daemon.until_durable("copy", 19).await;
    broker.ctl(&["rabbitmqctl", "set_vm_memory_high_watermark", "0.6"]).await;

    // The stream holds more than the sink has taken when the alarm begins.
    daemon.signal("STOP");
    streams::publish(&broker, &source, (20..5_000).map(body)).await;
    broker.ctl(&["rabbitmqctl", "set_disk_free_limit", "99999999999999"]).await;
    until_alarmed("disk space alarm").await;
    daemon.signal("CONT");
    let names_it =
        |c: &serde_json::Value| c["reason"].as_str().is_some_and(|r| r.contains("resource alarm"));
    let shown = daemon.until("copy", "the alarm is named", Duration::from_secs(60), names_it).await;
    let reason = shown["reason"].as_str().unwrap();
    assert!(reason.contains("disk space") && reason.contains(&target), "{reason}");
    // It is tried again a few times.
    let retries = || home.log().matches("failed as before").count();
    eventually("it is tried again", Duration::from_secs(60), || async {
        (retries() >= 3).then_some(())
    })
    .await;

    let mut publish = home.command(&["publish", &source, "-"]);
    let publish = publish.stdin(std::process::Stdio::null()).output().unwrap();
    let error = String::from_utf8_lossy(&publish.stderr).into_owned();
    assert!(error.contains("resource alarm"), "{error}");

    let late = Home::new(&broker.uri(), &copy("late"));
    let mut second = late.start();
    second.until("late", "the alarm is named", Duration::from_secs(60), names_it).await;

    broker.ctl(&["rabbitmqctl", "set_disk_free_limit", "1000000"]).await;
    daemon.until_durable("copy", 4_999).await;
    second.until_durable("late", 4_999).await;
    daemon.terminate().await;
    second.terminate().await;
    for log in [home.log(), late.log()] {
        let named = |level: &str| {
            log.lines().filter(|l| l.contains(level) && l.contains("resource alarm")).count()
        };
        assert_eq!(named(" WARN "), 1, "{log}");
        assert_eq!(named(" ERROR "), 0, "{log}");
        assert!(
            log.contains("works again") || log.contains("started again after failures"),
            "{log}"
        );
        assert!(!log.contains("recondition failed"), "{log}");
    }
    let mut landed = reading::bodies(&broker, &target).await;
    landed.sort();
    let mut all: Vec<_> = (0..5_000).chain(0..5_000).map(body).collect();
    all.sort();
    assert_eq!(landed, all, "each of the two has sent each message once");
    Ok(())
}

#[tokio::test]
async fn an_alarm_is_named_once_and_is_waited_out() {
    or_skip!(alarms().await);
}

/// The reason why a consumer cannot connect is a warning once, and again when the reason changes.
async fn attempts() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::unique("attempts");
    let home = Home::new(&broker.uri(), &consumer("c", &stream, "{ type = \"null\" }"));
    let mut daemon = home.start();
    let tried = |c: &serde_json::Value| c["restarts"].as_u64() >= Some(4);
    daemon.until("c", "it has tried some times", Duration::from_secs(60), tried).await;
    streams::create_named(broker, &stream, &[]).await;
    streams::publish(broker, &stream, (0..10).map(body)).await;
    daemon.until_durable("c", 9).await;
    daemon.terminate().await;
    let log = home.log();
    let lines = |level: &str, words: &str| {
        log.lines().filter(|line| line.contains(level) && line.contains(words)).count()
    };
    assert_eq!(lines(" WARN ", "does not exist"), 1, "{log}");
    assert!(lines(" DEBUG ", "not connected, as before") >= 2, "{log}");
    assert_eq!(lines(" INFO ", "connected again"), 1, "{log}");
    Ok(())
}

#[tokio::test]
async fn the_same_failure_to_connect_is_one_warning() {
    or_skip!(attempts().await);
}
