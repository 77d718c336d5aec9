//! Turns the daemon's answers into one line of text each.

use serde_json::Value;

/// Most streams that one line names.
const NAMED_MAX: usize = 5;

/// The answer to pause, resume or restart.
pub(super) fn changed(body: &Value) -> String {
    let consumer = text(&body["consumer"]);
    let streams = body["streams"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_paused = |stream: &&Value| stream["state"] == "paused";
    if body["finished"] != true {
        let verb = text(&body["verb"]);
        let late = streams.iter().filter(|stream| match verb {
            "pause" => !is_paused(stream),
            _ => stream["ready"] != true,
        });
        let note = body["note"].as_str().map_or(String::new(), |note| format!("{note}; "));
        return format!("{consumer}: {verb} is not finished: {note}{}", list(late.map(state)));
    }
    if let Some(note) = body["note"].as_str() {
        return format!("{consumer}: {note}{}", places(streams));
    }
    let done = match text(&body["verb"]) {
        "pause" => "is paused",
        "resume" => "runs again",
        "skip" => "has left out the message, and goes on",
        _ if streams.iter().all(|stream| is_paused(&stream)) => {
            "will start anew when it is resumed"
        }
        _ => "was restarted, and runs",
    };
    format!("{consumer} {done}{}", places(streams))
}

/// The answer to commit.
pub(super) fn stored(body: &Value) -> String {
    let stored = body["stored"].as_array().map(Vec::as_slice).unwrap_or_default();
    let each = stored.iter().map(|one| format!("{} at {}", text(&one["stream"]), one["offset"]));
    format!("{}: stored {}", text(&body["name"]), list(each))
}

/// The answer to reload.
pub(super) fn reloaded(body: &Value) -> String {
    if body["result"] == "unchanged" {
        return "nothing that runs has changed".to_owned();
    }
    let part = |key: &str| {
        let names = body[key].as_array().map(Vec::as_slice).unwrap_or_default();
        let names = names.iter().map(|name| text(name).to_owned());
        (names.len() > 0).then(|| format!("{key} {}", list(names)))
    };
    let mut parts: Vec<String> =
        ["added", "changed", "removed"].into_iter().filter_map(part).collect();
    if body["watches_changed"] == true {
        parts.push("other references are watched".to_owned());
    }
    if let Some(filter) = body["log_filter"].as_str() {
        parts.push(format!("log filter {filter}"));
    }
    parts.push(format!("unchanged: {}", body["unchanged"]));
    let state = match body["finished"] == true {
        true => "reloaded",
        false => "reloaded; consumers that were changed are still being replaced",
    };
    format!("{state}: {}", parts.join("; "))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn state(stream: &Value) -> String {
    let (name, state) = (text(&stream["stream"]), text(&stream["state"]));
    match stream["reason"].as_str() {
        Some(reason) => format!("{name} is {state} ({reason})"),
        None => format!("{name} is {state}"),
    }
}

fn places(streams: &[Value]) -> String {
    match streams {
        [] => String::new(),
        [one] => match one["stored_offset"].as_u64() {
            Some(offset) => format!(" ({}, offset {offset} is stored)", text(&one["stream"])),
            None => format!(" ({})", text(&one["stream"])),
        },
        all => format!(" ({} streams)", all.len()),
    }
}

fn list(each: impl Iterator<Item = String>) -> String {
    let mut all: Vec<String> = each.collect();
    let more = all.len().saturating_sub(NAMED_MAX);
    all.truncate(NAMED_MAX);
    match more {
        0 => all.join(", "),
        _ => format!("{} and {more} more", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn stream(name: &str, state: &str, ready: bool) -> Value {
        let reason = if ready { Value::Null } else { "because".into() };
        json!({ "stream": name, "state": state, "ready": ready, "reason": reason, "stored_offset": 7 })
    }

    #[test]
    fn lines() {
        let answer = |verb: &str, finished: bool, streams: Vec<Value>| json!({ "consumer": "c", "verb": verb, "finished": finished, "streams": streams });
        let (a, p) = (stream("a", "running", true), stream("p", "paused", false));
        let h = stream("h", "halted", false);
        for (body, line) in [
            (answer("pause", true, vec![p.clone()]), "c is paused (p, offset 7 is stored)"),
            (answer("pause", true, vec![]), "c is paused"),
            (answer("pause", true, vec![p.clone(), p.clone()]), "c is paused (2 streams)"),
            (
                answer("pause", false, vec![p.clone(), a.clone()]),
                "c: pause is not finished: a is running",
            ),
            (answer("resume", true, vec![a.clone()]), "c runs again (a, offset 7 is stored)"),
            (
                answer("restart", false, vec![a.clone(), h]),
                "c: restart is not finished: h is halted (because)",
            ),
            (answer("restart", true, vec![a.clone(), a]), "c was restarted, and runs (2 streams)"),
            (
                answer("restart", true, vec![p]),
                "c will start anew when it is resumed (p, offset 7 is stored)",
            ),
        ] {
            assert_eq!(changed(&body), line);
        }
        let many: Vec<_> =
            (0..7).map(|n| json!({ "stream": format!("s{n}"), "offset": n })).collect();
        let body = json!({ "name": "c", "stored": many });
        let line = "c: stored s0 at 0, s1 at 1, s2 at 2, s3 at 3, s4 at 4 and 2 more";
        assert_eq!(stored(&body), line);
        let body = json!({ "result": "applied", "added": ["x"], "changed": [], "removed": ["y", "z"],
            "unchanged": 3, "watches_changed": true, "log_filter": "debug", "finished": true });
        let line = "reloaded: added x; removed y, z; other references are watched; log filter debug; unchanged: 3";
        assert_eq!(reloaded(&body), line);
        assert_eq!(reloaded(&json!({ "result": "unchanged" })), "nothing that runs has changed");
    }
}
