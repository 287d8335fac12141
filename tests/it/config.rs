//! The configuration: every mistake at once, with its name and place.
