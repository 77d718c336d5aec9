//! Handles of the metrics of one reference that another program owns.
//!
//! Every value is absent while it is not known: a lag of 0 means that its owner has caught up.

use metrics::Label as Pair;

use super::consumer::LateGauge;
use super::names;
use crate::types::{Reference, StreamName};

/// The metric handles of one reference on one stream.
pub struct WatchMetrics {
    /// The last offset that its owner stored.
    pub stored_offset: LateGauge,
    /// 1 while the broker holds an offset of it.
    pub offset_known: LateGauge,
    /// Offsets from the stored one to the end of the stream.
    pub lag_messages: LateGauge,
    /// Age in seconds of the first message after the stored offset.
    pub lag_seconds: LateGauge,
    /// Offsets from the first one of the stream to the stored one.
    pub headroom_messages: LateGauge,
    /// The first offset of the stream.
    pub stream_first_offset: LateGauge,
    /// The last offset of the stream.
    pub stream_last_offset: LateGauge,
    /// Time at which the broker last answered.
    pub last_contact: LateGauge,
}

impl WatchMetrics {
    /// Handles for this reference. Nothing is shown before a value is set.
    pub fn new(reference: &Reference, stream: &StreamName) -> WatchMetrics {
        let own = [
            Pair::new("reference", reference.as_str().to_owned()),
            Pair::new("stream", stream.as_str().to_owned()),
        ];
        let late = |metric| LateGauge::new(metric, &own);
        WatchMetrics {
            stored_offset: late(&names::WATCH_STORED_OFFSET),
            offset_known: late(&names::WATCH_OFFSET_KNOWN),
            lag_messages: late(&names::WATCH_LAG_MESSAGES),
            lag_seconds: late(&names::WATCH_LAG_SECONDS),
            headroom_messages: late(&names::WATCH_HEADROOM_MESSAGES),
            stream_first_offset: late(&names::WATCH_STREAM_FIRST_OFFSET),
            stream_last_offset: late(&names::WATCH_STREAM_LAST_OFFSET),
            last_contact: late(&names::WATCH_LAST_CONTACT),
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> [&LateGauge; 8] {
        [
            &self.stored_offset,
            &self.offset_known,
            &self.lag_messages,
            &self.lag_seconds,
            &self.headroom_messages,
            &self.stream_first_offset,
            &self.stream_last_offset,
            &self.last_contact,
        ]
    }

    /// Removes all values from the page.
    pub fn hide(&self) {
        self.all().iter().for_each(|gauge| gauge.show(None));
    }
}
