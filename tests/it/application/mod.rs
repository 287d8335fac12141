//! The use cases on the real store and vault, with time and the provider under control. Tests are named after the
//! protocol's invariants where they show one.

mod adoption;
mod background;
mod consent;
mod deaths;
mod delete_user;
mod gates;
mod journal_faults;
mod lease;
mod list_import;
mod list_rules;
mod refresh;
mod refresh_faults;
mod replicas;
mod revoke;
mod revoke_races;
mod unclear_claims;
mod watch;
mod watch_rights;
