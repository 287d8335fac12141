//! Every RPC of every service, as nobody, as somebody who may not, and as somebody of another tenant. The rows are compared
//! with the descriptor set: an RPC without a row fails.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use token_broker::app::Overrides;
use token_broker::domain::access_policy::Action;
use token_broker::r#gen::FILE_DESCRIPTOR_SET;
use token_broker::r#gen::v1::{self as pb, acquire_lease_response::Result as AcquireResult};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::support::broker::{BrokerBuilder, CallerRights, TestBroker, answered};
use crate::support::hostile::HostileServer;
use crate::support::raw_grpc::{call, seen};

/// Nothing was ever called so.
const NEVER: &str = "0190f0a8-0000-4000-8000-00000000002a";
/// What tenant acme has, and what no answer to another tenant may contain.
const THEIRS: &str = "thing-of-acme";
/// The id of its own app, which the audit log of whoever asks for it has.
const THEIR_APP: &str = "their-app";

/// What there is in tenant acme.
struct Things {
    flow: String,
    lease: String,
    api_key: String,
    data_key: String,
}

/// Two requests of a caller of another tenant (or with rights for several) that must be answered alike.
struct Alike {
    caller: &'static str,
    theirs: Vec<u8>,
    never: Vec<u8>,
}

struct Row {
    /// A request in order, of tenant acme.
    request: Vec<u8>,
    alike: Vec<Alike>,
}

fn key(user: &str) -> pb::CredentialKey {
    pb::CredentialKey {
        provider: "hostile".to_owned(),
        user_id: user.to_owned(),
        service: "files".to_owned(),
        account: String::new(),
    }
}

/// A row whose things are named by a text: acme's, and one that never was. Asked by the rival of another tenant.
fn by<M: Message>(theirs: &str, never: &str, request: impl Fn(&str) -> M) -> Row {
    let theirs = request(theirs).encode_to_vec();
    let alike = Alike { caller: "rival", theirs: theirs.clone(), never: request(never).encode_to_vec() };
    Row { request: theirs, alike: vec![alike] }
}

/// What makes something new, or shows nothing but what is the caller's.
fn alone(request: &impl Message) -> Row {
    Row { request: request.encode_to_vec(), alike: Vec::new() }
}

/// A row of AdminService: (tenant, id) name the thing. A rival who names tenant acme learns no more than one who names a
/// tenant that never was; a root of all tenants who looks for acme's thing in another tenant, no more than for none.
fn admin<M: Message>(theirs: &str, request: impl Fn(&str, &str) -> M) -> Row {
    let encoded = |tenant: &str, id: &str| request(tenant, id).encode_to_vec();
    Row {
        request: encoded("acme", theirs),
        alike: vec![
            Alike {
                caller: "rival",
                theirs: encoded("acme", theirs),
                never: encoded("no-such-tenant", theirs),
            },
            Alike { caller: "rival", theirs: encoded("", theirs), never: encoded("", &never_like(theirs)) },
            Alike {
                caller: "root",
                theirs: encoded("globex", theirs),
                never: encoded("globex", &never_like(theirs)),
            },
        ],
    }
}

fn never_like(id: &str) -> String {
    if id.len() == NEVER.len() { NEVER.to_owned() } else { "never".to_owned() }
}

/// A row about a tenant itself.
fn tenant<M: Message>(request: impl Fn(&str) -> M) -> Row {
    let encoded = |tenant: &str| request(tenant).encode_to_vec();
    let alike = Alike { caller: "rival", theirs: encoded("acme"), never: encoded("no-such-tenant") };
    Row { request: encoded("acme"), alike: vec![alike] }
}

