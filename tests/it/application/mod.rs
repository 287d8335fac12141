//! The use cases on the real store and vault, with time and the provider under control. Tests are named after the
//! protocol's invariants where they show one.

mod consent;
mod lease;
mod list_import;
mod refresh;
mod refresh_faults;
mod revoke;
mod watch;
