//! Tables of what pods come out of.
