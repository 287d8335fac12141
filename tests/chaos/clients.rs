//! The callers: a bounded rate of GetCredential and Refresh at random replicas, every call written down.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use token_broker::r#gen::v1::admin_service_client::AdminServiceClient;
use token_broker::r#gen::v1::get_credential_response::Result as Got;
use token_broker::r#gen::v1::refresh_response::Result as Refreshed;
use token_broker::r#gen::v1::token_broker_service_client::TokenBrokerServiceClient;
use token_broker::r#gen::v1::{Credential, CredentialKey, GetCredentialRequest, RefreshRequest};

use crate::clock;
use crate::deeds::Desk;
use crate::dice::Dice;
use crate::history::{Answer, Call, CredentialNo, Question};
use crate::provider::{PROVIDERS, token_names};
use crate::record::Record;
use crate::site::Site;

/// A caller's own deadline: longer than the broker lets anybody wait.
const DEADLINE: Duration = Duration::from_secs(8);

pub(crate) type Client = TokenBrokerServiceClient<InterceptedService<Channel, WithKey>>;

/// Puts the API key on every call.
#[derive(Clone)]
pub(crate) struct WithKey(MetadataValue<Ascii>);

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// A client for each replica, which connects when it is used, and again when the replica was gone.
pub(crate) fn clients(site: &Site) -> Vec<Client> {
    let key = WithKey(format!("Bearer {}", site.api_key).parse().unwrap());
    let connect = |port: u16| {
        Endpoint::from_shared(format!("http://127.0.0.1:{port}"))
            .unwrap()
            .connect_timeout(Duration::from_secs(2))
            .connect_lazy()
    };
    site.replicas
        .iter()
        .map(|replica| TokenBrokerServiceClient::with_interceptor(connect(replica.grpc), key.clone()))
        .collect()
}

/// The same for operators.
pub(crate) type AdminClient = AdminServiceClient<InterceptedService<Channel, WithKey>>;

/// An operator's client for each replica.
pub(crate) fn admins(site: &Site) -> Vec<AdminClient> {
    let key = WithKey(format!("Bearer {}", site.api_key).parse().unwrap());
    let admin = |port: u16| {
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).unwrap();
        let channel = endpoint.connect_timeout(Duration::from_secs(2)).timeout(DEADLINE).connect_lazy();
        AdminServiceClient::with_interceptor(channel, key.clone())
    };
    site.replicas.iter().map(|replica| admin(replica.grpc)).collect()
}

/// Which provider a credential is at: most are at the strict one.
pub(crate) fn provider_of(credential: CredentialNo) -> &'static str {
    PROVIDERS[match credential % 10 {
        8 => 1,
        9 => 2,
        _ => 0,
    }]
}

/// Several users with several accounts each.
pub(crate) fn key_of(credential: CredentialNo) -> CredentialKey {
    CredentialKey {
        provider: provider_of(credential).to_owned(),
        user_id: format!("user-{}", credential % 40),
        service: "api".to_owned(),
        account: credential.to_string(),
    }
}

/// What all callers share.
pub(crate) struct Load {
    pub(crate) site: Arc<Site>,
    pub(crate) record: Arc<Record>,
    pub(crate) desk: Desk,
    pub(crate) credentials: u32,
    pub(crate) seed: u64,
    /// Between two calls of one client.
    pub(crate) pace: Duration,
    pub(crate) stop: CancellationToken,
}

/// One client: one call at a time until it is told to stop.
pub(crate) async fn work(load: Arc<Load>, client: u32) {
    let mut dice = Dice::new(load.seed, &format!("client {client}"));
    let mut clients = clients(&load.site);
    let mut known: BTreeMap<CredentialNo, i64> = BTreeMap::new();
    let mut next = Instant::now();
    while load.stop.run_until_cancelled(sleep_until(next)).await.is_some() {
        next = Instant::now().max(next + load.pace);
        let credential = CredentialNo::try_from(dice.roll(u64::from(load.credentials))).unwrap();
        let replica = dice.index(clients.len());
        let question = match known.get(&credential) {
            Some(generation) if dice.permille(120) => Question::Refresh(*generation),
            _ => Question::Read,
        };
        let invoked = clock::now();
        let answer = ask(&mut clients[replica], credential, question).await;
        let returned = clock::now();
        match answer {
            Answer::Token { generation, .. } => drop(known.insert(credential, generation)),
            Answer::Reauthorize => load.desk.want(credential),
            Answer::Failed(_) => {}
        }
        load.record.call(Call { client, replica, credential, question, invoked, returned, answer });
    }
}

/// One call.
pub(crate) async fn ask(client: &mut Client, credential: CredentialNo, question: Question) -> Answer {
    let key = Some(key_of(credential));
    let result = match question {
        Question::Read => {
            let request = GetCredentialRequest { key, ..GetCredentialRequest::default() };
            timeout(DEADLINE, client.get_credential(request)).await.map(|answer| {
                answer.map(|answer| match answer.into_inner().result {
                    Some(Got::Credential(credential)) => Some(credential),
                    _ => None,
                })
            })
        }
        Question::Refresh(expected_generation) => {
            let request = RefreshRequest { key, expected_generation };
            timeout(DEADLINE, client.refresh(request)).await.map(|answer| {
                answer.map(|answer| match answer.into_inner().result {
                    Some(Refreshed::Credential(credential)) => Some(credential),
                    _ => None,
                })
            })
        }
    };
    match result {
        Ok(Ok(Some(credential))) => token(&credential),
        Ok(Ok(None)) => Answer::Reauthorize,
        Ok(Err(status)) => Answer::Failed(name(&status)),
        Err(_) => Answer::Failed("no answer in time"),
    }
}

fn token(credential: &Credential) -> Answer {
    match token_names(&credential.access_token) {
        Some((grant, issue)) => Answer::Token { grant, issue, generation: credential.generation },
        None => Answer::Failed("a token of nobody"),
    }
}

/// The reason in the status, or what the transport says.
fn name(status: &Status) -> &'static str {
    const REASONS: [&str; 9] = [
        "OUTCOME_UNKNOWN",
        "REFRESH_IN_PROGRESS",
        "PROVIDER_UNAVAILABLE",
        "PROVIDER_RATE_LIMITED",
        "CLIENT_REJECTED",
        "STORAGE_UNAVAILABLE",
        "STORED_DATA_DAMAGED",
        "DEADLINE_EXCEEDED",
        "LIMIT_REACHED",
    ];
    let reason = status.get_details_error_info().map(|info| info.reason);
    if let Some(reason) = REASONS.into_iter().find(|known| reason.as_deref() == Some(*known)) {
        return reason;
    }
    match (reason.is_some(), status.code()) {
        (false, Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal) => "connection lost",
        (_, Code::Internal) => "INTERNAL",
        _ => "another status",
    }
}
