//! The RPCs about data keys.

use tonic::Status;
use uuid::Uuid;

use super::super::convert::{keys as convert, number};
use super::super::guard::Call;
use crate::application::keys::{Keys, Whose};
use crate::domain::audit::Target;
use crate::r#gen::v1 as pb;

pub(super) async fn list(
    keys: &Keys,
    (call, request): (Call, pb::ListDataKeysRequest),
) -> Result<pb::ListDataKeysResponse, Status> {
    let query = convert::query(request)?;
    note(&call, &query.whose);
    Ok(convert::page(keys.status(&call.principal, &query).await?))
}

pub(super) async fn rotate(
    keys: &Keys,
    (call, request): (Call, pb::RotateDataKeysRequest),
) -> Result<pb::RotateDataKeysResponse, Status> {
    let whose = convert::whose(request)?;
    note(&call, &whose);
    Ok(convert::rotated(keys.rotate(&call.principal, whose).await?))
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
    let id = convert::data_key_id(&request.data_key)?;
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
