//! The names of the protocol's steps, the same as in the code (`src/domain/step.rs`); `tests/it` compares the two.

/// In the order of the algorithm.
pub(crate) const STEP_NAMES: [&str; 17] = [
    "permit_taken",
    "claimed",
    "settle_claimed",
    "dispatched",
    "answered",
    "journaled",
    "successor_copied",
    "persisted",
    "published",
    "adopted",
    "released",
    "demoted",
    "tombstoned",
    "revoked",
    "revocation_told",
    "replayed",
    "grant_stored",
];
