//! Is the lag true? Every second, the daemon's figures are compared with another client's view of the
//! same stream, through load, silence, faults and restarts: within one chunk and two seconds.
//!
//! `make lag` runs for ten minutes (`LAG_SECONDS`), with restarts of the broker; a plain run goes once
//! through everything else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::common::daemon::{Daemon, Home};
use crate::common::load::{Load, Pace, body};
use crate::common::proxy::Proxy;
use crate::common::rstream::{Outgoing, Rstream, Watched};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::web::{Reply, Web};
use crate::common::{Broker, Version, env_or, eventually, streams};

/// Number of messages in one chunk of the load.
const CHUNK: u64 = 50;

/// Largest difference of an age from the true one.
const SECONDS_MAX: f64 = 2.0;

/// Age from which a figure is that of a stream that cannot be observed.
const UNSEEN_SECONDS: f64 = 2.0;

/// Time until a daemon that starts knows its position.
const BEGINS: Duration = Duration::from_secs(20);

/// The daemon's figures.
#[derive(Debug)]
struct Sample {
    phase: &'static str,
    /// The figures are of a time between these, in seconds since 1970.
    asked_at: f64,
    answered_at: f64,
    durable: Option<u64>,
    messages: u64,
    seconds: f64,
    /// Time since the stream's end was last seen.
    seen_age: f64,
}

fn now() -> f64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}

/// The messages of the stream, as the other client saw them.
struct Truth(Vec<(u64, i64)>);

impl Truth {
    /// Number of messages that were written until `at` and lie beyond `durable`.
    fn waiting(&self, durable: Option<u64>, at: f64) -> u64 {
        let done = self.0.partition_point(|(offset, _)| Some(*offset) <= durable);
        let there = self.0.partition_point(|(_, ms)| *ms as f64 / 1000.0 <= at);
        there.saturating_sub(done) as u64
    }

    /// The age of the oldest of them.
    fn age(&self, durable: Option<u64>, at: f64) -> f64 {
        let done = self.0.partition_point(|(offset, _)| Some(*offset) <= durable);
        self.0.get(done).map_or(0.0, |(_, ms)| (at - *ms as f64 / 1000.0).max(0.0))
    }

    /// What is wrong with this sample.
    fn judge(&self, sample: &Sample) -> Option<String> {
        let Sample { asked_at, answered_at, durable, messages, seconds, seen_age, .. } = *sample;
        // While a stream cannot be observed, only its past is known.
        let least = self.waiting(durable, asked_at - seen_age - SECONDS_MAX).saturating_sub(CHUNK);
        let most = self.waiting(durable, answered_at) + CHUNK;
        let age = self.age(durable, asked_at);
        let oldest = self.age(durable, answered_at);
        let oldest = if seen_age > UNSEEN_SECONDS { oldest.max(seen_age) } else { oldest };
        let fits = (least..=most).contains(&messages)
            && seconds >= age - SECONDS_MAX
            && seconds <= oldest + SECONDS_MAX;
        (!fits)
            .then(|| format!("{sample:?}: {least} to {most} messages, {age:.1} to {oldest:.1} s"))
    }
}

/// The set-up, and the samples taken.
struct Stage {
    home: Home,
    daemon: Option<Daemon>,
    started: Instant,
    samples: Vec<Sample>,
    /// How often nothing was known.
    unknown: usize,
}

