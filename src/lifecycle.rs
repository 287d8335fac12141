//! Signals and drain.
