//! A row of `flows`, between columns and domain.

use crate::domain::credential::Sealed;
use crate::domain::flow::{ConsentOptions, Flow, FlowStatus, Proof, SecretHash, StateHash};
use crate::domain::key::{CallerId, FlowId, GrantId, ServiceId};
use crate::domain::ports::{CancelledFlows, StoreError};

use super::codec::{KeyColumns, array, binding, flow_status, list, optional_time, scopes, time};
use super::provider_config_row::configuration;

/// The columns of [`FlowRow`].
macro_rules! flow_columns {
    () => {
        "id, tenant, provider, user_id, grant_name, account, caller, services, scopes, grant_id, state_hash, \
         secrets_sealed, endpoints, redirect_uri, return_url, client_state, login_hint, status, failure, created_at, \
         expires_at, ended_at, binding, link_hash, secret_hash, browser_hash, completion_hash, code_sealed, configuration"
    };
}
pub(super) use flow_columns;

/// Binds all columns in their order. A macro, since the two databases' queries are of two types.
macro_rules! bind_flow {
    ($query:expr, $flow:expr, $endpoints:expr) => {{
        use $crate::infra::storage::codec::{
            binding_text, flow_status_texts, json_list, json_scopes, micros,
        };
        let flow: &$crate::domain::flow::Flow = $flow;
        let (status, failure) = flow_status_texts(flow.status);
        let hash = |hash: Option<$crate::domain::flow::SecretHash>| hash.map(|hash| hash.0.to_vec());
        $query
            .bind(&flow.id.as_bytes()[..])
            .bind(flow.key.tenant.as_str())
            .bind(flow.key.provider.as_str())
            .bind(flow.key.user.as_str())
            .bind(flow.key.grant.as_str())
            .bind(flow.key.account.as_str())
            .bind(flow.caller.as_str())
            .bind(json_list(flow.services.iter().map($crate::domain::key::ServiceId::as_str)))
            .bind(json_scopes(&flow.scopes))
            .bind(&flow.grant_id.as_bytes()[..])
            .bind(&flow.state_hash.0[..])
            .bind(&flow.secrets_sealed.0)
            .bind($endpoints)
            .bind(flow.redirect_uri.as_str())
            .bind(flow.options.return_url.as_ref().map(url::Url::as_str))
            .bind(flow.options.client_state.as_deref())
            .bind(flow.options.login_hint.as_deref())
            .bind(status)
            .bind(failure)
            .bind(micros(flow.created_at))
            .bind(micros(flow.expires_at))
            .bind(flow.ended_at.map(micros))
            .bind(binding_text(flow.proof.binding))
            .bind(hash(flow.proof.link))
            .bind(hash(flow.proof.flow_secret))
            .bind(hash(flow.proof.browser))
            .bind(hash(flow.proof.completion_code))
            .bind(flow.code_sealed.as_ref().map(|code| &code.0))
            .bind(flow.configuration.map(|id| id.as_bytes().to_vec()))
    }};
}
pub(super) use bind_flow;

/// The column `endpoints`.
pub(super) fn json_endpoints(flow: &Flow) -> Result<String, StoreError> {
    serde_json::to_string(&flow.endpoints).map_err(|error| StoreError::Unavailable(Box::new(error)))
}

/// How a flow stood that was cancelled or ran out while it waited.
pub(super) fn waited_as(flow: &Flow) -> FlowStatus {
    was_under_way(false, flow.proof.completion_code.is_some())
}

/// How a flow stood before it was ended, by what it has.
pub(super) fn was_under_way(exchanging: bool, returned: bool) -> FlowStatus {
    match (exchanging, returned) {
        (true, _) => FlowStatus::Exchanging,
        (false, true) => FlowStatus::Returned,
        (false, false) => FlowStatus::Pending,
    }
}

/// What is told of flows that are ended together, by the status that each has got.
pub(super) fn cancelled_flows(ended: &[String], limit: u32) -> CancelledFlows {
    let cancelled = ended.iter().filter(|status| *status == "cancelled").count();
    CancelledFlows {
        cancelled: u32::try_from(cancelled).unwrap_or(u32::MAX),
        more: u32::try_from(ended.len()).is_ok_and(|ended| ended >= limit),
    }
}

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
    binding: String,
    link_hash: Option<Vec<u8>>,
    secret_hash: Option<Vec<u8>>,
    browser_hash: Option<Vec<u8>>,
    completion_hash: Option<Vec<u8>>,
    code_sealed: Option<Vec<u8>>,
    configuration: Option<Vec<u8>>,
}

impl TryFrom<FlowRow> for Flow {
    type Error = StoreError;

    fn try_from(row: FlowRow) -> Result<Self, StoreError> {
        Ok(Self {
            id: FlowId::from_bytes(array(&row.id)?),
            key: row.key.try_into()?,
            configuration: configuration(row.configuration.as_deref())?,
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
            proof: Proof {
                binding: binding(&row.binding)?,
                link: hash(row.link_hash.as_deref())?,
                flow_secret: hash(row.secret_hash.as_deref())?,
                browser: hash(row.browser_hash.as_deref())?,
                completion_code: hash(row.completion_hash.as_deref())?,
            },
            code_sealed: row.code_sealed.map(Sealed),
            status: flow_status(&row.status, row.failure.as_deref())?,
            created_at: time(row.created_at)?,
            expires_at: time(row.expires_at)?,
            ended_at: optional_time(row.ended_at)?,
        })
    }
}

fn hash(bytes: Option<&[u8]>) -> Result<Option<SecretHash>, StoreError> {
    bytes.map(|bytes| array(bytes).map(SecretHash)).transpose()
}

fn url(text: &str) -> Result<url::Url, StoreError> {
    url::Url::parse(text).map_err(|_| StoreError::Corrupt("a URL"))
}