impl Stage {
    /// Takes a sample every second, for this long.
    async fn look_on(&mut self, phase: &'static str, time: Duration) {
        let until = Instant::now() + time;
        let mut every = tokio::time::interval(Duration::from_secs(1));
        while Instant::now() < until {
            every.tick().await;
            let asked_at = now();
            let Some(daemon) = &self.daemon else { continue };
            let said = match daemon.consumer("c").await {
                Some(said) => said,
                None => continue,
            };
            let answered_at = now();
            let known = (said["lag_messages"].as_u64(), said["lag_seconds"].as_f64());
            let (Some(messages), Some(seconds)) = known else {
                assert!(
                    self.started.elapsed() < BEGINS || said["state"] != "running",
                    "{phase}: nothing is known: {said}"
                );
                self.unknown += 1;
                continue;
            };
            self.samples.push(Sample {
                phase,
                asked_at,
                answered_at,
                durable: said["durable_offset"].as_u64(),
                messages,
                seconds,
                seen_age: said["stream_seen_age_seconds"].as_f64().unwrap_or_default(),
            });
        }
    }

    fn start(&mut self) {
        self.daemon = Some(self.home.start());
        self.started = Instant::now();
    }

    async fn terminate(&mut self) {
        self.daemon.take().unwrap().terminate().await;
    }
}

/// A running producer: the official client where that can connect, else rstream, in bursts.
enum Producer {
    Steady(Load),
    Bursts(tokio::task::JoinHandle<()>),
}

impl Producer {
    async fn on(broker: &Broker, stream: &str, pace: Pace) -> Producer {
        if broker.version != Version::V3_10 {
            return Producer::Steady(Load::on(broker, stream, pace));
        }
        let rstream = Rstream::at(broker).await.expect("it was there");
        let (stream, messages) = (stream.to_owned(), pace.messages);
        Producer::Bursts(tokio::spawn(async move {
            loop {
                let burst: Vec<_> = (0..messages).map(|i| Outgoing::body(body(i))).collect();
                rstream.publish(&stream, &burst).await;
            }
        }))
    }

    async fn stop(self) {
        match self {
            Producer::Steady(load) => drop(load.stop().await),
            Producer::Bursts(task) => task.abort(),
        }
    }
}

/// How long each phase takes, and whether the broker is restarted.
struct Form {
    phase: Duration,
    rounds: u64,
    restarts_broker: bool,
}

async fn agrees(version: Version, form: Form) -> Result<(), Unavailable> {
    let own;
    let broker = if form.restarts_broker {
        own = Broker::private(version).await?;
        &own
    } else {
        Broker::shared(version).await?
    };
    let rstream = Rstream::at(broker).await?;
    let stream = streams::create(broker, "truth").await;
    let watched = rstream.watch(&stream);
    let proxy = Proxy::to(broker.stream_port).await;
    let fails = Arc::new(AtomicBool::new(false));
    let web = {
        let fails = Arc::clone(&fails);
        Web::start(
            move |_| if fails.load(Ordering::SeqCst) { Reply::status(503) } else { Reply::Keep },
        )
        .await
    };
    let home = Home::with_broker(
        &format!(
            "uri = \"{}\"\nheartbeat = \"30s\"\nfollow_advertised_hosts = false",
            broker.uri_by(proxy.port)
        ),
        &format!(
            "[[consumer]]\nname = \"c\"\nstream = \"{stream}\"\nsink = {{ type = \"http\", url = \"{}\" }}\n\
             batch = {{ max_age = \"200ms\" }}\ncommit = {{ every = \"1s\" }}\n\
             restart = {{ min_backoff = \"50ms\", max_backoff = \"1s\" }}\n",
            web.url()
        ),
    );
    let mut stage =
        Stage { home, daemon: None, started: Instant::now(), samples: Vec::new(), unknown: 0 };
    stage.start();
    let pace = Pace { messages: CHUNK, pause: Duration::from_millis(100) };
    let trickle = Pace { messages: 1, pause: Duration::from_millis(900) };
    let phase = form.phase;
    for _ in 0..form.rounds {
        stage.look_on("idle", phase).await;
        let load = Producer::on(broker, &stream, trickle).await;
        stage.look_on("trickle", phase).await;
        load.stop().await;
        let load = Producer::on(broker, &stream, pace).await;
        stage.look_on("load", phase).await;
        fails.store(true, Ordering::SeqCst);
        stage.look_on("sink fails", phase).await;
        fails.store(false, Ordering::SeqCst);
        stage.look_on("load again", phase).await;
        proxy.cut();
        stage.look_on("cut once", phase / 2).await;
        proxy.refuse();
        stage.look_on("cut off", phase).await;
        proxy.resume();
        stage.look_on("connected again", phase).await;
        stage.terminate().await;
        stage.start();
        stage.look_on("restarted under load", phase).await;
        load.stop().await;
        stage.daemon.take().unwrap().kill();
        stage.start();
        stage.look_on("restarted on a quiet stream", phase + phase / 2).await;
        proxy.refuse();
        stage.look_on("cut off a quiet stream", phase).await;
        proxy.resume();
        if form.restarts_broker {
            stage.look_on("quiet", phase / 2).await;
            broker.stop().await;
            stage.look_on("broker away", phase).await;
            broker.start().await;
            stage.look_on("broker back", phase).await;
        }
    }
    // In the end everything is durable.
    let landed = || async {
        let last = watched.messages().last().map(|(offset, _)| *offset);
        (stage.daemon.as_ref()?.consumer("c").await?["durable_offset"].as_u64() == last)
            .then_some(())
    };
    eventually("everything is durable", Duration::from_secs(60), landed).await;
    report(&stage, &watched);
    stage.terminate().await;
    Ok(())
}

