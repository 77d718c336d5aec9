//! One consumer panics, or its sink always fails, or never returns: do the two others keep their speed,
//! and is the failing one shown as such?
//!
//! Through the library, since none of the real sinks can be made to panic.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rillway::admin::{ConsumerView, Overview};
use rillway::config::{Config, Env};
use rillway::flow::batch::Batch;
use rillway::sink::{Durability, Sink, SinkError};
use rillway::supervisor::{Plan, Supervisor, plan_of};
use rillway::telemetry::State;
use rillway::types::{Checkpoint, Guarantee};

use crate::common::daemon::Home;
use crate::common::load::body;
use crate::common::skip::{Unavailable, or_skip};
use crate::common::{Broker, METRICS, Version, eventually, streams};

const LONG: Duration = Duration::from_secs(60);

/// Value of the counter's one sample whose labels hold both of these.
fn counted(metric: &str, consumer: &str, label: &str) -> u64 {
    let (text, consumer) = (METRICS.render(), format!("consumer=\"{consumer}\""));
    let mut samples = text.lines().filter(|line| {
        line.starts_with(&format!("{metric}{{")) && line.contains(&consumer) && line.contains(label)
    });
    let sample = samples.next().and_then(|line| line.rsplit(' ').next()?.parse().ok());
    assert!(samples.next().is_none(), "more than one {metric} of {consumer} with {label}");
    sample.unwrap_or(0)
}

/// A sink's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    PanicsWhenWriting,
    PanicsWhenAskedWhereItIs,
    PanicsWhenOpened,
    FailsToOpen,
    AlwaysFails,
    NeverReturns,
}

/// A sink that keeps nothing.
struct Faulty(Fault);

#[async_trait]
impl Sink for Faulty {
    fn kind(&self) -> &'static str {
        "null"
    }

    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn position(&mut self) -> Result<Option<Checkpoint>, SinkError> {
        match self.0 {
            Fault::PanicsWhenAskedWhereItIs => panic!("on purpose"),
            _ => Ok(None),
        }
    }

    async fn write(&mut self, _batch: &Arc<Batch>) -> Result<Durability, SinkError> {
        match self.0 {
            Fault::PanicsWhenWriting => panic!("on purpose"),
            Fault::AlwaysFails => Err(down()),
            Fault::NeverReturns => std::future::pending().await,
            _ => Ok(Durability::Durable),
        }
    }

    async fn close(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

fn down() -> SinkError {
    SinkError::Transient { what: "the medium is down".to_owned(), retry_after: None }
}

/// Gives this plan a sink with this fault, and counts how often it is opened.
fn with_fault(plan: Plan, fault: Fault, opened: &Arc<AtomicU32>) -> Plan {
    let opened = Arc::clone(opened);
    let sink = Arc::new(move || -> futures_util::future::BoxFuture<'static, _> {
        opened.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            match fault {
                Fault::PanicsWhenOpened => panic!("on purpose"),
                Fault::FailsToOpen => Err(down()),
                _ => Ok(Box::new(Faulty(fault)) as Box<dyn Sink>),
            }
        })
    });
    Plan { sink, ..plan }
}

fn view(overview: &dyn Overview, name: &str) -> ConsumerView {
    let all = overview.consumers();
    all.into_iter().find(|consumer| consumer.name.as_str() == name).expect("it is one of them")
}

fn durable(overview: &dyn Overview, name: &str) -> Option<u64> {
    view(overview, name).durable_offset.map(|offset| offset.0)
}