/// Those of `TokenBrokerService`.
fn agents_rows(things: &Things) -> BTreeMap<&'static str, Row> {
    let user = |user: &str| Some(key(user));
    let (flow, lease) = (things.flow.as_str(), things.lease.clone());
    BTreeMap::from([
        (
            "TokenBrokerService/GetCredential",
            by(THEIRS, "never", |u| pb::GetCredentialRequest { key: user(u), ..Default::default() }),
        ),
        (
            "TokenBrokerService/Refresh",
            by(THEIRS, "never", |u| pb::RefreshRequest { key: user(u), expected_generation: 1 }),
        ),
        (
            "TokenBrokerService/Revoke",
            by(THEIRS, "never", |u| pb::RevokeRequest { key: user(u), force: true }),
        ),
        (
            "TokenBrokerService/BeginOAuth",
            alone(&pb::BeginOAuthRequest {
                provider: "hostile".to_owned(),
                user_id: "alice".to_owned(),
                services: vec!["files".to_owned()],
                ..Default::default()
            }),
        ),
        ("TokenBrokerService/GetFlow", by(flow, NEVER, |id| pb::GetFlowRequest { flow_id: id.to_owned() })),
        (
            "TokenBrokerService/CompleteOAuth",
            by(flow, NEVER, |id| pb::CompleteOAuthRequest {
                flow_id: id.to_owned(),
                flow_secret: "s".repeat(43),
                completion_code: "c".repeat(43),
                user_id: THEIRS.to_owned(),
            }),
        ),
        (
            "TokenBrokerService/CancelFlow",
            by(flow, NEVER, |id| pb::CancelFlowRequest { flow_id: id.to_owned() }),
        ),
        (
            "TokenBrokerService/ListCredentials",
            by(THEIRS, "never", |u| pb::ListCredentialsRequest {
                user_id: u.to_owned(),
                ..Default::default()
            }),
        ),
        (
            "TokenBrokerService/ImportCredential",
            alone(&pb::ImportCredentialRequest {
                key: user("bob"),
                access_token: "at".to_owned(),
                ..Default::default()
            }),
        ),
        ("TokenBrokerService/ListProviders", alone(&pb::ListProvidersRequest {})),
        (
            "TokenBrokerService/AcquireLease",
            by(THEIRS, "never", |u| pb::AcquireLeaseRequest { key: user(u), ..Default::default() }),
        ),
        (
            "TokenBrokerService/RenewLease",
            by(THEIRS, "never", |u| pb::RenewLeaseRequest {
                key: user(u),
                lease_id: lease.clone(),
                ttl: None,
            }),
        ),
        (
            "TokenBrokerService/ReleaseLease",
            by(THEIRS, "never", |u| pb::ReleaseLeaseRequest { key: user(u), lease_id: lease.clone() }),
        ),
        (
            "TokenBrokerService/WatchCredentials",
            alone(&pb::WatchCredentialsRequest { user_id: "alice".to_owned(), ..Default::default() }),
        ),
    ])
}

/// A request in order to each RPC of `TokenBrokerService`, by the method's path without the package.
pub(crate) fn agents_requests() -> BTreeMap<&'static str, Vec<u8>> {
    let things = Things {
        flow: NEVER.to_owned(),
        lease: NEVER.to_owned(),
        api_key: NEVER.to_owned(),
        data_key: NEVER.to_owned(),
    };
    agents_rows(&things).into_iter().map(|(path, row)| (path, row.request)).collect()
}

