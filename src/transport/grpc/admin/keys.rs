//! Data keys: messages to use cases and back.

use jiff::Timestamp;
use tonic::Status;
use uuid::Uuid;

use super::super::convert::timestamp;
use super::super::guard::Call;
use crate::application::error::{BrokerError, Violation};
use crate::application::keys::{DataKeyStanding, Keys, KeysQuery, Progress, TableRows, Whose};
use crate::domain::audit::Target;
use crate::domain::data_key::DataKeyId;
use crate::domain::key::TenantId;
use crate::domain::ports::DataKeyPurpose;
use crate::r#gen::v1 as pb;

/// The page of a request that says nothing.
const DEFAULT_PAGE: u32 = 100;
/// The largest page.
const MAX_PAGE: u32 = 1000;

pub(super) async fn list(
    keys: &Keys,
    (call, request): (Call, pb::ListDataKeysRequest),
) -> Result<pb::ListDataKeysResponse, Status> {
    let pb::ListDataKeysRequest { tenant, all_tenants, page_size, page_token } = request;
    let limit = match u32::try_from(page_size) {
        Ok(0) => DEFAULT_PAGE,
        Ok(size) if size <= MAX_PAGE => size,
        _ => return Err(invalid("page_size", "must be 0 to 1000")),
    };
    let after = if page_token.is_empty() { None } else { Some(id("page_token", &page_token)?) };
    let query = KeysQuery { whose: whose(&tenant, all_tenants)?, after, limit };
    note(&call, &query.whose);
    let page = keys.status(&call.principal, &query).await?;
    Ok(pb::ListDataKeysResponse {
        data_keys: page.data_keys.into_iter().map(data_key).collect(),
        next_page_token: page.next.map(|id| Uuid::from_bytes(id).to_string()).unwrap_or_default(),
        active_kek: page.active_kek,
        configured_keks: page.configured_keks,
        reencryption: Some(progress(page.progress)),
    })
}

pub(super) async fn rotate(
    keys: &Keys,
    (call, request): (Call, pb::RotateDataKeysRequest),
) -> Result<pb::RotateDataKeysResponse, Status> {
    let whose = whose(&request.tenant, request.all_tenants)?;
    note(&call, &whose);
    let rotated = keys.rotate(&call.principal, whose).await?;
    let rotated = rotated.into_iter().map(|one| pb::RotatedDataKey {
        tenant: one.tenant.to_string(),
        data_key: Uuid::from_bytes(one.data_key).to_string(),
    });
    Ok(pb::RotateDataKeysResponse { rotated: rotated.collect() })
}

pub(super) async fn rewrap(
    keys: &Keys,
    (call, pb::RewrapDataKeysRequest {}): (Call, pb::RewrapDataKeysRequest),
) -> Result<pb::RewrapDataKeysResponse, Status> {
    let done = keys.rewrap(&call.principal).await?;
    Ok(pb::RewrapDataKeysResponse {
        rewrapped: number(done.done),
        failed: number(done.failed),
        more: done.more,
    })
}

pub(super) async fn retire(
    keys: &Keys,
    (call, request): (Call, pb::RetireDataKeyRequest),
) -> Result<pb::RetireDataKeyResponse, Status> {
    let id = id("data_key", &request.data_key)?;
    call.notes.acts_on(Target::default().and(DATA_KEY, &Uuid::from_bytes(id)));
    keys.retire(&call.principal, id).await?;
    Ok(pb::RetireDataKeyResponse {})
}

/// What audit rows call them.
const DATA_KEY: &str = "data_key";
const TENANTS: &str = "tenants";

fn note(call: &Call, whose: &Whose) {
    match whose {
        Whose::Own => {}
        Whose::Of(tenant) => call.notes.acts_on(super::target(Some(tenant))),
        Whose::All => call.notes.acts_on(Target::default().and(TENANTS, &"all")),
    }
}

fn invalid(field: &str, description: &str) -> Status {
    BrokerError::InvalidArgument(vec![Violation::new(field, description)]).into()
}

fn id(field: &str, text: &str) -> Result<DataKeyId, Status> {
    Uuid::try_parse(text).map(Uuid::into_bytes).map_err(|_| invalid(field, "must be the id of a data key"))
}

fn whose(tenant: &str, all: bool) -> Result<Whose, Status> {
    match (tenant, all) {
        ("", false) => Ok(Whose::Own),
        ("", true) => Ok(Whose::All),
        (_, true) => Err(invalid("tenant", "must be empty where all_tenants is set")),
        (tenant, false) => {
            TenantId::new(tenant).map(Whose::Of).map_err(|error| invalid("tenant", &error.to_string()))
        }
    }
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
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
