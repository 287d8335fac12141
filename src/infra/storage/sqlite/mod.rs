//! The `SQLite` store.