fn report(stage: &Stage, watched: &Watched) {
    let truth = Truth(watched.messages());
    let mut phases: Vec<&str> = stage.samples.iter().map(|sample| sample.phase).collect();
    phases.dedup();
    phases.sort_unstable();
    phases.dedup();
    eprintln!("phase: samples; furthest from the truth in messages and in seconds");
    for phase in phases {
        let (mut count, mut messages, mut seconds) = (0, 0, 0.0_f64);
        for sample in stage.samples.iter().filter(|sample| sample.phase == phase) {
            count += 1;
            // Only while the stream could be observed: otherwise no figure is the true one.
            if sample.seen_age <= UNSEEN_SECONDS {
                let at = f64::midpoint(sample.asked_at, sample.answered_at);
                let waiting = truth.waiting(sample.durable, at);
                messages = messages.max(waiting.abs_diff(sample.messages));
                let off = truth.age(sample.durable, at) - sample.seconds;
                seconds = seconds.max(off.abs());
            }
        }
        eprintln!("{phase}: {count}; {messages}; {seconds:.2} s");
    }
    let (all, unknown) = (stage.samples.len(), stage.unknown);
    eprintln!("{} messages, {all} samples, {unknown} times unknown", watched.count());
    let wrong: Vec<_> = stage.samples.iter().filter_map(|sample| truth.judge(sample)).collect();
    assert!(wrong.is_empty(), "{} of {all} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    // Without any waiting message, this test could not fail.
    let oldest = stage.samples.iter().map(|sample| sample.seconds).fold(0.0, f64::max);
    assert!(oldest > SECONDS_MAX && all > 20, "{oldest} s, {all} samples");
}

fn form() -> Form {
    match env_or("LAG_SECONDS", 0) {
        0 => Form { phase: Duration::from_secs(3), rounds: 1, restarts_broker: false },
        // Fourteen phases a round, and the time of restarts.
        seconds => Form {
            phase: Duration::from_secs(8),
            rounds: seconds.div_ceil(120),
            restarts_broker: true,
        },
    }
}

#[tokio::test]
async fn another_client_sees_the_same_on_rabbitmq_4_3() {
    or_skip!(agrees(Version::V4_3, form()).await);
}

#[tokio::test]
async fn another_client_sees_the_same_on_rabbitmq_3_10() {
    or_skip!(agrees(Version::V3_10, form()).await);
}

#[tokio::test]
async fn another_client_sees_the_same_on_rabbitmq_4_0() {
    or_skip!(agrees(Version::V4_0, form()).await);
}
