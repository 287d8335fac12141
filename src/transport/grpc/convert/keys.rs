//! Data keys of AdminService, between messages and what use cases take and answer.

use jiff::Timestamp;
use uuid::Uuid;

use super::check::Check;
use super::number;
use super::time::timestamp;
use crate::application::error::BrokerError;
use crate::application::keys::{DataKeyStanding, KeysPage, KeysQuery, Progress, Rotated, TableRows, Whose};
use crate::domain::data_key::{DataKeyId, DataKeyPurpose};
use crate::r#gen::v1 as pb;

/// The page of a request that says nothing.
const DEFAULT_PAGE_SIZE: u32 = 100;

/// `ListDataKeys`.
pub(in super::super) fn query(message: pb::ListDataKeysRequest) -> Result<KeysQuery, BrokerError> {
    let pb::ListDataKeysRequest { tenant, all_tenants, page_size, page_token } = message;
    let mut check = Check::default();
    let limit = check.page_size(page_size, DEFAULT_PAGE_SIZE);
    let after = check.optional("page_token", page_token, |text| id(&text));
    let whose = named(&mut check, tenant, all_tenants);
    check.finish(|| Some(KeysQuery { whose: whose?, after, limit: limit? }))
}

/// `RotateDataKeys`: whose.
pub(in super::super) fn whose(message: pb::RotateDataKeysRequest) -> Result<Whose, BrokerError> {
    let mut check = Check::default();
    let whose = named(&mut check, message.tenant, message.all_tenants);
    check.finish(|| whose)
}

/// `RetireDataKey`: which.
pub(in super::super) fn data_key_id(text: &str) -> Result<DataKeyId, BrokerError> {
    let mut check = Check::default();
    let id = check.parsed("data_key", id(text));
    check.finish(|| id)
}

fn id(text: &str) -> Result<DataKeyId, &'static str> {
    Uuid::try_parse(text).map(Uuid::into_bytes).map_err(|_| "must be the id of a data key")
}

fn named(check: &mut Check, tenant: String, all: bool) -> Option<Whose> {
    match (tenant.is_empty(), all) {
        (true, false) => Some(Whose::Own),
        (true, true) => Some(Whose::All),
        (false, true) => check.fail("tenant", "must be empty where all_tenants is set"),
        (false, false) => check.tenant(tenant).map(Whose::Of),
    }
}

/// A page of data keys, and how far the work is.
pub(in super::super) fn page(page: KeysPage) -> pb::ListDataKeysResponse {
    pb::ListDataKeysResponse {
        data_keys: page.data_keys.into_iter().map(data_key).collect(),
        next_page_token: page.next.map(|id| Uuid::from_bytes(id).to_string()).unwrap_or_default(),
        active_kek: page.active_kek,
        configured_keks: page.configured_keks,
        reencryption: Some(progress(page.progress)),
    }
}

/// New data keys.
pub(in super::super) fn rotated(all: Vec<Rotated>) -> pb::RotateDataKeysResponse {
    let rotated = all.into_iter().map(|one| pb::RotatedDataKey {
        tenant: one.tenant.to_string(),
        data_key: Uuid::from_bytes(one.data_key).to_string(),
    });
    pb::RotateDataKeysResponse { rotated: rotated.collect() }
}

fn data_key(key: DataKeyStanding) -> pb::DataKey {
    let purpose = match key.purpose {
        DataKeyPurpose::Encryption => pb::DataKeyPurpose::Encryption,
        DataKeyPurpose::Fingerprint => pb::DataKeyPurpose::Fingerprint,
    };
    let rows = |rows: TableRows| pb::SealedRows {
        credentials: number(rows.credentials),
        flows: number(rows.flows),
        revocations: number(rows.revocations),
        provider_configurations: number(rows.provider_configs),
        user_keys: number(rows.user_keys),
    };
    pb::DataKey {
        id: Uuid::from_bytes(key.id).to_string(),
        tenant: key.tenant.to_string(),
        purpose: purpose.into(),
        kek: key.kek_id,
        create_time: Some(timestamp(key.created_at)),
        supersede_time: optional(key.superseded_at),
        rows: key.rows.map(rows),
    }
}

fn optional(time: Option<Timestamp>) -> Option<prost_types::Timestamp> {
    time.map(timestamp)
}

fn progress(progress: Progress) -> pb::Reencryption {
    let Progress { under_way, pass, began_at, ended_at, counts, left, rows_per_second } = progress;
    pb::Reencryption {
        under_way,
        pass,
        begin_time: optional(began_at),
        end_time: optional(ended_at),
        looked_at: number(counts.looked_at),
        renewed: number(counts.renewed),
        skipped: number(counts.skipped),
        unreadable: number(counts.unreadable),
        left: number(left),
        rows_per_second,
    }
}
