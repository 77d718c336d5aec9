use super::*;

const EVERY: Duration = Duration::from_secs(1);

/// A watch and its clock, which a test turns.
struct World {
    watch: Watch,
    start: Instant,
    ms: u64,
    view: View,
}

impl World {
    /// A consumer that has everything up to this offset durable, on a subscription with credit.
    fn at(position: Option<u64>) -> World {
        let start = Instant::now();
        let view = View {
            position: position.map(Offset),
            received: position.map(Offset),
            last_chunk: None,
            oldest: None,
            holding: false,
            flowing: false,
            quiet_since: Some(start),
        };
        World { watch: Watch::default(), start, ms: 0, view }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.ms)
    }

    fn wall(&self) -> Timestamp {
        Timestamp(self.ms as i64)
    }

    fn look(&mut self, tail: Tail) -> Lag {
        self.watch.looked(tail, self.now(), self.wall(), EVERY);
        self.lag()
    }

    fn lag(&mut self) -> Lag {
        self.watch.note(&self.view);
        self.watch.lag(&self.view, self.wall()).unwrap()
    }

    fn pass(&mut self, ms: u64) -> &mut World {
        self.ms += ms;
        self
    }

    /// A chunk comes, written now, and is durable at once.
    fn carry(&mut self, first: u64, records: u32) {
        let last = Offset(first + u64::from(records) - 1);
        self.view.position = Some(last);
        self.view.received = Some(last);
        self.view.last_chunk =
            Some(SeenChunk { first: Offset(first), records, timestamp: self.wall() });
        self.view.quiet_since = Some(self.now());
    }

    fn cut(&mut self) -> &mut World {
        self.view.quiet_since = None;
        self
    }
}

fn offset(n: u64) -> Tail {
    Tail::Offset(Offset(n))
}

#[test]
fn the_difference_to_the_end() {
    for (position, tail, messages) in [
        (Some(10), offset(10), 0),
        (Some(10), offset(25), 15),
        (None, offset(24), 25),
        (None, Tail::Empty, 0),
        (Some(30), offset(25), 0),
    ] {
        let mut world = World::at(position);
        assert_eq!(world.look(tail).messages, messages, "{position:?} {tail:?}");
        let end = world.watch.end(&world.view).map_or(0, |end| end.0 + 1);
        assert_eq!(end - position.map_or(0, |p| p + 1), messages, "it adds up");
    }
}

#[test]
fn a_chunk_id_is_exact_for_a_chunk_received_and_a_lower_bound_otherwise() {
    let seen = Some(SeenChunk { first: Offset(100), records: 50, timestamp: Timestamp(0) });
    let part = |tail| {
        let mut world = World::at(Some(120));
        world.view.last_chunk = seen;
        world.view.received = Some(Offset(149));
        world.look(tail).messages
    };
    assert_eq!(part(Tail::Chunk(Offset(100))), 29);
    assert_eq!(part(Tail::Chunk(Offset(200))), 80);
    assert_eq!(part(Tail::Chunk(Offset(50))), 29, "a stale end");
}

#[test]
fn tracking_chunks_on_an_idle_stream_are_no_lag() {
    let mut world = World::at(Some(10));
    assert_eq!(world.look(offset(11)).messages, 1);
    world.pass(500);
    assert_eq!(world.look(offset(11)).messages, 1, "not yet sure");
    world.pass(500);
    let lag = world.look(offset(11));
    assert_eq!((lag.messages, lag.seconds), (0, 0.0));
    // It stays so without a subscription, and where another one comes every second.
    world.cut();
    assert_eq!(world.pass(1000).look(offset(11)).messages, 0);
    world.view.quiet_since = Some(world.start);
    for tail in 12..30 {
        world.pass(1000).look(offset(tail));
        let lag = world.pass(999).lag();
        world.ms -= 999;
        assert!(lag.messages <= 2 && lag.seconds < 1.5, "{tail}: {lag:?}");
    }
}

#[test]
fn silence_proves_nothing_without_credit_or_with_something_in_hand() {
    let changes: [fn(&mut View); 4] = [
        |view| view.quiet_since = None,
        |view| view.received = Some(Offset(11)),
        |view| view.holding = true,
        |view| view.oldest = Some(Timestamp(0)),
    ];
    for (nth, change) in changes.into_iter().enumerate() {
        let mut world = World::at(Some(10));
        change(&mut world.view);
        for _ in 0..10 {
            assert_eq!(world.pass(1000).look(offset(11)).messages, 1, "change {nth}");
        }
    }
}

