//! Consumers are added, changed, paused and removed while others run: does what runs become what is
//! desired, with nothing lost or duplicated?
//!
//! Through the library, since the daemon has no command for this yet.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use rillway::admin::{CommitError, ConsumerView, Overview};
use rillway::config::{Config, Env};
use rillway::flow::batch::Batch;
use rillway::sink::{Durability, Sink, SinkError};
use rillway::supervisor::{Edit, NoSuchConsumer, Plan, Supervisor, plan_of};
use rillway::telemetry::{State, page};
use rillway::types::{Checkpoint, ConsumerKey, Guarantee};
use serde_json::Value;

use crate::common::daemon::Home;
use crate::common::load::{Load, Pace, assert_exact, body};
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, METRICS, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

const GRACE: Duration = Duration::from_secs(60);

fn key(name: &str, stream: &str) -> ConsumerKey {
    ConsumerKey { consumer: name.into(), stream: stream.into() }
}

/// The plan of one consumer, as from a configuration; `sink` may use `HOME` in its paths.
fn plan(broker: &Broker, home: &Home, (name, stream): (&str, &str), rest: &str) -> Plan {
    let rest = rest.replace("HOME", home.path("").to_str().unwrap());
    home.configure(
        &format!("uri = \"{}\"\nheartbeat = \"30s\"", broker.uri()),
        &format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\n\
             restart = {{ min_backoff = \"20ms\", max_backoff = \"100ms\" }}\n{rest}\n"
        ),
    );
    let config = Config::load(Some(&home.path("rillway.toml")), &Env::default()).unwrap();
    plan_of(&config, &config.consumers[0])
}

/// Small batches, so that there is progress at once; offsets are stored only on request and at the end.
const SMALL: &str = "batch = { max_messages = 50, max_age = \"20ms\" }\n\
                     commit = { every_messages = 1000000, every = \"1h\" }";

fn file(dir: &str) -> String {
    format!("{SMALL}\nsink = {{ type = \"file\", dir = \"HOME{dir}\" }}")
}

fn find(overview: &dyn Overview, key: &ConsumerKey) -> Option<ConsumerView> {
    let all = overview.consumers();
    all.into_iter().find(|c| c.name == key.consumer && c.stream == key.stream)
}

fn durable(view: &ConsumerView) -> Option<u64> {
    view.durable_offset.map(|offset| offset.0)
}

/// Waits until this consumer meets the test's condition.
async fn until(
    overview: &dyn Overview,
    key: &ConsumerKey,
    what: &str,
    wanted: impl Fn(&ConsumerView) -> bool,
) -> ConsumerView {
    eventually(&format!("{key}: {what}"), LONG, || async {
        find(overview, key).filter(|view| wanted(view))
    })
    .await
}

/// Waits until it has written more than before.
async fn until_it_moves(overview: &dyn Overview, key: &ConsumerKey) -> ConsumerView {
    let before = find(overview, key).as_ref().and_then(durable);
    until(overview, key, "it moves on", |c| {
        c.state == State::Running && durable(c).is_some() && durable(c) > before
    })
    .await
}

fn last_offset(lines: &[Value]) -> Option<u64> {
    lines.last().and_then(|line| line["offset"].as_u64())
}

fn samples(consumer: &str, stream: &str) -> usize {
    let labels = format!("{{consumer=\"{consumer}\",stream=\"{stream}\"");
    page::render(&METRICS).lines().filter(|line| line.contains(&labels)).count()
}

async fn moves() -> Result<(), Unavailable> {
    let broker = Broker::shared(Version::V4_3).await?;
    LazyLock::force(&METRICS);
    let stream = streams::create(broker, "moving").await;
    let home = Home::new(&broker.uri(), "");
    let load = Load::on(broker, &stream, Pace::BRISK);
    let (changing, going, coming) =
        (key("changing", &stream), key("going", &stream), key("coming", &stream));
    let plan = |name: &str, rest: &str| plan(broker, &home, (name, &stream), rest);

    let first = plan("changing", &file("changing"));
    let null = format!("{SMALL}\nsink = {{ type = \"null\" }}");
    let supervisor = Supervisor::start(vec![first, plan("going", &null)]);
    let overview = supervisor.overview();
    let names = || -> Vec<String> {
        overview.consumers().iter().map(|view| view.name.to_string()).collect()
    };
    assert_eq!(names(), ["changing", "going"], "on show at once");
    until_it_moves(&*overview, &changing).await;
    until_it_moves(&*overview, &going).await;

    // One more, while the others run.
    supervisor.edit(Edit::Put(plan("coming", &file("coming")))).unwrap();
    until_it_moves(&*overview, &coming).await;
    assert_eq!(names(), ["changing", "going", "coming"]);

    // Another configuration. The file sink's lock would refuse the new consumer while the old one writes.
    let memory = find(&*overview, &changing).unwrap().memory_bound_bytes;
    let other = plan("changing", &format!("memory = \"9MiB\"\n{}", file("changing")));
    let other_memory = other.memory_bound_bytes;
    assert_ne!(memory, other_memory);
    supervisor.edit(Edit::Put(other)).unwrap();
    let replaced =
        until(&*overview, &changing, "by the other plan", |c| c.memory_bound_bytes == other_memory)
            .await;
    assert_eq!(replaced.restarts, 0);
    let drained = streams::stored_offset(broker, &stream, "changing").await;
    assert!(drained.is_some(), "it was drained first, so its offset is stored");
    assert_eq!(until_it_moves(&*overview, &changing).await.restarts, 0, "nothing was in its way");

    // A pause: nothing is read, what was written is stored, and the lag is shown to grow.
    supervisor.edit(Edit::Pause(coming.clone())).unwrap();
    let paused = until(&*overview, &coming, "it rests", |c| c.state == State::Paused).await;
    assert!(!paused.ready && paused.reason.unwrap().contains("paused"));
    overview.refresh_gauges();
    let state = |state: &str| {
        let labels = format!("{{consumer=\"coming\",stream=\"{stream}\",state=\"{state}\"}}");
        let name = format!("rillway_consumer_state{labels} ");
        let page = page::render(&METRICS);
        page.lines().find_map(|line| line.strip_prefix(&name).map(str::to_owned)).unwrap()
    };
    assert_eq!((state("paused").as_str(), state("stopped").as_str()), ("1", "0"));
    let at = paused.durable_offset.unwrap().0;
    assert_eq!(streams::stored_offset(broker, &stream, "coming").await, Some(at));
    assert_eq!(last_offset(&home.lines("coming", &stream)), Some(at));
    let lag = paused.lag_messages.unwrap_or(0);
    let behind = until(&*overview, &coming, "its lag grows", |c| {
        c.lag_messages > Some(lag + 1000) && c.lag_seconds > Some(0.0)
    })
    .await;
    assert_eq!((behind.durable_offset.unwrap().0, behind.state), (at, State::Paused));
    assert_eq!(last_offset(&home.lines("coming", &stream)), Some(at), "it does not read");
    let refused = overview.commit("coming").await;
    assert!(matches!(refused, Err(CommitError::Unavailable(_))), "{refused:?}");

    // Another configuration during the pause: the stored offset shows how far it is behind.
    let other = plan("coming", &format!("memory = \"9MiB\"\n{}", file("coming")));
    supervisor.edit(Edit::Put(other)).unwrap();
    let put = until(&*overview, &coming, "its lag is known, and grows", |c| {
        c.memory_bound_bytes == other_memory && c.lag_messages > behind.lag_messages
    })
    .await;
    assert_eq!((put.state, put.stored_offset), (State::Paused, Some(rillway::types::Offset(at))));
    supervisor.edit(Edit::Resume(coming.clone())).unwrap();
    until_it_moves(&*overview, &coming).await;

    // One is removed, and everything that is shown of it.
    assert!(samples("going", &stream) > 0);
    supervisor.edit(Edit::Remove(going.clone())).unwrap();
    eventually("it is gone", LONG, || async { find(&*overview, &going).is_none().then_some(()) })
        .await;
    assert_eq!(samples("going", &stream), 0);
    assert!(streams::stored_offset(broker, &stream, "going").await.is_some());
    assert_eq!(overview.commit("going").await, Err(CommitError::Unknown("going".to_owned())));
    let gone = Err(NoSuchConsumer(going.clone()));
    assert_eq!(supervisor.edit(Edit::Remove(going.clone())), gone);
    assert_eq!(supervisor.edit(Edit::Pause(going)), gone);
    assert_eq!(names(), ["changing", "coming"]);

    let total = load.stop().await;
    for key in [&changing, &coming] {
        let (name, what) = (key.consumer.as_str(), "all is written");
        let all = |c: &ConsumerView| c.lag_messages == Some(0) && durable(c) >= Some(total - 1);
        until(&*overview, key, what, all).await;
        assert_exact(name, &home.lines(name, &stream), total);
    }
    let drained = supervisor.drain(GRACE).await;
    assert_eq!((drained.late, drained.halted, drained.failed), (vec![], vec![], vec![]));
    for name in ["changing", "coming"] {
        let lines = home.lines(name, &stream);
        assert_exact(name, &lines, total);
        let stored = streams::stored_offset(broker, &stream, name).await;
        assert_eq!(stored, last_offset(&lines), "{name}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_come_change_pause_and_go() {
    or_skip!(moves().await);
}

/// Two plans of one name, on two streams, with every kind of sink that is keyed by name.
async fn side_by_side() -> Result<(), Unavailable> {
    const EACH: u64 = 500;
    let broker = Broker::shared(Version::V4_3).await?;
    LazyLock::force(&METRICS);
    let home = Home::new(&broker.uri(), "");
    let both = [streams::create(broker, "side-a").await, streams::create(broker, "side-b").await];
    let counts = "start = \"first\"\nsink = { type = \"metrics\", metrics = [{ name = \"sides_total\", \
                  type = \"counter\" }] }";
    let nothing = format!("{SMALL}\nsink = {{ type = \"null\" }}");
    let parts = format!(
        "{}\non_bad_message = \"dead_letter\"\n\
         dead_letter = {{ type = \"file\", dir = \"HOMEletters\" }}",
        file("parts")
    );
    let plans = || -> Vec<Plan> {
        let of = |stream: &String| {
            [("parts", parts.as_str()), ("nothing", &nothing), ("counts", counts)]
                .map(|(name, rest)| plan(broker, &home, (name, stream), rest))
        };
        both.iter().flat_map(of).collect()
    };
    let mut supervisor = Supervisor::start(plans());
    for run in [1, 2] {
        // Different numbers of messages: each has figures of its own.
        let of = |stream: &String| if *stream == both[0] { EACH } else { 2 * EACH };
        for stream in &both {
            let numbers = (run - 1) * of(stream)..run * of(stream);
            streams::publish(broker, stream, numbers.map(body)).await;
        }
        let overview = supervisor.overview();
        for stream in &both {
            let last = run * of(stream) - 1;
            for name in ["parts", "nothing", "counts"] {
                let view = until(&*overview, &key(name, stream), "all is written", |c| {
                    durable(c) >= Some(last) && c.lag_messages == Some(0)
                })
                .await;
                assert_eq!((view.restarts, view.ready), (0, true), "{name} on {stream}");
            }
            assert_exact("parts", &home.lines("parts", stream), run * of(stream));
        }
        assert_eq!(overview.consumers().len(), 6);

        // Offsets, metrics and heartbeats are kept apart.
        let stored = overview.commit("parts").await.unwrap().stored;
        let stored: Vec<_> = stored.iter().map(|s| (s.stream.to_string(), s.offset.0)).collect();
        let shown = |stream: &String| {
            let view = find(&*overview, &key("parts", stream)).unwrap();
            (stream.clone(), durable(&view).unwrap())
        };
        assert_eq!(stored, [shown(&both[0]), shown(&both[1])]);
        overview.refresh_gauges();
        let page = page::render(&METRICS);
        for stream in &both {
            let of_page = |line: String| page.lines().any(|l| l == line);
            let labels = format!("consumer=\"parts\",stream=\"{stream}\"");
            let offset = shown(stream).1;
            assert!(of_page(format!("rillway_durable_offset{{{labels}}} {offset}")), "{page}");
            let counted = format!(
                "sides_total{{consumer=\"counts\",stream=\"{stream}\"}} {}",
                run * of(stream)
            );
            assert!(of_page(counted.clone()), "{counted}\n{page}");
        }
        let later = Instant::now() + Duration::from_secs(3600);
        let loops: Vec<String> =
            supervisor.heartbeats().stuck(later).into_iter().map(|stuck| stuck.name).collect();
        for stream in &both {
            let name = format!("consumer parts on stream {stream}");
            assert_eq!(loops.iter().filter(|one| **one == name).count(), 1, "{loops:?}");
        }
        let files: Vec<String> = std::fs::read_dir(home.path("state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        for stream in &both {
            for name in ["parts", "nothing", "counts"] {
                assert!(files.contains(&format!("{name}@{stream}.json")), "{files:?}");
            }
            assert!(files.contains(&format!("nothing@{stream}.lock")), "{files:?}");
        }

        // One of them is removed, without an effect on the other.
        supervisor.edit(Edit::Remove(key("parts", &both[0]))).unwrap();
        eventually("it is gone", LONG, || async {
            find(&*overview, &key("parts", &both[0])).is_none().then_some(())
        })
        .await;
        let other = find(&*overview, &key("parts", &both[1])).unwrap();
        assert_eq!((other.state, other.restarts), (State::Running, 0));
        assert_eq!((samples("parts", &both[0]), samples("parts", &both[1]) > 30), (0, true));
        assert_eq!(supervisor.drain(GRACE).await.late, []);
        supervisor = Supervisor::start(plans());
    }
    supervisor.drain(GRACE).await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_of_one_consumer_live_side_by_side() {
    or_skip!(side_by_side().await);
}

/// A sink that never returns from a write.
struct Stuck;

#[async_trait]
impl Sink for Stuck {
    fn kind(&self) -> &'static str {
        "null"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::None
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        Ok(None)
    }

    async fn write(&mut self, _batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        std::future::pending().await
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

async fn stuck_and_halted() -> Result<(), Unavailable> {
    const EACH: u64 = 1000;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "unwilling").await;
    streams::publish(broker, &stream, (0..EACH).map(body)).await;
    let home = Home::new(&broker.uri(), "");
    let (stuck, halting) = (key("stuck", &stream), key("halting", &stream));
    let good = plan(broker, &home, ("stuck", &stream), &file("stuck"));
    let sink = Arc::new(|| -> BoxFuture<'static, Result<Box<dyn Sink>, SinkError>> {
        Box::pin(async { Ok(Box::new(Stuck) as Box<dyn Sink>) })
    });
    let drain_grace = Duration::from_millis(300);
    let bad = Plan { sink, drain_grace, ..good.clone() };
    let opened = Arc::new(AtomicU32::new(0));
    let sink = {
        let opened = Arc::clone(&opened);
        Arc::new(move || -> BoxFuture<'static, Result<Box<dyn Sink>, SinkError>> {
            opened.fetch_add(1, Ordering::SeqCst);
            Box::pin(async { Err(SinkError::Fatal("as the test wants".to_owned())) })
        })
    };
    let halts = Plan { sink, ..plan(broker, &home, ("halting", &stream), &file("halting")) };
    let supervisor = Supervisor::start(vec![bad, halts]);
    let overview = supervisor.overview();
    let halted = until(&*overview, &halting, "it halts", |c| c.state == State::Halted).await;
    assert!(halted.reason.unwrap().contains("as the test wants"));
    until(&*overview, &stuck, "it holds messages", |c| c.buffered_bytes > 0).await;

    // A drain that hangs is aborted, and only then does the other one start.
    supervisor.edit(Edit::Put(good)).unwrap();
    let all = until(&*overview, &stuck, "all is written", |c| durable(c) >= Some(EACH - 1)).await;
    assert_eq!(all.state, State::Running);
    assert_exact("stuck", &home.lines("stuck", &stream), EACH);

    // A halted consumer stays halted, whatever else is done, until it is told to restart.
    assert_eq!((supervisor.halted(), opened.load(Ordering::SeqCst)), (1, 1));
    supervisor.edit(Edit::Pause(halting.clone())).unwrap();
    supervisor.edit(Edit::Resume(halting.clone())).unwrap();
    supervisor.edit(Edit::StartAnew(stuck.clone())).unwrap();
    streams::publish(broker, &stream, (EACH..2 * EACH).map(body)).await;
    until(&*overview, &stuck, "it goes on", |c| durable(c) >= Some(2 * EACH - 1)).await;
    assert_eq!((supervisor.halted(), opened.load(Ordering::SeqCst)), (1, 1));
    supervisor.edit(Edit::StartAnew(halting.clone())).unwrap();
    eventually("it is tried once more", LONG, || async {
        (opened.load(Ordering::SeqCst) == 2 && supervisor.halted() == 1).then_some(())
    })
    .await;
    let willing = plan(broker, &home, ("halting", &stream), &file("halting"));
    supervisor.edit(Edit::Put(willing)).unwrap();
    until(&*overview, &halting, "it works", |c| durable(c) >= Some(2 * EACH - 1)).await;
    let drained = supervisor.drain(GRACE).await;
    assert_eq!((drained.late, drained.halted, drained.failed), (vec![], vec![], vec![]));
    for name in ["stuck", "halting"] {
        assert_exact(name, &home.lines(name, &stream), 2 * EACH);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_hangs_is_aborted_and_what_halted_stays_so() {
    or_skip!(stuck_and_halted().await);
}
