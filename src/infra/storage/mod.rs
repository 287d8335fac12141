//! Storage. `SQLite` is the embedded default.

pub mod sqlite;