#[test]
fn a_consumer_that_keeps_up_is_never_old() {
    // A chunk of ten every 300 ms, and a stored offset behind each: the end is always ahead.
    let mut world = World::at(None);
    let mut next = 0;
    for step in 0..2000 {
        world.pass(100);
        if step % 3 == 0 {
            world.carry(next, 10);
            next += 11;
        }
        if step % 10 == 0 {
            world.look(offset(next - 1));
        }
        let lag = world.lag();
        assert!(lag.messages <= 11 && lag.seconds <= 1.0, "at {} ms: {lag:?}", world.ms);
    }
}

#[test]
fn the_age_of_what_was_received_counts_from_its_chunk() {
    let mut world = World::at(Some(1));
    world.view.received = Some(Offset(9));
    world.view.oldest = Some(Timestamp(1_000));
    world.pass(3_500);
    assert_eq!(world.look(offset(9)).seconds, 2.5);
    world.view.oldest = Some(Timestamp(60_000));
    assert_eq!(world.look(offset(9)).seconds, 0.0, "a clock that runs ahead");
    // The batch is dropped with its consumer; what it held waits all the same.
    world.view.oldest = Some(Timestamp(1_000));
    world.lag();
    world.view.oldest = None;
    world.pass(10_000);
    assert_eq!(world.lag().seconds, 12.5);
}

#[test]
fn an_outage_lets_it_grow() {
    // With something not durable: without an observation.
    let mut stuck = World::at(Some(4));
    stuck.view.received = Some(Offset(9));
    stuck.view.oldest = Some(Timestamp(0));
    stuck.look(offset(9));
    let lag = stuck.cut().pass(70_000).lag();
    assert_eq!((lag.messages, lag.seconds), (5, 70.0));
    // Caught up, and nobody can look: nobody knows since when.
    let mut caught_up = World::at(Some(9));
    caught_up.look(offset(9));
    assert_eq!(caught_up.cut().pass(1_500).lag().seconds, 0.0, "the next look may be late");
    let lag = caught_up.pass(68_500).lag();
    assert_eq!((lag.messages, lag.seconds), (0, 70.0));
    // The stream is seen, its consumer is cut off: from the first look that saw more.
    let mut cut = World::at(Some(9));
    cut.look(offset(9));
    cut.cut();
    assert_eq!(cut.pass(1000).look(offset(9)), Lag { messages: 0, seconds: 0.0 });
    for second in 1..=600 {
        let lag = cut.pass(1000).look(offset(9 + second));
        // Written between this look and the one before.
        assert_eq!((lag.messages, lag.seconds), (second, second as f64 - 0.5));
    }
    cut.carry(10, 600);
    assert_eq!(cut.look(offset(609)).messages, 0);
}

#[test]
fn a_look_that_fails_is_not_waited_for() {
    // Before 3.11 the next one is due in ten seconds.
    let mut world = World::at(Some(9));
    world.cut();
    world.watch.looked(offset(9), world.now(), world.wall(), Duration::from_secs(10));
    assert_eq!(world.pass(5_000).lag().seconds, 0.0);
    world.watch.failed();
    assert_eq!(world.lag().seconds, 5.0);
    assert_eq!(world.look(offset(9)).seconds, 0.0);
}

#[test]
fn one_that_is_connected_is_believed_for_a_while_when_looks_fail() {
    let mut world = World::at(Some(9));
    world.look(offset(9));
    assert_eq!(world.pass(4_000).lag().seconds, 0.0);
    // The broker answers, if only with a refusal.
    world.watch.heard(world.wall());
    assert_eq!(world.pass(4_000).lag().seconds, 0.0);
    assert_eq!(world.pass(1_000).lag().seconds, 5.0, "silence");
    world.cut();
    assert_eq!(world.lag().seconds, 9.0, "then only what was seen counts");
}

