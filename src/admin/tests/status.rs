//! What is wrong first, and the verdict in words.

use super::super::status::{Level, Status};
use super::*;
use crate::types::StreamName;

fn with(name: &str, change: impl FnOnce(&mut ConsumerView)) -> ConsumerView {
    let mut view = ConsumerView {
        name: name.into(),
        lag_messages: Some(0),
        lag_seconds: Some(0.0),
        ..super::view(None)
    };
    change(&mut view);
    view
}

fn state(name: &str, state: State, seconds: f64) -> ConsumerView {
    with(name, |view| {
        view.state = state;
        view.state_age_seconds = seconds;
        view.ready = matches!(state, State::Running | State::Passive);
        view.reason = (!view.ready && state != State::Stopped).then(|| format!("it is {state}"));
    })
}

fn lagging(name: &str, seconds: f64) -> ConsumerView {
    with(name, |view| (view.lag_messages, view.lag_seconds) = (Some(1_234_567), Some(seconds)))
}

fn order(status: &Status) -> Vec<&str> {
    status.consumers.iter().map(|group| group.name.as_str()).collect()
}

#[test]
fn what_is_wrong_comes_first() {
    let views = [
        state("passive", State::Passive, 9.0),
        state("runs", State::Running, 9.0),
        state("paused", State::Paused, 9.0),
        state("connects", State::Connecting, 5.0),
        lagging("lags", 61.0),
        lagging("lags more", 600.0),
        lagging("lags little", 59.0),
        with("loses", |view| view.headroom_messages = Some(-5)),
        state("never connects", State::Connecting, 31.0),
        state("degraded", State::Degraded, 1.0),
        state("backoff", State::Backoff, 1.0),
        state("halted", State::Halted, 1.0),
        state("also runs", State::Running, 9.0),
    ];
    let status = Status::new(&views, &[]);
    assert_eq!(
        order(&status),
        [
            "halted",
            "degraded",
            "backoff",
            "never connects",
            "loses",
            "lags more",
            "lags",
            "connects",
            "paused",
            "runs",
            "lags little",
            "also runs",
            "passive",
        ]
    );
    assert_eq!(status.level, Level::Bad);
    assert_eq!(status.consumers[5].sum.state, "running, lagging");
    assert_eq!(
        status.verdict,
        "9 of 13 consumers need attention: 1 has halted, 2 fail, 1 cannot start, 1 has lost messages to \
         retention, 2 lag, 1 starts and 1 is paused."
    );
}

#[test]
fn the_verdict_in_words() {
    let run = |name: &str| state(name, State::Running, 5.0);
    let table: Vec<(Vec<ConsumerView>, Level, &str)> = vec![
        (vec![], Level::Ok, "There is no consumer yet."),
        (vec![run("a")], Level::Ok, "All is well: 1 consumer works, and nothing waits."),
        (vec![run("a"), run("b")], Level::Ok, "All is well: 2 consumers work, and nothing waits."),
        (
            vec![run("a"), state("b", State::Passive, 1.0)],
            Level::Ok,
            "All is well: 2 consumers work, of which 1 stands by, and nothing waits.",
        ),
        (
            vec![state("b", State::Passive, 1.0)],
            Level::Ok,
            "All is well: 1 consumer stands by for another instance.",
        ),
        (
            vec![run("a"), lagging("b", 12.0)],
            Level::Ok,
            "All is well: 2 consumers work, at most 12 s and 1.23 M messages behind.",
        ),
        (
            vec![run("a"), with("b", |view| (view.lag_messages, view.lag_seconds) = (None, None))],
            Level::Ok,
            "All is well: 2 consumers work, and the lag of some is not known.",
        ),
        (
            vec![state("a", State::Halted, 1.0)],
            Level::Bad,
            "The consumer needs attention: it has halted.",
        ),
        (vec![lagging("a", 90.0)], Level::Warn, "The consumer is not at its best: it lags."),
        (
            vec![lagging("a", 90.0), lagging("b", 90.0)],
            Level::Warn,
            "All 2 consumers are not at their best: 2 lag.",
        ),
        (
            vec![run("a"), run("b"), state("c", State::Halted, 1.0)],
            Level::Bad,
            "1 of 3 consumers needs attention: 1 has halted.",
        ),
    ];
    for (views, level, verdict) in table {
        let status = Status::new(&views, &[]);
        assert_eq!((status.level, status.verdict.as_str()), (level, verdict));
    }
}

#[test]
fn partitions_are_one_consumer() {
    let partition = |nth: usize, change: &dyn Fn(&mut ConsumerView)| {
        with("all", |view| {
            view.stream = StreamName::from(format!("orders-{nth}").as_str());
            view.super_stream = Some("orders".into());
            (view.lag_messages, view.lag_seconds) = (Some(10), Some(2.0));
            view.received_messages_per_second = Some(5.0);
            change(view);
        })
    };
    let halts = |view: &mut ConsumerView| {
        view.state = State::Halted;
        view.reason = Some("disk full".into());
    };
    let views = [
        state("other", State::Running, 1.0),
        partition(0, &|_| ()),
        partition(1, &halts),
        partition(2, &|view| view.state = State::Passive),
    ];
    let status = Status::new(&views, &[]);
    assert_eq!(order(&status), ["all", "other"]);
    let all = &status.consumers[0];
    assert_eq!((all.stream.as_str(), all.sum.state.as_str()), ("orders", "1 of 3 halted"));
    assert_eq!(all.sum.reason.as_deref(), Some("orders-1: disk full"));
    // What stands by has no lag of its own.
    assert_eq!((all.sum.lag_messages, all.sum.lag_seconds), (Some(20), Some(2.0)));
    assert_eq!(all.sum.received_messages_per_second, Some(10.0));
    let names: Vec<_> = all.partitions.iter().filter_map(|row| row.partition.as_deref()).collect();
    assert_eq!(names, ["orders-1", "orders-0", "orders-2"]);
    // One partition of which nothing is known: neither is the sum.
    let unknown = |view: &mut ConsumerView| (view.lag_messages, view.lag_seconds) = (None, None);
    let views = [partition(0, &|_| ()), partition(1, &unknown)];
    let sum = &Status::new(&views, &[]).consumers[0].sum;
    assert_eq!((sum.lag_messages, sum.lag_seconds), (None, None));
}

#[test]
fn it_reads_back_from_json() {
    let watch =
        WatchView { problem: Some("no offset".into()), ..WatchView::new(&"s".into(), &"r".into()) };
    let status = Status::new(&[state("a", State::Halted, 1.0)], &[watch]);
    assert!(
        status.verdict.ends_with("The watched reference of another program may need attention.")
    );
    let json = serde_json::to_string(&status).unwrap();
    assert_eq!(serde_json::from_str::<Status>(&json).unwrap(), status);
}
