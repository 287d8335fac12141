//! The migrations that this version has, compared with those of a database.

use std::collections::BTreeMap;

use sqlx::migrate::{Migration, Migrator};

/// A migration and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MigrationState {
    /// Its number.
    pub version: i64,
    /// What it does.
    pub description: String,
    /// Whether the database has it.
    pub applied: bool,
}

/// All pending.
pub(super) fn none_applied(migrator: &Migrator) -> Vec<MigrationState> {
    migrator.iter().map(|migration| state(migration, false)).collect()
}

/// The first applied migration (by version, with its checksum) that this version does not know.
pub(super) fn unknown(migrator: &Migrator, applied: &BTreeMap<i64, Vec<u8>>) -> Option<i64> {
    applied.keys().copied().find(|version| !migrator.version_exists(*version))
}

/// This version's migrations. Fails with the first one that was applied in another form.
pub(super) fn compare(
    migrator: &Migrator,
    applied: &BTreeMap<i64, Vec<u8>>,
) -> Result<Vec<MigrationState>, i64> {
    migrator
        .iter()
        .map(|migration| match applied.get(&migration.version) {
            Some(checksum) if checksum[..] != migration.checksum[..] => Err(migration.version),
            found => Ok(state(migration, found.is_some())),
        })
        .collect()
}

fn state(migration: &Migration, applied: bool) -> MigrationState {
    MigrationState { version: migration.version, description: migration.description.to_string(), applied }
}
