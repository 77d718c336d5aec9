//! `{ type = "stdout" }`.

use super::{Look, SinkFactory, format, nowhere, opens};
use crate::config;
use crate::consumer::Spec;
use crate::sink::stdout::{StdoutOptions, StdoutSink};

pub(super) fn factory(settings: &config::StdoutSink, spec: &Spec) -> (SinkFactory, Look) {
    let options = StdoutOptions { format: format(settings.format, &settings.delimiter) };
    let stream = spec.stream.clone();
    (opens(move || StdoutSink::open(options.clone(), stream.clone())), nowhere())
}
