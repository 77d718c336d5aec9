//! One reference: source → batch → sink → ledger → commit.
//!
//! Two tasks: the [`worker`]'s loop, which waits in one place and decides synchronously, and the
//! [`sinking`] task, which owns the sink and may be stuck for as long as it likes. Apart
//! from them, [`observe`] looks at the streams of all consumers, so that there is a lag even where a
//! consumer has halted.
//!
//! Where records come from is a [`source`](crate::source): nothing here knows which one.
//!
//! Invariants:
//! - an offset is stored only when the ledger says that everything up to it is durable;
//! - what was accepted is in order and without a gap, or a policy said so and it was counted;
//! - whatever ends the loop, nothing is marked durable that was not reported so by the sink.

mod begin;
mod brain;
mod concluding;
mod dead_letter_index;
mod dead_letters;
mod filter;
pub mod fuzzing;
mod hold;
mod intake;
mod joined;
pub mod observe;
mod opening;
mod orders;
mod pledges;
pub mod positions;
mod resumption;
mod roster;
mod session;
mod sieved;
mod sifting;
mod sinking;
mod skips;
mod spec;
mod state_file;
mod status;
mod stood_by;
mod transform;
mod worker;

pub use brain::{NotCommitted, Outcome};
pub use filter::Filter;
pub use hold::{Hold, HoldError, NotAlone};
pub use opening::{HoldSlot, Resources};
pub use roster::{Roster, RosterError};
pub use sieved::Sieved;
pub use sifting::{Sifted, Sifter};
pub use skips::{Fate, NotThere, Skips};
pub use spec::{Begin, OnBad, Spec, Surroundings};
pub use state_file::{StateError, StateFile, forget};
pub use status::{Facts, LastFailure, Status};
pub use transform::{Made, Transform, Verdict};
pub use worker::{Command, run};

use crate::flow::resume::{Origin, Plan, Start};
pub use crate::source::Foreseen;
use crate::source::Prefer;
use crate::types::{Checkpoint, Offset};

/// Where a consumer would begin, for `rillway check --connect`.
#[derive(Debug)]
pub struct Forecast {
    /// Where it would resume; the error says why it would not.
    pub plan: Result<Plan, String>,
    /// What the broker has stored.
    pub stored: Option<Offset>,
    /// Whether the stream would be created first.
    pub creation: Foreseen,
}

/// Finds out where a consumer would begin, without subscribing.
pub async fn forecast(spec: &Spec, sink: Option<Checkpoint>) -> anyhow::Result<Forecast> {
    let own = resumption::Own {
        position: sink.map(|c| (Origin::Sink, c)),
        remembered: StateFile::of(spec).read()?,
        anew: None,
        prefer: Prefer::Replica,
    };
    let creation = spec.source.foresee(stood_by::has_begun(spec, &own).await).await?;
    if matches!(creation, Foreseen::Creates(_)) {
        return Ok(Forecast { plan: Ok(Plan::at(Start::First)), stored: None, creation });
    }
    match session::foresee(spec, own).await {
        Ok(outlook) => {
            outlook.link.close().await;
            Ok(Forecast { plan: Ok(outlook.plan), stored: outlook.stored, creation })
        }
        Err(resumption::SessionError::Lost { lost, of: Some(Origin::Beginning) })
            if resumption::is_of_a_former_stream(&lost) =>
        {
            Ok(Forecast { plan: Ok(Plan::at(Start::First)), stored: None, creation })
        }
        Err(
            error @ (resumption::SessionError::Lost { .. }
            | resumption::SessionError::Doubt { .. }
            | resumption::SessionError::Hearsay { .. }),
        ) => Ok(Forecast { plan: Err(error.to_string()), stored: None, creation }),
        Err(error) => Err(error.into()),
    }
}
