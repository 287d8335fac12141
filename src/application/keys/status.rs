//! What keys there are, what is made with them, and how far the work is.

use jiff::Timestamp;

use super::{Keys, Whose, administered};
use crate::application::error::BrokerError;
use crate::domain::access_policy::Principal;
use crate::domain::data_key::{DataKeyId, DataKeyPurpose, PassCounts, Reencryption};
use crate::domain::key::TenantId;

/// The largest page.
const MAX_PAGE: u32 = 1000;

/// How many rows have a ciphertext that a data key made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TableRows {
    /// Of credentials.
    pub credentials: u64,
    /// Of consents.
    pub flows: u64,
    /// Of revocations to do.
    pub revocations: u64,
    /// Of tenants' own apps.
    pub provider_configs: u64,
    /// Of users' keys.
    pub user_keys: u64,
}

/// A data key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataKeyStanding {
    /// Which.
    pub id: DataKeyId,
    /// Whose.
    pub tenant: TenantId,
    /// What for.
    pub purpose: DataKeyPurpose,
    /// The key-encryption key that it is under.
    pub kek_id: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// Since when it only opens what it made; `None`: it is active.
    pub superseded_at: Option<Timestamp>,
    /// The rows that were found with it by the last whole pass; `None`: there was none, or it is not for rows.
    pub rows: Option<TableRows>,
}

/// How far the work of moving rows to the active data keys is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Progress {
    /// Somebody asked for it, and it is not done.
    pub under_way: bool,
    /// The number of the pass that is under way, or of the last one; 0: there was none.
    pub pass: i64,
    /// When that pass began.
    pub began_at: Option<Timestamp>,
    /// When a pass last ended.
    pub ended_at: Option<Timestamp>,
    /// What it has counted.
    pub counts: PassCounts,
    /// Rows that it will still look at, about.
    pub left: u64,
    /// Rows that it has looked at in a second, on average.
    pub rows_per_second: f64,
}

/// See [`Keys::status`].
#[derive(Debug, Clone, Default)]
pub struct KeysQuery {
    /// Which tenants'.
    pub whose: Whose,
    /// Only those behind this one.
    pub after: Option<DataKeyId>,
    /// At most so many, 1 to 1000.
    pub limit: u32,
}

/// See [`Keys::status`].
#[derive(Debug, Clone, PartialEq)]
pub struct KeysPage {
    /// In the order of their ids.
    pub data_keys: Vec<DataKeyStanding>,
    /// Where to go on; `None`: that was all.
    pub next: Option<DataKeyId>,
    /// The key-encryption key that wraps new data keys.
    pub active_kek: String,
    /// Those that are configured here.
    pub configured_keks: Vec<String>,
    /// How far the work is.
    pub progress: Progress,
}

impl Keys {
    /// A page of the data keys, and how the work stands.
    pub async fn status(&self, principal: &Principal, query: &KeysQuery) -> Result<KeysPage, BrokerError> {
        let tenant = administered(principal, query.whose.clone())?;
        let limit = query.limit.clamp(1, MAX_PAGE);
        let page = self.ports.data_keys.data_keys(tenant.as_ref(), query.after, limit).await?;
        let whole = page.len() >= usize::try_from(limit).unwrap_or(usize::MAX);
        let next = page.last().map(|key| key.id).filter(|_| whole);
        let state = self.ports.rows.reencryption().await?;
        // The counts of a pass that is under way are not whole: those of the one before it are kept until it ends.
        let whole_pass = if state.place.is_some() { state.pass - 1 } else { state.pass };
        let counted = self.ports.rows.rows_per_key(whole_pass).await?;
        let data_keys = page.into_iter().map(|key| {
            let counts = whole_pass > 0 && key.purpose == DataKeyPurpose::Encryption;
            DataKeyStanding {
                rows: counts.then(|| TableRows::of(&counted, key.id)),
                id: key.id,
                tenant: key.tenant,
                purpose: key.purpose,
                kek_id: key.kek_id,
                created_at: key.created_at,
                superseded_at: key.superseded_at,
            }
        });
        Ok(KeysPage {
            data_keys: data_keys.collect(),
            next,
            active_kek: self.ports.keeper.active_kek().to_owned(),
            configured_keks: self.ports.keeper.configured_keks(),
            progress: if principal.caller.admin.all_tenants {
                progress(&state, self.ports.clock.now())
            } else {
                without_counts(&state)
            },
        })
    }
}

/// How much there is of all tenants together is not for an operator of one; how the own keys stand says their rows.
fn without_counts(state: &Reencryption) -> Progress {
    let Reencryption { requested_at, pass, began_at, ended_at, .. } = *state;
    Progress { under_way: requested_at.is_some(), pass, began_at, ended_at, ..Progress::default() }
}

fn progress(state: &Reencryption, now: Timestamp) -> Progress {
    let Reencryption { requested_at, pass, began_at, place, counts, ended_at, .. } = *state;
    let until = if place.is_some() { Some(now) } else { ended_at };
    let seconds = began_at.zip(until).map_or(0.0, |(began, until)| until.duration_since(began).as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let looked_at = counts.looked_at as f64;
    Progress {
        under_way: requested_at.is_some(),
        pass,
        began_at,
        ended_at,
        counts,
        left: if place.is_some() { counts.expected.saturating_sub(counts.looked_at) } else { 0 },
        rows_per_second: if seconds > 0.0 { looked_at / seconds } else { 0.0 },
    }
}
