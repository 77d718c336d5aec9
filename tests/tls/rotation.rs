//! Are certificates that are replaced while the daemon runs used by its next connections, and broken ones
//! not, over both protocols and by the sink `stream`?

use std::os::unix::fs::symlink;
use std::time::Duration;

use super::*;
use crate::common::daemon::Daemon;
use crate::common::eventually;
use crate::common::proxy::Proxy;

const MINUTE: Duration = Duration::from_secs(60);

/// A mounted secret of Kubernetes: files that are links into a folder, which is a link itself.
struct Mounted<'a>(&'a Home);

impl Mounted<'_> {
    fn write(&self, version: &str, ca: &str, (certificate, key): &Pair) {
        let folder = self.0.path("secret").join(version);
        std::fs::create_dir_all(&folder).unwrap();
        for (name, content) in [("ca.crt", ca), ("tls.crt", certificate), ("tls.key", key)] {
            std::fs::write(folder.join(name), content).unwrap();
            let link = self.0.path("secret").join(name);
            if !link.is_symlink() {
                symlink(format!("..data/{name}"), link).unwrap();
            }
        }
    }

    /// Makes this version the one that is seen, at once.
    fn swap(&self, version: &str) {
        let new = self.0.path("secret/..data_tmp");
        symlink(version, &new).unwrap();
        std::fs::rename(new, self.0.path("secret/..data")).unwrap();
    }
}

/// One daemon, behind a proxy.
struct Runs<'a> {
    home: &'a Home,
    daemon: Daemon,
    proxy: Proxy,
    stream: String,
}

impl Runs<'_> {
    /// Waits until so many messages are there.
    async fn has(&self, total: u64) {
        self.home.until_landed(&self.daemon, "out", &self.stream, total).await;
    }

    /// Cuts all connections, and waits until the files have been read again with this result.
    async fn cut_until(&self, result: &str) {
        let before = self.reloads(result).await;
        self.proxy.cut();
        let what = format!("certificates {result} again\n{}", self.home.log_tail());
        eventually(&what, MINUTE, || async { (self.reloads(result).await > before).then_some(()) })
            .await;
    }

    async fn reloads(&self, result: &str) -> f64 {
        let result = format!("result=\"{result}\"");
        self.daemon.metric("rillway_tls_reloads_total", &[&result]).await.unwrap_or(0.0)
    }
}

const IDENTITY: &str = "mechanism = \"external\"\ntls = { ca = \"secret/ca.crt\", cert = \"secret/tls.crt\", key = \"secret/tls.key\" }";

async fn replaced(version: Version) -> Result<(), Unavailable> {
    let (first, second) = (Authority::new("authority"), Authority::new("authority"));
    let both = format!("{}{}", first.ca, second.ca);
    let (broker, ports) = demanding(version, &both, &first.broker(&["localhost"])).await?;
    let target = streams::create(&broker, "tls-rotation-copy").await;
    // One each: what a consumer of the stream protocol stores is a gap over AMQP.
    let streams_of = [
        streams::create(&broker, "tls-rotation").await,
        streams::create(&broker, "tls-rotation-amqp").await,
    ];
    let publish = async |from: u64| {
        for stream in &streams_of {
            let bodies = (from..from + 100).map(|i| format!("{i}"));
            streams::publish(&broker, stream, bodies).await;
        }
    };
    let copied = async |total: u64| {
        eventually("all is copied", MINUTE, || async {
            let copied = crate::common::reading::bodies(&broker, &target).await;
            (copied.len() as u64 >= total).then_some(copied)
        })
        .await
    };
    let consumer = |name: &str, stream: &str, sink: &str| {
        format!("[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ {sink} }}\n")
    };
    let into_file = streams_of
        .each_ref()
        .map(|stream| consumer("files", stream, "type = \"file\", dir = \"out\""));
    let copy =
        consumer("copy", &streams_of[0], &format!("type = \"stream\", stream = \"{target}\""));
    let homes = [Home::with_broker("", ""), Home::with_broker("", "")];
    let ways = [
        ("rabbitmq-stream+tls", ports.stream, format!("{}{copy}", into_file[0])),
        ("amqps", ports.amqp, into_file[1].clone()),
    ];
    let (old, new) = (first.guest("first"), second.guest("second"));
    let mut running = Vec::new();
    for ((home, (scheme, port, consumers)), stream) in homes.iter().zip(ways).zip(&streams_of) {
        let proxy = Proxy::to(port).await;
        home.configure(&settings(scheme, "", proxy.port, IDENTITY), &consumers);
        let mounted = Mounted(home);
        mounted.write("one", &first.ca, &old);
        mounted.swap("one");
        let daemon = home.start();
        running.push(Runs { home, daemon, proxy, stream: stream.clone() });
    }
    publish(0).await;
    for runs in &running {
        runs.has(100).await;
    }
    copied(100).await;

    // A key that is half written, and then one without its certificate: the former ones stay.
    for (broken, total) in [(&new.1[..new.1.len() / 2], 200), (new.1.as_str(), 300)] {
        for runs in &running {
            std::fs::write(runs.home.path("secret/one/tls.key"), broken).unwrap();
            runs.cut_until("failed").await;
        }
        publish(total - 100).await;
        for runs in &running {
            runs.has(total).await;
            assert_eq!(runs.reloads("loaded").await, 0.0);
            let log = runs.home.log();
            let told =
                log.lines().find(|line| line.contains("cannot be used: connections are made"));
            let told = told.unwrap_or_else(|| panic!("{}", runs.home.log_tail()));
            assert!(told.contains("secret/tls.key"), "{told}");
        }
        copied(total).await;
    }

    // All at once: another authority, another certificate here, and one of the broker's that the former
    // authority did not sign.
    certify(&broker, &second.broker(&["localhost"])).await;
    for runs in &running {
        let mounted = Mounted(runs.home);
        mounted.write("two", &second.ca, &new);
        mounted.swap("two");
        runs.cut_until("loaded").await;
    }
    publish(300).await;
    for runs in &running {
        runs.has(400).await;
    }
    for command in [
        ["rabbitmq-streams", "list_stream_connections", "peer_cert_subject"],
        ["rabbitmqctl", "list_connections", "peer_cert_subject"],
    ] {
        eventually("only the new certificate is in use", MINUTE, || async {
            let listed = broker.ctl(&command).await;
            (listed.contains("second") && !listed.contains("first")).then_some(())
        })
        .await;
    }
    let all: Vec<_> = (0..400).map(|i| format!("{i}")).collect();
    assert_eq!(copied(400).await, all);
    for runs in running {
        runs.daemon.terminate().await;
        let lines = runs.home.lines("out", &runs.stream);
        let bodies: Vec<_> = lines.iter().map(|line| line["body"].to_string()).collect();
        assert_eq!(bodies, all);
    }
    Ok(())
}

#[tokio::test]
async fn certificates_are_replaced_while_running_on_rabbitmq_4_3() {
    or_skip!(replaced(Version::V4_3).await);
}

#[tokio::test]
async fn certificates_are_replaced_while_running_on_rabbitmq_4_0() {
    or_skip!(replaced(Version::V4_0).await);
}
