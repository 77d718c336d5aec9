//! Defects planted in the brain, to show that the simulation finds such.

/// One planted defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Defect {
    /// A batch counts as durable when it is opened.
    StoresBeforeDurable,
    /// One ticket is never settled.
    ForgetsTicket,
    /// A ticket is settled twice.
    SettlesTwice,
    /// A store that failed sets no deadline for the next one.
    LosesWakeUp,
    /// The end does not wait for the batches in flight.
    EndsWithBatchInFlight,
    /// The offset is stored although the broker holds a higher one.
    StoresBackwards,
    /// A second store starts while one is running.
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
    /// After a fault the end waits for a broker that stays away.
    NeverGivesUp,
    /// A passive consumer opens its sink.
    OpensWhilePassive,
    /// The broker is answered before what is under way is stored and the sink is closed.
    AnswersBeforeClosing,
    /// An offset is stored on a new connection before a chunk has confirmed it.
    TrustsNewConnection,
    /// A gap is taken for one of the broker's own chunks, without a question.
    IgnoresGap,
    /// What waits in the cutter is forgotten at the end.
    DropsLastBatch,
    /// The sink is never asked for what it holds.
    NeverFlushes,
    /// The sink is given more than it takes.
    OverfillsSink,
    /// A new history begins while batches of the former one are under way.
    RestartsUnsettled,
    /// A beginning is kept while batches that were accepted before it are under way.
    BeginsUnsettled,
    /// The position is noted for a whole chunk when it comes, before its records are accepted.
    NotesPositionEarly,
    /// A connection that is lost has no next attempt.
    ForgetsToReconnect,
    /// A loss is passed over without a word.
    LosesInSilence,
    /// The broker waits for a sink that is stuck.
    WaitsForStuckSink,
    /// The broker waits for a sink that does not open.
    WaitsForStuckOpening,
}

impl Defect {
    /// Those in [`storing`](super::storing).
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

    /// Those beside [`storing`](super::storing).
    pub(super) const WHOLE: [Defect; 14] = [
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
        Defect::WaitsForStuckOpening,
    ];
}
