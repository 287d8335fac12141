//! A row of `flows`, between columns and domain.

use crate::domain::credential::Sealed;
use crate::domain::flow::{ConsentOptions, Flow, StateHash};
use crate::domain::key::{CallerId, FlowId, GrantId, ServiceId};
use crate::domain::ports::StoreError;

use super::codec::{KeyColumns, array, flow_status, list, optional_time, scopes, time};

/// The columns of [`FlowRow`].
macro_rules! flow_columns {
    () => {
        "id, tenant, provider, user_id, grant_name, account, caller, services, scopes, grant_id, state_hash, \
         secrets_sealed, endpoints, redirect_uri, return_url, client_state, login_hint, status, failure, created_at, \
         expires_at, ended_at"
    };
}
pub(super) use flow_columns;

/// As stored.
#[derive(Debug, sqlx::FromRow)]
pub(super) struct FlowRow {
    id: Vec<u8>,
    #[sqlx(flatten)]
    key: KeyColumns,
    caller: String,
    services: String,
    scopes: String,
    grant_id: Vec<u8>,
    state_hash: Vec<u8>,
    secrets_sealed: Vec<u8>,
    endpoints: String,
    redirect_uri: String,
    return_url: Option<String>,
    client_state: Option<String>,
    login_hint: Option<String>,
    status: String,
    failure: Option<String>,
    created_at: i64,
    expires_at: i64,
    ended_at: Option<i64>,
}

impl TryFrom<FlowRow> for Flow {
    type Error = StoreError;

    fn try_from(row: FlowRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: FlowId::from_bytes(array(&row.id)?),
            key: row.key.try_into()?,
            caller: CallerId::new(row.caller).map_err(|_| StoreError::Corrupt("a caller id"))?,
            services: list(&row.services)?
                .into_iter()
                .map(|text| ServiceId::new(text).map_err(|_| StoreError::Corrupt("a service id")))
                .collect::<Result<_, _>>()?,
            scopes: scopes(&row.scopes)?,
            grant_id: GrantId::from_bytes(array(&row.grant_id)?),
            state_hash: StateHash(array(&row.state_hash)?),
            secrets_sealed: Sealed(row.secrets_sealed),
            endpoints: serde_json::from_str(&row.endpoints)
                .map_err(|_| StoreError::Corrupt("a flow's endpoints"))?,
            redirect_uri: url(&row.redirect_uri)?,
            options: ConsentOptions {
                return_url: row.return_url.as_deref().map(url).transpose()?,
                client_state: row.client_state,
                login_hint: row.login_hint,
            },
            status: flow_status(&row.status, row.failure.as_deref())?,
            created_at: time(row.created_at)?,
            expires_at: time(row.expires_at)?,
            ended_at: optional_time(row.ended_at)?,
        })
    }
}

fn url(text: &str) -> Result<url::Url, StoreError> {
    url::Url::parse(text).map_err(|_| StoreError::Corrupt("a URL"))
}
