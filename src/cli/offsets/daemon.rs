//! Asks the daemon whether it runs a consumer: then only the daemon moves its position.
//!
//! This is for a good answer early. What refuses for certain is the lock of the reference, which the daemon
//! holds while the consumer runs.

use serde::Deserialize;

use crate::cli::door;
use crate::cli::exit::Failure;
use crate::config::Config;
use crate::supervisor::Plan;

#[derive(Deserialize)]
struct Answer {
    consumers: Vec<View>,
}

/// What this needs of a consumer in the daemon's answer.
#[derive(Deserialize)]
struct View {
    name: String,
    stream: String,
    reference: String,
    state: String,
}

/// States of a consumer that no task runs for, and none will before an operator acts.
const AT_REST: [&str; 3] = ["halted", "paused", "stopped"];

/// Refuses if the daemon of this configuration runs one of these, by whatever name.
pub(super) fn refuse_running(config: &Config, plans: &[Plan]) -> Result<(), Failure> {
    if !config.admin.enabled {
        return Ok(());
    }
    // No daemon, another one's answer, or one that wants a token: the lock decides.
    let Ok(client) = door::client(&config.admin, None) else { return Ok(()) };
    let Ok((200, body)) = client.get("/api/v1/consumers") else { return Ok(()) };
    let Ok(answer) = serde_json::from_str::<Answer>(&body) else { return Ok(()) };
    let running = answer.consumers.iter().find(|view| {
        let is_one = plans.iter().any(|plan| {
            let spec = &plan.spec;
            (view.stream.as_str(), view.reference.as_str())
                == (spec.stream.as_str(), spec.reference.as_str())
        });
        is_one && !AT_REST.contains(&view.state.as_str())
    });
    match running {
        None => Ok(()),
        Some(view) => Err(Failure::Unavailable(format!(
            "consumer {:?} runs in the daemon at {} (stream {:?}: {}), which would write over a position that \
             is moved from outside. Have the daemon move it: rillway seek {} --to …; or pause it, or stop the \
             daemon, and try again",
            view.name, config.admin.listen, view.stream, view.state, view.name
        ))),
    }
}