/// Runs three consumers, the first with a fault, until both others have written everything, twice;
/// returns how long that took.
async fn beside(fault: Fault) -> Result<Duration, Unavailable> {
    const EACH: u64 = 20_000;
    let broker = Broker::shared(Version::V4_3).await?;
    let stream = streams::create(broker, "isolation").await;
    streams::publish(broker, &stream, (0..EACH).map(body)).await;
    let consumer = |name: &str| {
        format!(
            "[[consumer]]\nname = \"{name}\"\nstream = \"{stream}\"\nsink = {{ type = \"null\" }}\n\
             batch = {{ max_messages = 100 }}\ncommit = {{ every_messages = 1000000, every = \"1h\" }}\n\
             restart = {{ min_backoff = \"20ms\", max_backoff = \"100ms\" }}\n"
        )
    };
    // A unique name in the metrics, which all tests of this process share.
    let faulty = format!("{fault:?}");
    let home = Home::new(
        &broker.uri(),
        &[consumer(&faulty), consumer("second"), consumer("third")].concat(),
    );
    let config = Config::load(Some(&home.path("rillway.toml")), &Env::default()).unwrap();
    let mut plans: Vec<Plan> = config.consumers.iter().map(|c| plan_of(&config, c)).collect();
    let opened = Arc::new(AtomicU32::new(0));
    plans[0] = with_fault(plans[0].clone(), fault, &opened);
    LazyLock::force(&METRICS);
    let began = Instant::now();
    let supervisor = Supervisor::start(plans);
    let overview = supervisor.overview();

    let until_written = async |name: &str, last: u64| {
        eventually(&format!("{name} has written {last}, beside {fault:?}"), LONG, || async {
            (durable(&*overview, name) >= Some(last)).then_some(())
        })
        .await;
    };
    until_written("second", EACH - 1).await;
    until_written("third", EACH - 1).await;
    let took = began.elapsed();
    if fault == Fault::None {
        until_written(&faulty, EACH - 1).await;
        supervisor.drain(LONG).await;
        return Ok(took);
    }

    let why = match fault {
        Fault::AlwaysFails | Fault::FailsToOpen => "the medium is down",
        Fault::NeverReturns => "has made nothing durable for",
        _ => "panicked",
    };
    let shown = eventually(&format!("{fault:?} is shown as not ready"), LONG, || async {
        let shown = view(&*overview, &faulty);
        let says = shown.reason.as_ref().is_some_and(|reason| reason.contains(why));
        (!shown.ready && says).then_some(shown)
    })
    .await;
    eprintln!("{fault:?}: {} {:?} {:?}", shown.state, shown.reason, shown.lag_messages);
    assert_eq!(shown.durable_offset, None, "it made nothing durable");
    assert!(overview.live().is_ok(), "the daemon itself is well");

    // More messages: the others write them, and the faulty one's lag grows.
    let lag = view(&*overview, &faulty).lag_messages.unwrap_or(0);
    streams::publish(broker, &stream, (EACH..2 * EACH).map(body)).await;
    until_written("second", 2 * EACH - 1).await;
    until_written("third", 2 * EACH - 1).await;
    assert_eq!(durable(&*overview, &faulty), None, "it made nothing durable");
    if !matches!(
        fault,
        Fault::PanicsWhenOpened | Fault::FailsToOpen | Fault::PanicsWhenAskedWhereItIs
    ) {
        // A consumer that never knew its position has no lag.
        eventually("its lag grows", LONG, || async {
            (view(&*overview, &faulty).lag_messages >= Some(lag + EACH)).then_some(())
        })
        .await;
    }
    for name in ["second", "third"] {
        let good = view(&*overview, name);
        assert!(good.ready && good.state == State::Running && good.restarts == 0, "{name}");
    }
    assert_restarts(fault, &overview, &faulty, &opened).await;

    // Unwritten messages keep it from draining; a consumer with none can end.
    let holds = matches!(fault, Fault::AlwaysFails | Fault::NeverReturns);
    let drained = supervisor.drain(if holds { Duration::from_secs(10) } else { LONG }).await;
    let late: Vec<&str> = drained.late.iter().map(|key| key.consumer.as_str()).collect();
    assert_eq!(late, if holds { vec![faulty.as_str()] } else { vec![] });
    for name in ["second", "third"] {
        assert_eq!(
            streams::stored_offset(broker, &stream, name).await,
            durable(&*overview, name),
            "{name} stored what it wrote when it was told to end"
        );
    }
    Ok(took)
}

/// Panics and sinks that cannot be opened count as restarts, and recur; a sink that only fails to write
/// is tried again without a restart.
async fn assert_restarts(
    fault: Fault,
    overview: &Arc<dyn Overview>,
    name: &str,
    opened: &AtomicU32,
) {
    match fault {
        Fault::None => {}
        Fault::AlwaysFails | Fault::NeverReturns => {
            assert_eq!(view(&**overview, name).restarts, 0);
            assert_eq!(opened.load(Ordering::SeqCst), 1);
            let errors = counted("rillway_sink_errors_total", name, "reason=\"transient\"");
            assert_eq!(errors > 0, fault == Fault::AlwaysFails, "{errors} errors counted");
        }
        _ => {
            eventually("it is started again and again", LONG, || async {
                (view(&**overview, name).restarts >= 3).then_some(())
            })
            .await;
            assert!(opened.load(Ordering::SeqCst) >= 3);
            let reason = if fault == Fault::FailsToOpen { "sink" } else { "panic" };
            let label = format!("reason=\"{reason}\"");
            let restarts = counted("rillway_restarts_total", name, &label);
            assert!(restarts >= 3, "{fault:?}: {restarts} restarts counted as {reason}");
        }
    }
}

/// All faults in turn, so that the speed of the others can be compared with that beside a healthy
/// consumer. Only coarsely: this machine may be busy, and stall.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_others_keep_their_pace() {
    let usual = or_skip!(beside(Fault::None).await);
    for fault in [
        Fault::PanicsWhenWriting,
        Fault::PanicsWhenAskedWhereItIs,
        Fault::PanicsWhenOpened,
        Fault::FailsToOpen,
        Fault::AlwaysFails,
        Fault::NeverReturns,
    ] {
        let took = or_skip!(beside(fault).await);
        eprintln!("beside {fault:?} {took:?}, usually {usual:?}");
        assert!(took < 4 * usual + Duration::from_secs(6), "{took:?}, usually {usual:?}");
    }
}
