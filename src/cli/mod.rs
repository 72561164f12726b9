//! kubectl plugin.
