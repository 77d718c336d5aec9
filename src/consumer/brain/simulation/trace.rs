//! Events and actions as text, for `RILLWAY_TRACE=1 RILLWAY_SEED=N`.

use crate::consumer::brain::{Action, Event, Linked, Note};
use crate::consumer::orders::Report;
use crate::wire::chunk::ChunkHeader;

pub(super) fn event(event: &Event<u32>) -> String {
    match event {
        Event::Due(_) => "due".to_owned(),
        Event::Drain => "told to drain".to_owned(),
        Event::Commit(caller) => format!("commit asked for by {caller}"),
        Event::Opened(opened) => format!("opened: {opened:?}"),
        Event::Reported(report) => reported(report),
        Event::SinkGone { panicked } => format!("sink gone, panicked: {panicked}"),
        Event::SinkClosed => "sink closed".to_owned(),
        Event::Stored(stored) => format!("stored: {stored:?}"),
        Event::Linked(Ok(Linked::Reading(resumption))) => format!("reading: {resumption:?}"),
        Event::Linked(Ok(Linked::Passive)) => "passive".to_owned(),
        Event::Linked(Ok(Linked::Storing { is_confirmed })) => {
            format!("linked for storing, confirmed: {is_confirmed}")
        }
        Event::Linked(Err(error)) => format!("not linked: {error}"),
        Event::Delivered(delivery) => {
            let header = ChunkHeader::parse(&delivery.chunk).unwrap();
            let (first, epoch) = (header.first_offset, header.epoch);
            format!("delivered: {} from {first}, incarnation {epoch}", header.records)
        }
        Event::Unavailable(error) => format!("unavailable: {error}"),
        Event::Activation { active } => format!("activation, active: {active}"),
        Event::LinkEnded(error) => format!("link ended: {error}"),
        Event::Asked(Ok(asked)) => format!("asked: {:?} {:?}", asked.there, asked.again),
        Event::Asked(Err(error)) => format!("asked: {error}"),
        Event::Passed(passed) => format!("passed: {passed:?}"),
    }
}

fn reported(report: &Report) -> String {
    match report {
        Report::Settled { tickets, skipped, .. } => format!("settled: {tickets:?} {skipped:?}"),
        Report::Part { written, .. } => format!("part: {written:?}"),
        Report::WoundUp => "wound up".to_owned(),
        Report::Held { batches, .. } => format!("held: {batches}"),
        Report::Retrying { .. } => "the sink fails".to_owned(),
        Report::Restarted => "restarted".to_owned(),
        Report::Stopped(stopped) => format!("stopped: {:?}", stopped.written),
    }
}

pub(super) fn action(action: &Action<u32>) -> String {
    match action {
        Action::OpenSink => "open the sink".to_owned(),
        Action::AbortOpening => "abort opening".to_owned(),
        Action::AbortSink => "abort the sink".to_owned(),
        Action::CloseSink => "close the sink".to_owned(),
        Action::Write(order) => format!("write {:?} {:?}", order.ticket, order.batch),
        Action::Flush => "flush".to_owned(),
        Action::Restart => "restart".to_owned(),
        Action::StopSink => "stop the sink".to_owned(),
        Action::Connect(purpose) => format!("connect: {purpose:?}"),
        Action::Resume(own) => format!("resume: {own:?}"),
        Action::Verify(position) => format!("verify: {position:?}"),
        Action::StopReading => "stop reading".to_owned(),
        Action::Disconnect => "disconnect".to_owned(),
        Action::AnswerActivation(start) => format!("answer: {start:?}"),
        Action::Ask { from, to } => format!("ask: {from} {to}"),
        Action::Pass(question) => format!("ask: {question:?}"),
        Action::Store(checkpoint) => format!("store: {checkpoint:?}"),
        Action::Answer(caller, result) => format!("answer to {caller}: {result:?}"),
        Action::Note(note) => match note {
            Note::State(state, reason) => format!("state: {state:?} {reason:?}"),
            Note::Lost(lost) => format!("lost: {lost}"),
            Note::GoingOn { lost, .. } => format!("going on: {lost}"),
            Note::Truncated { what, .. } => what.clone(),
            Note::LeftOut { from, to, .. } => format!("left out: {from} {to}"),
            Note::NotConnected { error, wait } => format!("not connected: {error}, {wait:?}"),
            _ => "another note".to_owned(),
        },
    }
}
