use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::telemetry::names::{ALL, Kind};
use crate::telemetry::prometheus;
use crate::telemetry::samples::{Definition, Registry};
use crate::telemetry::{WatchMetrics, access, exported, identity, reloads};
use crate::types::Timestamp;

/// Runs `f` with a recorder of its own, and yields every line of the scrape that holds a figure.
fn scrape(f: impl FnOnce(ConsumerMetrics)) -> BTreeMap<String, f64> {
    let recorder = prometheus::recorder().unwrap();
    metrics::with_local_recorder(&recorder, || {
        prometheus::describe();
        identity::tls_in_use();
        identity::token_in_use("t");
        access::in_use();
        exported::in_use();
        // One second after 1970.
        reloads::started(Timestamp(1000));
        WatchMetrics::new(&"r".into(), &"s".into());
        f(ConsumerMetrics::new(&"c".into(), &"s".into(), "file"));
        // Of what is made from messages, the program's own metrics tell what is left out.
        let made = Definition {
            name: "made_total".to_owned(),
            kind: Kind::Counter,
            help: String::new(),
            labels: Vec::new(),
            bounds: Vec::new(),
            max_series: 1,
        };
        Registry::default().metric(made, &"c".into(), &"s".into());
    });
    let text = recorder.handle().render();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        })
        .collect()
}

fn name_of(series: &str) -> &str {
    let name = series.split('{').next().unwrap();
    let base = ["_bucket", "_sum", "_count"].iter().find_map(|s| name.strip_suffix(s));
    base.unwrap_or(name)
}

#[test]
fn before_the_first_event_counters_are_zero_and_unknown_figures_are_absent() {
    let series = scrape(|m| {
        m.show_dead_letters();
        m.show_filtered();
        m.show_dropped();
    });
    let present: BTreeSet<&str> = series.keys().map(|s| name_of(s)).collect();
    let late = [
        "rillway_stream_first_offset",
        "rillway_stream_last_offset",
        "rillway_received_offset",
        "rillway_durable_offset",
        "rillway_stored_offset",
        "rillway_lag_messages",
        "rillway_lag_seconds",
        "rillway_retention_headroom_messages",
        "rillway_offset_store_age_seconds",
        "rillway_last_durable_timestamp_seconds",
        "rillway_last_contact_timestamp_seconds",
        "rillway_tls_unverified",
        "rillway_token_expiry_timestamp_seconds",
    ];
    // Nothing of a reference of others is shown before it is known.
    let is_late = |name: &&str| late.contains(name) || name.starts_with("rillway_watch_");
    let expected: BTreeSet<&str> = ALL.iter().map(|m| m.name).filter(|n| !is_late(n)).collect();
    assert_eq!(present, expected);
    for (name, value) in &series {
        let loaded =
            ["rillway_config_reload_success", "rillway_config_last_reload_timestamp_seconds"];
        let one = name.contains("state=\"starting\"")
            || name.starts_with("rillway_build_info")
            || loaded.contains(&name.as_str());
        assert_eq!(*value, f64::from(u8::from(one)), "{name}");
    }
    for (reason, count) in [
        ("rillway_lost_messages_total", 8),
        ("rillway_dead_letter_messages_total", 5),
        ("rillway_restarts_total", 10),
    ] {
        assert_eq!(series.keys().filter(|s| name_of(s) == reason).count(), count);
    }
}

#[test]
fn every_series_carries_the_labels_of_the_table() {
    let series = scrape(|m| {
        m.show_dead_letters();
        identity::tls_unverified();
        identity::token_expiry("t", Some(7));
        m.show_filtered();
        m.show_dropped();
        for gauge in [
            &m.stream_first_offset,
            &m.stream_last_offset,
            &m.received_offset,
            &m.durable_offset,
            &m.stored_offset,
        ] {
            gauge.set_count(7);
        }
        for gauge in [
            &m.lag_messages,
            &m.lag_seconds,
            &m.headroom_messages,
            &m.store_age_seconds,
            &m.last_durable,
            &m.last_contact,
        ] {
            gauge.set_count(7);
        }
        WatchMetrics::new(&"r".into(), &"s".into())
            .all()
            .iter()
            .for_each(|gauge| gauge.set_count(7));
    });
    for metric in ALL {
        let own: Vec<_> = series.keys().filter(|s| name_of(s) == metric.name).collect();
        assert!(!own.is_empty(), "{} is not emitted", metric.name);
        for one in own {
            let inside = one.split_once('{').map_or("", |(_, rest)| rest.trim_end_matches('}'));
            let labels: BTreeSet<&str> = inside
                .split(',')
                .filter_map(|pair| pair.split('=').next())
                .filter(|label| !label.is_empty() && *label != "le")
                .collect();
            assert_eq!(labels, metric.labels.iter().copied().collect(), "{one}");
        }
    }
}

