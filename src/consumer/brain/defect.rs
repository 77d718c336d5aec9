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
    /// An offset is stored that the stream has not borne out.
    StoresWhileSuspended,
    /// A waiter is dropped when the stream is re-created.
    DropsWaiter,
    /// A waiter is answered before its offset is durable.
    AnswersEarly,
    /// After a fault the end waits for a broker that stays away.
    NeverGivesUp,
}

impl Defect {
    pub(super) const ALL: [Defect; 13] = [
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
}