#[test]
fn a_start_on_a_quiet_stream_is_no_jump() {
    // The chunk of its position arrives again, an hour old; behind it is a stored offset.
    let mut world = World::at(Some(9));
    world.pass(3_600_000);
    world.view.last_chunk =
        Some(SeenChunk { first: Offset(0), records: 10, timestamp: Timestamp(0) });
    world.view.quiet_since = Some(world.now());
    assert_eq!(world.look(offset(10)).seconds, 0.0);
    // Where it was behind by an hour, and reads on, it is old until it has caught up.
    world.view.flowing = true;
    assert_eq!(world.look(offset(5000)).seconds, 3600.0);
}

#[test]
fn where_nothing_comes_by_itself_the_next_offset_is_asked_for() {
    let mut world = World::at(Some(9));
    world.view.received = None;
    world.cut().look(offset(12));
    assert_eq!(world.watch.question(&world.view), Some(Offset(10)));
    // A message: its chunk's timestamp counts, from then on.
    let mut waits = World { watch: world.watch.clone(), ..World::at(Some(9)) };
    waits.cut();
    waits.watch.answered(&waits.view, Some(Timestamp(-5_000)), waits.wall());
    assert_eq!(waits.watch.question(&waits.view), None);
    assert_eq!(waits.pass(1_000).lag().seconds, 6.0);
    // None: but an answer may be slow.
    world.watch.answered(&world.view, None, world.wall());
    assert_eq!(world.lag().messages, 3);
    assert_eq!(world.watch.question(&world.view), Some(Offset(10)));
    world.watch.answered(&world.view, None, world.wall());
    assert_eq!(world.lag().messages, 0);
    assert_eq!(world.watch.question(&world.view), None);
    assert_eq!(world.pass(1000).look(offset(13)).messages, 1, "until there is more");
    assert_eq!(world.watch.question(&world.view), Some(Offset(10)));
}

#[test]
fn a_subscription_that_delivers_is_not_asked_for() {
    let mut world = World::at(Some(9));
    world.look(offset(12));
    assert_eq!(world.watch.question(&world.view), None, "it comes, or it is the broker's own");
    world.view.received = Some(Offset(12));
    world.view.quiet_since = None;
    assert_eq!(world.watch.question(&world.view), Some(Offset(10)), "its consumer dropped it");
}

#[test]
fn a_shorter_stream_is_not_clear_to_the_old_end() {
    let mut world = World::at(Some(9));
    for _ in 0..4 {
        world.pass(1000).look(offset(12));
    }
    assert_eq!(world.lag().messages, 0);
    world.view = View { position: None, received: None, ..world.view };
    assert_eq!(world.cut().pass(1000).look(offset(4)).messages, 5);
}

#[test]
fn looks_are_bounded() {
    let mut world = World::at(Some(0));
    world.cut();
    for second in 0..10_000 {
        world.pass(1000).look(offset(second));
    }
    assert!(world.watch.looks.len() <= LOOKS_MAX);
    assert_eq!(world.lag().seconds, 9_998.5, "the first look still counts");
}

#[test]
fn headroom_counts_down_to_loss() {
    assert_eq!(headroom(Some(Offset(99)), Offset(0)), 100);
    assert_eq!(headroom(Some(Offset(99)), Offset(100)), 0);
    assert_eq!(headroom(Some(Offset(99)), Offset(150)), -50);
    assert_eq!(headroom(None, Offset(0)), 0);
}

/// Others store offsets behind the last message; then the position is moved back before it.
#[test]
fn what_lies_behind_is_known_after_the_position_was_moved_back_and_forth() {
    let mut world = World::at(Some(99));
    world.look(offset(130));
    world.pass(2000).look(offset(130));
    assert_eq!(world.pass(1000).look(offset(130)).messages, 0, "settled");
    let moved = |world: &mut World, to: u64| {
        let before = world.view;
        (world.view.position, world.view.received) = (Some(Offset(to)), None);
        world.cut().watch.moved(&before);
    };
    moved(&mut world, 89);
    assert_eq!(world.lag().messages, 41);
    moved(&mut world, 79);
    assert_eq!(world.lag().messages, 51);
    // Up to where it was; not before that.
    world.carry(80, 19);
    assert_eq!(world.lag().messages, 32);
    world.carry(99, 1);
    assert_eq!(world.lag(), Lag { messages: 0, seconds: 0.0 });
}
