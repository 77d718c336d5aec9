//! Defects planted in the brain, to show that the simulation finds them.

/// One planted defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// A batch counts as durable when it is opened.
    StoresBeforeDurable,
    /// One ticket is never settled.
    ForgetsTicket,
    /// A ticket is settled twice.
    SettlesTwice,
    /// A failed store sets no deadline for the next one.
    LosesWakeUp,
    /// The consumer ends without waiting for the batches in flight.
    EndsWithBatchInFlight,
    /// The offset is stored although the broker holds a higher one.
    StoresBackwards,
    /// A second store starts while another is running.
    StoresTwice,
    /// A read-back that shows another offset counts as success.
    BelievesAnyReadBack,
    /// A store of the old incarnation counts for the new one.
    BelievesOutdatedStore,
    /// An offset is stored that the stream has not confirmed.
    StoresWhileSuspended,
    /// A waiter is dropped when the stream is re-created.
    DropsWaiter,
    /// A waiter is answered before its offset is durable.
    AnswersEarly,
    /// After a fault, the ending consumer waits for a broker that stays away.
    NeverGivesUp,
    /// A passive consumer opens its sink.
    OpensWhilePassive,
    /// The broker is answered before the batches in flight are stored and the sink is closed.
    AnswersBeforeClosing,
    /// An offset is stored on a new connection before a chunk has confirmed it.
    TrustsNewConnection,
    /// A gap counts as one of the broker's own chunks without asking the broker.
    IgnoresGap,
    /// Records that wait to be cut into a batch are forgotten at the end.
    DropsLastBatch,
    /// The sink is never told to flush the batches that it holds back.
    NeverFlushes,
    /// The sink is given more batches than its limit.
    OverfillsSink,
    /// A new incarnation begins while batches of the old one are in flight.
    RestartsUnsettled,
    /// A beginning is stored while batches that were accepted before it are in flight.
    BeginsUnsettled,
    /// The position moves past a whole chunk on arrival, before its records are accepted.
    NotesPositionEarly,
    /// A lost connection sets no time for the next attempt.
    ForgetsToReconnect,
    /// A loss is skipped without an error or a policy.
    LosesInSilence,
    /// The change of activity waits for a sink that is stuck.
    WaitsForStuckSink,
    /// A damaged chunk is left out at once, without asking for it again.
    LeavesOutAtOnce,
    /// A damaged chunk is asked for again for ever.
    AsksAgainForEver,
    /// A damaged chunk is dropped, and the next one is taken.
    DropsUnreadable,
    /// Every gap is taken for one that the broker's filter left, without a question.
    TakesGapForFiltered,
    /// What retention took is taken for what the broker's filter left out.
    OverlooksRetention,
    /// Nothing is passed over in silence.
    NeverLooks,
    /// The broker waits for a sink that does not open.
    WaitsForStuckOpening,
}

impl Defect {
    /// The defects of [`storing`](super::storing).
    pub(super) const STORING: [Defect; 13] = [
        Defect::StoresBeforeDurable,
        Defect::ForgetsTicket,
        Defect::SettlesTwice,
        Defect::LosesWakeUp,
        Defect::EndsWithBatchInFlight,
        Defect::StoresBackwards,
        Defect::StoresTwice,
        Defect::BelievesAnyReadBack,
        Defect::BelievesOutdatedStore,
        Defect::StoresWhileSuspended,
        Defect::DropsWaiter,
        Defect::AnswersEarly,
        Defect::NeverGivesUp,
    ];

    /// The defects of the other modules.
    pub(super) const WHOLE: [Defect; 20] = [
        Defect::OpensWhilePassive,
        Defect::AnswersBeforeClosing,
        Defect::TrustsNewConnection,
        Defect::IgnoresGap,
        Defect::DropsLastBatch,
        Defect::NeverFlushes,
        Defect::OverfillsSink,
        Defect::RestartsUnsettled,
        Defect::BeginsUnsettled,
        Defect::NotesPositionEarly,
        Defect::ForgetsToReconnect,
        Defect::LosesInSilence,
        Defect::WaitsForStuckSink,
        Defect::LeavesOutAtOnce,
        Defect::AsksAgainForEver,
        Defect::DropsUnreadable,
        Defect::TakesGapForFiltered,
        Defect::OverlooksRetention,
        Defect::NeverLooks,
        Defect::WaitsForStuckOpening,
    ];
}