/// Those of `AdminService` about the audit log.
fn audit_rows() -> BTreeMap<&'static str, Row> {
    BTreeMap::from([
        (
            "AdminService/QueryAudit",
            tenant(|t| pb::QueryAuditRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        (
            "AdminService/VerifyAudit",
            tenant(|t| pb::VerifyAuditRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        (
            "AdminService/ExportAudit",
            tenant(|t| pb::ExportAuditRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
    ])
}

/// Those of `AdminService` about data keys.
fn keys_rows(things: &Things) -> BTreeMap<&'static str, Row> {
    BTreeMap::from([
        (
            "AdminService/ListDataKeys",
            tenant(|t| pb::ListDataKeysRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        (
            "AdminService/RotateDataKeys",
            tenant(|t| pb::RotateDataKeysRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        ("AdminService/RewrapDataKeys", alone(&pb::RewrapDataKeysRequest {})),
        (
            "AdminService/RetireDataKey",
            by(&things.data_key, NEVER, |id| pb::RetireDataKeyRequest { data_key: id.to_owned() }),
        ),
    ])
}

/// The others of `AdminService`.
#[expect(clippy::too_many_lines, reason = "a row for each RPC")]
fn operators_rows(things: &Things) -> BTreeMap<&'static str, Row> {
    let rule = pb::AllowRule {
        actions: Some(pb::AllowedNames { any: true, names: vec![] }),
        providers: Some(pb::AllowedNames { any: true, names: vec![] }),
        users: Some(pb::AllowedTexts { any: true, ..Default::default() }),
        ..Default::default()
    };
    let settings = Some(pb::CallerSettings { allow: vec![rule], ..Default::default() });
    BTreeMap::from([
        ("AdminService/WhoAmI", alone(&pb::WhoAmIRequest {})),
        (
            "AdminService/CreateCaller",
            tenant(|t| pb::CreateCallerRequest {
                tenant: t.to_owned(),
                caller: "new".to_owned(),
                settings: settings.clone(),
            }),
        ),
        (
            "AdminService/GetCaller",
            admin(THEIRS, |t, c| pb::GetCallerRequest { tenant: t.to_owned(), caller: c.to_owned() }),
        ),
        (
            "AdminService/ListCallers",
            tenant(|t| pb::ListCallersRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        (
            "AdminService/UpdateCaller",
            admin(THEIRS, |t, c| pb::UpdateCallerRequest {
                tenant: t.to_owned(),
                caller: c.to_owned(),
                revision: 1,
                settings: settings.clone(),
            }),
        ),
        (
            "AdminService/DeleteCaller",
            admin(THEIRS, |t, c| pb::DeleteCallerRequest { tenant: t.to_owned(), caller: c.to_owned() }),
        ),
        (
            "AdminService/CreateApiKey",
            admin(THEIRS, |t, c| pb::CreateApiKeyRequest {
                tenant: t.to_owned(),
                caller: c.to_owned(),
                ..Default::default()
            }),
        ),
        (
            "AdminService/ListApiKeys",
            admin(THEIRS, |t, c| pb::ListApiKeysRequest { tenant: t.to_owned(), caller: c.to_owned() }),
        ),
        (
            "AdminService/RotateApiKey",
            admin(&things.api_key, |t, id| pb::RotateApiKeyRequest {
                tenant: t.to_owned(),
                caller: "own".to_owned(),
                key_id: id.to_owned(),
                ..Default::default()
            }),
        ),
        (
            "AdminService/RevokeApiKey",
            admin(&things.api_key, |t, id| pb::RevokeApiKeyRequest {
                tenant: t.to_owned(),
                caller: "own".to_owned(),
                key_id: id.to_owned(),
            }),
        ),
        (
            "AdminService/ExplainAccess",
            admin(THEIRS, |t, c| pb::ExplainAccessRequest {
                tenant: t.to_owned(),
                caller: c.to_owned(),
                action: "revoke".to_owned(),
                ..Default::default()
            }),
        ),
        (
            "AdminService/CreateTenant",
            tenant(|t| pb::CreateTenantRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        ("AdminService/GetTenant", tenant(|t| pb::GetTenantRequest { tenant: t.to_owned() })),
        ("AdminService/ListTenants", alone(&pb::ListTenantsRequest::default())),
        (
            "AdminService/UpdateTenant",
            tenant(|t| pb::UpdateTenantRequest {
                tenant: t.to_owned(),
                disabled: Some(true),
                ..Default::default()
            }),
        ),
        ("AdminService/DeleteTenant", tenant(|t| pb::DeleteTenantRequest { tenant: t.to_owned() })),
        (
            "AdminService/RevokeUserCredentials",
            tenant(|t| pb::RevokeUserCredentialsRequest { tenant: t.to_owned(), user_id: THEIRS.to_owned() }),
        ),
        (
            "AdminService/DeleteUserData",
            // Not by a name of theirs: the trail of whoever asks repeats it to them.
            tenant(|t| pb::DeleteUserDataRequest {
                tenant: t.to_owned(),
                user_id: "whoever".to_owned(),
                ..Default::default()
            }),
        ),
        (
            "AdminService/RevokeTenantCredentials",
            tenant(|t| pb::RevokeTenantCredentialsRequest { tenant: t.to_owned() }),
        ),
    ])
}

/// Those of `AdminService` about a tenant's own apps.
fn provider_rows() -> BTreeMap<&'static str, Row> {
    let named = |tenant: &str, provider: &str| (tenant.to_owned(), provider.to_owned());
    BTreeMap::from([
        (
            "AdminService/CreateProviderConfiguration",
            tenant(|t| pb::CreateProviderConfigurationRequest {
                tenant: t.to_owned(),
                provider: "new".to_owned(),
                definition: "test-hostile".to_owned(),
                client_id: "client".to_owned(),
                ..Default::default()
            }),
        ),
        (
            "AdminService/GetProviderConfiguration",
            admin(THEIR_APP, |t, p| {
                let (tenant, provider) = named(t, p);
                pb::GetProviderConfigurationRequest { tenant, provider }
            }),
        ),
        (
            "AdminService/ListProviderConfigurations",
            tenant(|t| pb::ListProviderConfigurationsRequest { tenant: t.to_owned(), ..Default::default() }),
        ),
        (
            "AdminService/UpdateProviderConfiguration",
            admin(THEIR_APP, |t, p| {
                let (tenant, provider) = named(t, p);
                pb::UpdateProviderConfigurationRequest {
                    tenant,
                    provider,
                    revision: 1,
                    disabled: Some(true),
                    ..Default::default()
                }
            }),
        ),
        (
            "AdminService/DeleteProviderConfiguration",
            admin(THEIR_APP, |t, p| {
                let (tenant, provider) = named(t, p);
                pb::DeleteProviderConfigurationRequest { tenant, provider, force: true }
            }),
        ),
    ])
}

/// All RPCs of the broker's own services, as `Service/Method`.
fn rpcs() -> BTreeSet<String> {
    let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "tokenbroker.v1");
    let services = files.flat_map(|file| &file.service);
    services
        .flat_map(|service| service.method.iter().map(|m| format!("{}/{}", service.name(), m.name())))
        .collect()
}

fn action_of(rpc: &str) -> Option<Action> {
    let method = rpc.strip_prefix("TokenBrokerService/")?.replace("OAuth", "Oauth");
    let mut name = String::new();
    for (index, letter) in method.char_indices() {
        if letter.is_uppercase() && index > 0 {
            name.push('_');
        }
        name.extend(letter.to_lowercase());
    }
    Some(name.parse().unwrap_or_else(|_| panic!("{rpc} has no action {name}")))
}

async fn broker(server: &HostileServer) -> (TestBroker, Things) {
    let mut builder = BrokerBuilder::new()
        .hostile(server)
        .set("authentication.cache_ttl", "0s")
        // Hundreds of calls by nobody come from one address here.
        .set("limits.strangers", 0)
        .caller("nobody", CallerRights::none("acme"))
        .caller("ops", CallerRights::none("acme").admin(false))
        .caller("root", CallerRights::none("globex").admin(true))
        .caller("rival", CallerRights::all("globex").admin(false));
    // One for each action, who may do everything else.
    for action in Action::ALL {
        let others: Vec<_> = Action::ALL.iter().filter(|other| **other != action).map(|a| a.name()).collect();
        let id = format!("not-{}", action.name());
        builder = builder.caller(&id, CallerRights::all("acme").actions(&others));
    }
    let broker = builder.start_in_process(Overrides::default()).await;
    let mut agent = broker.client("agent").await;
    let begin = pb::BeginOAuthRequest {
        provider: "hostile".to_owned(),
        user_id: THEIRS.to_owned(),
        services: vec!["files".to_owned()],
        ..Default::default()
    };
    let flow = answered(agent.begin_o_auth(begin).await).flow.unwrap().flow_id;
    let import = pb::ImportCredentialRequest {
        key: Some(key(THEIRS)),
        access_token: format!("{THEIRS}-token"),
        ..Default::default()
    };
    answered(agent.import_credential(import).await);
    let acquire = pb::AcquireLeaseRequest { key: Some(key(THEIRS)), ..Default::default() };
    let Some(AcquireResult::Leased(leased)) = answered(agent.acquire_lease(acquire).await).result else {
        panic!("no lease")
    };
    let mut ops = broker.admin("ops").await;
    let own_app = pb::CreateProviderConfigurationRequest {
        provider: THEIR_APP.to_owned(),
        definition: "test-hostile".to_owned(),
        client_id: format!("client-of-{THEIRS}"),
        authentication: Some(pb::ClientAuthentication {
            client_secret: format!("secret-of-{THEIRS}"),
            ..Default::default()
        }),
        ..Default::default()
    };
    answered(ops.create_provider_configuration(own_app).await);
    let mut rival = broker.admin("rival").await;
    let mut api_key = String::new();
    for (is_rival, name) in [(false, THEIRS), (false, "own"), (true, "own")] {
        let admin = if is_rival { &mut rival } else { &mut ops };
        let create = pb::CreateCallerRequest {
            caller: name.to_owned(),
            settings: Some(pb::CallerSettings::default()),
            ..Default::default()
        };
        answered(admin.create_caller(create).await);
        let new = pb::CreateApiKeyRequest { caller: name.to_owned(), ..Default::default() };
        let made = answered(admin.create_api_key(new).await).key.unwrap().key_id;
        if api_key.is_empty() {
            api_key = made;
        }
    }
    let keys = answered(ops.list_data_keys(pb::ListDataKeysRequest::default()).await).data_keys;
    let data_key = keys.first().expect("a token is sealed").id.clone();
    (broker, Things { flow, lease: leased.lease.unwrap().lease_id, api_key, data_key })
}

fn bearer(key: &str) -> Vec<String> {
    vec![format!("Bearer {key}")]
}

/// Asks without a caller in every way there is, and counts them. All are refused alike.
async fn as_nobody(channel: &Channel, rpc: &str, key: &str, body: &[u8]) -> usize {
    let path = format!("/tokenbroker.v1.{rpc}");
    let ways = [
        (path.clone(), vec![]),
        (path.clone(), bearer("")),
        (path.clone(), bearer("tb_")),
        (path.clone(), bearer(&key[..10])),
        (path.clone(), bearer(&key[..45])),
        (path.clone(), bearer(&format!("tb_{}", "A".repeat(43)))),
        (path.clone(), vec![key.to_owned()]),
        (path.clone(), vec![format!("Basic {key}")]),
        (path.clone(), [bearer(key), bearer(key)].concat()),
        (format!("{path}?authorization=Bearer%20{key}"), vec![]),
        (format!("{path}?api_key={key}"), vec![]),
    ];
    let mut replies = BTreeSet::new();
    for (path, authorization) in &ways {
        let refused = call(channel, path, authorization, body).await.expect_err(path);
        assert_eq!(refused.code(), Code::Unauthenticated, "{path} {authorization:?}");
        replies.insert(seen(&refused));
    }
    assert_eq!(replies.len(), 1, "{rpc}: {replies:#?}");
    ways.len()
}

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "the count is for people to read")]
async fn every_rpc_refuses_nobody_the_powerless_and_the_tenant_next_door() {
    let server = HostileServer::start().await;
    let (broker, things) = broker(&server).await;
    let mut rows = agents_rows(&things);
    rows.extend(operators_rows(&things));
    rows.extend(audit_rows());
    rows.extend(provider_rows());
    rows.extend(keys_rows(&things));
    let named: BTreeSet<String> = rows.keys().map(|rpc| (*rpc).to_owned()).collect();
    assert_eq!(named, rpcs(), "every RPC has a row here, and every row an RPC");

    let channel = broker.channel().await;
    let mut counts = BTreeMap::<&str, usize>::new();
    let mut denials = BTreeSet::new();
    let ask = async |rpc: &str, caller: &str, body: &[u8]| {
        let path = format!("/tokenbroker.v1.{rpc}");
        call(&channel, &path, &bearer(broker.api_key(caller)), body).await
    };
    for (rpc, row) in &rows {
        *counts.entry("nobody").or_default() +=
            as_nobody(&channel, rpc, broker.api_key("agent"), &row.request).await;

        let mut powerless = vec!["nobody".to_owned()];
        match action_of(rpc) {
            Some(action) => powerless.extend([format!("not-{}", action.name()), "ops".to_owned()]),
            None => powerless.push("agent".to_owned()),
        }
        for caller in powerless {
            let refused = ask(rpc, &caller, &row.request).await.expect_err(rpc);
            assert_eq!(refused.code(), Code::PermissionDenied, "{rpc} as {caller}");
            denials.insert(seen(&refused));
            *counts.entry("powerless").or_default() += 1;
        }
        for Alike { caller, theirs, never } in &row.alike {
            let [theirs, never] = [ask(rpc, caller, theirs).await, ask(rpc, caller, never).await];
            let shown = |answer: &Result<Vec<u8>, Status>| match answer {
                Ok(bytes) => format!("{bytes:?}"),
                Err(status) => seen(status),
            };
            assert_eq!(shown(&theirs), shown(&never), "{rpc} as {caller}");
            *counts.entry("alike").or_default() += 1;
        }
        // What a rival is told has nothing of acme's, whatever it asks for.
        for body in [&row.request, &Vec::new()] {
            if let Ok(answer) = ask(rpc, "rival", body).await {
                let mut text = String::from_utf8_lossy(&answer).into_owned();
                if rpc.ends_with("/ExportAudit") || rpc.ends_with("/QueryAudit") {
                    // Its own trail tells the rival what it has named itself.
                    for named in ["tenant:acme", &format!("caller:{THEIRS}")] {
                        text = text.replace(named, "");
                    }
                }
                assert!(!text.contains(THEIRS) && !text.contains("acme"), "{rpc}: {text}");
            }
            *counts.entry("rival").or_default() += 1;
        }
    }
    assert_eq!(denials.len(), 1, "one answer for all that is not allowed: {denials:#?}");

    // And nothing of acme's has changed.
    let list = pb::ListCredentialsRequest { user_id: THEIRS.to_owned(), ..Default::default() };
    assert_eq!(answered(broker.client("agent").await.list_credentials(list).await).credentials.len(), 1);
    let flow = pb::GetFlowRequest { flow_id: things.flow.clone() };
    let flow = answered(broker.client("agent").await.get_flow(flow).await).flow.unwrap();
    assert!(flow.status() == pb::FlowStatus::Pending);
    let keys = pb::ListApiKeysRequest { caller: THEIRS.to_owned(), ..Default::default() };
    let mut ops = broker.admin("ops").await;
    let keys = answered(ops.list_api_keys(keys).await).keys;
    assert!(keys.len() == 1 && keys[0].good && keys[0].key_id == things.api_key);
    let apps =
        answered(ops.list_provider_configurations(pb::ListProviderConfigurationsRequest::default()).await);
    assert!(apps.configurations.len() == 1 && apps.configurations[0].revision == 1);
    eprintln!(
        "negative cases over {} RPCs: {counts:?}, {} in all",
        rows.len(),
        counts.values().sum::<usize>()
    );
}
