//! Tables of what the planner decides, by topic. No client, no clock: each case takes microseconds.

mod builders;
mod deadlines;
mod failure;
mod follow;
mod gang;
mod logs;
mod retry;
mod simulation;
mod start;
mod suspend;
