//! Each known way in which lines of a container are lost or repeated on their way through the
//! Kubernetes API, played by a scripted kubelet over real HTTP against the collector's real parts, and
//! shown to be bridged, or recorded as a gap.
//!
//! What no HTTP is needed for (disks, stores, crashes, and all of it at once from random seeds) is in
//! the simulation, `src/logs/sim`.

mod breaks;
mod ends;
mod files;
mod kubelet;
mod pipeline;
mod refusals;
mod restarts;
mod rotations;