#[test]
fn the_scrape_says_type_and_help_of_all() {
    let recorder = prometheus::recorder().unwrap();
    metrics::with_local_recorder(&recorder, || {
        prometheus::describe();
        let m = ConsumerMetrics::new(&"c".into(), &"s".into(), "file");
        m.lag_seconds.set(0.0);
    });
    let text = recorder.handle().render();
    for metric in ALL.iter().filter(|m| text.contains(&format!("\n{}", m.name))) {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        assert!(text.contains(&format!("# TYPE {} {kind}\n", metric.name)), "{}", metric.name);
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)));
    }
}

#[test]
fn exactly_one_state_is_one() {
    for state in State::ALL {
        let series = scrape(|m| {
            m.set_state(State::Running);
            m.set_state(*state);
        });
        let ones: Vec<_> = series
            .iter()
            .filter(|(name, value)| name_of(name) == "rillway_consumer_state" && **value != 0.0)
            .collect();
        assert_eq!(ones.len(), 1);
        assert!(ones[0].0.contains(&format!("state=\"{}\"", state.label())), "{ones:?}");
    }
}

#[test]
fn a_consumer_without_dead_letters_shows_none() {
    let is_letters = |s: &String| name_of(s) == "rillway_dead_letter_messages_total";
    assert!(!scrape(|_| {}).keys().any(is_letters));
}

#[test]
fn counters_go_on_over_a_restart() {
    let series = scrape(|first| {
        first.received_messages.increment(3);
        let again = ConsumerMetrics::new(&"c".into(), &"s".into(), "file");
        again.received_messages.increment(4);
        again.lost(LostReason::Retention).increment(5);
        again.write_duration.record(0.003);
    });
    let value = |name: &str, part: &str| {
        let mut hits = series.iter().filter(|(s, _)| s.starts_with(name) && s.contains(part));
        let value = *hits.next().unwrap().1;
        assert!(hits.next().is_none());
        value
    };
    assert_eq!(value("rillway_received_messages_total", ""), 7.0);
    assert_eq!(value("rillway_lost_messages_total", "reason=\"retention\""), 5.0);
    assert_eq!(value("rillway_sink_write_duration_seconds_bucket", "le=\"0.0025\""), 0.0);
    assert_eq!(value("rillway_sink_write_duration_seconds_bucket", "le=\"0.005\""), 1.0);
}

#[test]
fn a_gauge_is_never_nan() {
    let series = scrape(|m| {
        m.lag_seconds.set(f64::NAN);
        m.lag_messages.set(2.0);
        m.lag_messages.set(f64::INFINITY);
    });
    assert!(!series.keys().any(|s| name_of(s) == "rillway_lag_seconds"));
    let lag = series.iter().find(|(s, _)| name_of(s) == "rillway_lag_messages").unwrap();
    assert_eq!(*lag.1, 2.0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn seconds_add_up_whatever_the_parts(micros in prop::collection::vec(0u64..5_000_000, 0..50)) {
        let series = scrape(|m| {
            for part in &micros {
                m.backpressure.add(Duration::from_micros(*part));
            }
        });
        let whole = micros.iter().sum::<u64>() / 1_000_000;
        let got = series
            .iter()
            .find(|(s, _)| name_of(s) == "rillway_backpressure_seconds_total")
            .map(|(_, v)| *v);
        prop_assert_eq!(got, Some(whole as f64));
    }
}
