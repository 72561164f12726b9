//! Bugs on purpose: the simulation plants each of these and must notice. Outside of tests there are
//! none, and the checks compile to nothing.

/// A mistake that the pipeline could make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each is explained by its name, where it is planted"
)]
pub enum Bug {
    AckBeforeSync,
    AckBeforeWrite,
    CutBeforeStored,
    CutWhenOneSinkHasIt,
    SnapshotForgetsFile,
    SnapshotForgetsPosition,
    ReplayIgnoresOrdinals,
    TornFrameTrusted,
    NewSegmentNumberReused,
    DropsOlderStamps,
    NoGapWhenRotatedAway,
    NoGapWhenRotatedLive,
    NoProbeAtEnd,
    EndWithoutProof,
    EndDespiteGap,
    KeepsCutOffHalf,
    SkipsEmptyLines,
    CountsForeignWords,
    GoneIsComplete,
    StoreErrorIgnored,
    ParquetLosesRawBytes,
    CompactionDeletesFirst,
    StoreIsNotRecalled,
}

#[cfg(test)]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Whether this bug is planted.
#[cfg(test)]
pub(crate) fn planted(bug: Bug) -> bool {
    PLANTED.get() == Some(bug)
}

/// Whether this bug is planted: never.
#[cfg(not(test))]
pub(crate) const fn planted(_: Bug) -> bool {
    false
}

/// Plants a bug on this thread, or none.
#[cfg(test)]
pub(crate) fn plant(bug: Option<Bug>) {
    PLANTED.set(bug);
}
