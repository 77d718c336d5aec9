use super::*;

fn status() -> Status {
    Status::new(ConsumerMetrics::new(&"c".into(), &"s".into(), "null"))
}

/// Text of the last error, and whether it was noted since this was last asked.
fn last_error(status: &Status) -> (Option<String>, bool) {
    status.update(|facts| match &mut facts.last_error {
        Some(error) => {
            let is_new = error.at != Timestamp(0);
            error.at = Timestamp(0);
            (Some(error.text.to_string()), is_new)
        }
        None => (None, false),
    })
}

#[test]
fn the_last_error_has_the_time_at_which_the_consumer_last_failed_with_it() {
    let status = status();
    let is = |text: &str, is_new| (Some(text.to_owned()), is_new);
    status.set_state(State::Connecting, Some("asking".into()));
    assert_eq!(last_error(&status), (None, false), "a reason to wait is no error");
    status.set_state(State::Backoff, Some("refused".into()));
    assert_eq!(last_error(&status), is("refused", true));
    status.update(|facts| facts.restarts += 1);
    assert_eq!(last_error(&status), is("refused", false), "the same failure");
    status.set_state(State::Running, None);
    assert_eq!(last_error(&status), is("refused", false), "it is over, and not forgotten");
    status.set_state(State::Backoff, Some("refused".into()));
    assert_eq!(last_error(&status), is("refused", true), "another failure, by the same words");
    status.set_state(State::Running, None);
    status.update(|facts| facts.sink_trouble = Some("disk full".into()));
    assert_eq!(last_error(&status), is("disk full", true));
    status.update(|facts| facts.sink_trouble = Some("disk gone".into()));
    assert_eq!(last_error(&status), is("disk gone", true));
    status.set_state(State::Paused, Some("by an operator".into()));
    assert_eq!(last_error(&status), is("disk gone", false));
}

#[test]
fn the_age_of_a_state_counts_from_its_beginning() {
    let status = status();
    let entered = |status: &Status| status.facts().entered;
    status.update(|facts| facts.entered = Timestamp(0));
    status.set_state(State::Starting, Some("opening the sink".into()));
    assert_eq!(entered(&status), Timestamp(0), "the same state");
    status.set_state(State::Running, None);
    assert_ne!(entered(&status), Timestamp(0));
    status.update(|facts| facts.entered = Timestamp(0));
    // Shown as degraded: another state, although the task still runs.
    status.update(|facts| facts.sink_trouble = Some("disk full".into()));
    assert_ne!(entered(&status), Timestamp(0));
    let facts = status.facts();
    assert!(facts.seconds_in_state(facts.entered) < 1.0);
}

#[test]
fn another_plan_goes_on_with_counts_errors_and_history() {
    let (before, after) = (status(), status());
    before.count_messages(70);
    before.count_chunk(7000);
    before.set_state(State::Backoff, Some("refused".into()));
    let start = Instant::now();
    before.note_history(start, Timestamp(1_000_000), true);
    after.follow(&before);
    assert_eq!(after.facts().last_error.unwrap().text, "refused".into());
    assert_eq!(after.history().len(), 1);
    after.count_messages(30);
    let rate = after.rate(start + Duration::from_secs(10)).unwrap();
    assert_eq!((rate.messages, rate.bytes), (3.0, 0.0), "only what came since then");
}
