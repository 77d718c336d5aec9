use super::*;

fn row(level: Level, state: &str) -> Row {
    Row {
        halted_offset: None,
        partition: None,
        level,
        state: state.to_owned(),
        state_age_seconds: 65.0,
        reason: (level <= Level::Warn)
            .then(|| format!("it is {state}, and somebody has to look at it")),
        lag_messages: Some(1_234_567),
        lag_seconds: Some(90.0),
        received_messages_per_second: Some(512.3),
        received_bytes_per_second: Some(65_000.0),
        durable_offset: None,
        stored_offset: None,
        stream_last_offset: None,
        stream_seen_age_seconds: None,
        headroom_messages: None,
        last_error: None,
        last_error_age_seconds: None,
        restarts: 0,
        buffered_bytes: 0,
        memory_bound_bytes: 0,
    }
}

fn group(name: &str, sum: Row, partitions: Vec<Row>) -> Group {
    Group {
        name: name.to_owned(),
        stream: "events".to_owned(),
        sink: "file".to_owned(),
        guarantee: "exactly-once".to_owned(),
        reference: name.to_owned(),
        sum,
        partitions,
    }
}

fn status() -> Status {
    let partition =
        |name: &str, level, state| Row { partition: Some(name.into()), ..row(level, state) };
    Status {
        version: "0.1.0".to_owned(),
        level: Level::Bad,
        verdict: "1 of 3 consumers needs attention: 1 has halted.".to_owned(),
        consumers: vec![
            group("archiver", row(Level::Bad, "halted"), Vec::new()),
            group(
                "orders",
                row(Level::Warn, "1 of 2 paused"),
                vec![
                    partition("orders-1", Level::Warn, "paused"),
                    partition("orders-0", Level::Ok, "running"),
                ],
            ),
            group(
                "a-name-that-is-longer-than-most-and-does-not-fit",
                Row { lag_messages: None, lag_seconds: None, ..row(Level::Ok, "running") },
                Vec::new(),
            ),
        ],
        watches: Vec::new(),
    }
}

fn look(width: Option<usize>) -> Look {
    Look { width, colours: false, partitions: false }
}

#[test]
fn into_a_pipe_goes_everything() {
    let text = table(&status(), &look(None));
    let expected = "\
1 of 3 consumers needs attention: 1 has halted.

  consumer                                          stream                 state                    lag  behind       rate
✗ archiver                                          events                 halted 1 min 5 s         1.23 M  1 min 30 s  512/s 65 kB/s
";
    let columns = |text: &str| {
        text.lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect::<Vec<_>>()
    };
    assert_eq!(columns(&text)[..4], columns(expected)[..4]);
    for part in [
        "events (2 partitions)",
        "!   orders-1",
        "    it is paused, and somebody has to look at it",
        "a-name-that-is-longer-than-most-and-does-not-fit",
        "–  –",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(!text.contains("orders-0") && !text.contains('\x1b'), "{text}");
    let all = table(&status(), &Look { partitions: true, ..look(None) });
    assert!(all.contains("✓   orders-0"), "{all}");
    // The columns stand one below the other.
    let at: Vec<_> = text.lines().filter_map(|line| line.find("min")).collect();
    assert!(at.windows(2).all(|two| two[0].abs_diff(two[1]) < 12), "{text}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [20, 30, 40, 60, 80, 100, 120, 200] {
        for line in lines(&status(), &look(Some(width))) {
            assert!(measure_text_width(&line) <= width, "{width}: {line}");
        }
    }
    let narrow = table(&status(), &look(Some(60)));
    assert!(
        narrow.contains("halted") && narrow.contains("1.23 M") && !narrow.contains("512"),
        "{narrow}"
    );
    assert!(table(&status(), &look(Some(100))).contains("512/s"));
}

#[test]
fn colours_are_for_terminals_and_the_worst_is_red() {
    let text = table(&status(), &Look { colours: true, ..look(Some(100)) });
    let halted = text.lines().find(|line| line.contains("archiver")).unwrap();
    assert!(halted.contains("\x1b[31m"), "{halted:?}");
    assert_eq!(console::strip_ansi_codes(&text), table(&status(), &look(Some(100))));
}

/// Names come from the configuration, reasons from peers: neither may command the terminal.
#[test]
fn nothing_that_a_terminal_would_obey_is_printed() {
    let mut status = status();
    status.consumers[0].name = "\x1b[2Jevil\r\n\x07".to_owned();
    status.consumers[0].sum.reason = Some("\x1b]0;title\x07 \u{9b}31m".to_owned());
    let text = table(&status, &look(None));
    assert!(!text.chars().any(|c| c.is_control() && c != '\n'), "{text:?}");
    assert!(text.contains("evil"), "{text}");
}
