//! What is known about a call without looking into it: its method, its id, and how it is counted.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use metrics::{Counter, Histogram};
use tonic::Code;

use super::status::code_name;
use crate::application::limits::CallClass;
use crate::domain::ports::Entropy;

/// Calls, by method and code.
pub(super) const REQUESTS_TOTAL: &str = "token_broker_grpc_requests_total";
/// How long they took, by method.
pub(super) const REQUEST_DURATION: &str = "token_broker_grpc_request_duration_seconds";

/// The header that carries a request's id, in and out.
pub(super) const REQUEST_ID: &str = "x-request-id";
/// The longest id taken from a caller.
const MAX_REQUEST_ID_BYTES: usize = 128;

/// The broker's own services.
const SERVICE_PATH: &str = "/tokenbroker.v1.TokenBrokerService/";
const ADMIN_PATH: &str = "/tokenbroker.v1.AdminService/";
/// Open to everybody.
const HEALTH_PATH: &str = "/grpc.health.v1.Health/";

const CODES: usize = 17;

/// A method as logs and metrics name it. A path that a caller made up must not become a label: every new label is memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method(usize);

/// The methods, the broker's own by their names in the proto, which no two of its services share.
const METHODS: [&str; 48] = [
    "GetCredential",
    "Refresh",
    "Revoke",
    "BeginOAuth",
    "CompleteOAuth",
    "GetFlow",
    "CancelFlow",
    "ListCredentials",
    "ImportCredential",
    "ListProviders",
    "AcquireLease",
    "RenewLease",
    "ReleaseLease",
    "WatchCredentials",
    "WhoAmI",
    "CreateCaller",
    "GetCaller",
    "ListCallers",
    "UpdateCaller",
    "DeleteCaller",
    "CreateApiKey",
    "ListApiKeys",
    "RotateApiKey",
    "RevokeApiKey",
    "ExplainAccess",
    "CreateTenant",
    "GetTenant",
    "ListTenants",
    "UpdateTenant",
    "DeleteTenant",
    "RevokeUserCredentials",
    "RevokeTenantCredentials",
    "DeleteUserData",
    "CreateProviderConfiguration",
    "GetProviderConfiguration",
    "ListProviderConfigurations",
    "UpdateProviderConfiguration",
    "DeleteProviderConfiguration",
    "QueryAudit",
    "VerifyAudit",
    "ExportAudit",
    "ListDataKeys",
    "RotateDataKeys",
    "RewrapDataKeys",
    "RetireDataKey",
    "Health",
    "Reflection",
    "unknown",
];
/// The methods of `TokenBrokerService` end here, and those of `AdminService` at [`HEALTH`].
const BROKER_METHODS: usize = 14;
const HEALTH: usize = METHODS.len() - 3;
const REFLECTION: usize = HEALTH + 1;
const UNKNOWN: usize = HEALTH + 2;

/// How the names of methods begin that change something.
const CHANGES: [&str; 5] = ["Create", "Update", "Delete", "Rotate", "Revoke"];

impl Method {
    /// From the path of the request.
    pub(super) fn of(path: &str) -> Self {
        for (service, range) in [(SERVICE_PATH, 0..BROKER_METHODS), (ADMIN_PATH, BROKER_METHODS..HEALTH)] {
            if let Some(name) = path.strip_prefix(service) {
                let index = range.into_iter().find(|index| METHODS[*index] == name);
                return Self(index.unwrap_or(UNKNOWN));
            }
        }
        match path {
            _ if path.starts_with(HEALTH_PATH) => Self(HEALTH),
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
            | "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" => Self(REFLECTION),
            _ => Self(UNKNOWN),
        }
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        METHODS[self.0]
    }

    /// Whether it is one of operators': it is for no user, so that its limits can be asked before it is read.
    pub(super) fn is_operators(self) -> bool {
        (BROKER_METHODS..HEALTH).contains(&self.0)
    }

    /// Whether it is health: the one thing that needs no key.
    pub(super) fn is_open(self) -> bool {
        self.0 == HEALTH
    }

    /// Whether it is one of the broker's own RPCs: each call has a row in the audit log.
    pub(super) fn is_rpc(self) -> bool {
        self.0 < HEALTH
    }

    /// What rate limits count it as.
    pub(super) fn class(self) -> CallClass {
        match self.name() {
            "GetCredential" | "Refresh" | "AcquireLease" | "RenewLease" | "ReleaseLease" => CallClass::Tokens,
            "BeginOAuth" | "CompleteOAuth" | "CancelFlow" => CallClass::Consents,
            "ImportCredential" => CallClass::Changes,
            name if CHANGES.iter().any(|verb| name.starts_with(verb)) => CallClass::Changes,
            _ => CallClass::Lists,
        }
    }

    /// Whether it takes access away rather than giving it: that is never held up for want of a record.
    pub(super) fn takes_away(self) -> bool {
        matches!(self.name(), "Revoke" | "CancelFlow" | "ReleaseLease")
    }

    /// Whether it is one of the broker's own, whose errors all carry details.
    pub(super) fn is_own(self) -> bool {
        self.0 < HEALTH || self.0 == UNKNOWN
    }
}

/// Counts calls. A handle is looked up by its labels once, at the first call that needs it.
pub(super) struct CallMetrics([MethodMetrics; METHODS.len()]);

struct MethodMetrics {
    duration: OnceLock<Histogram>,
    requests: [OnceLock<Counter>; CODES],
}

impl CallMetrics {
    /// Nothing looked up yet.
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| MethodMetrics {
            duration: OnceLock::new(),
            requests: std::array::from_fn(|_| OnceLock::new()),
        }))
    }

    /// Counts one call.
    pub(super) fn record(&self, method: Method, code: Code, took: Duration) {
        let MethodMetrics { duration, requests } = &self.0[method.0];
        let duration =
            duration.get_or_init(|| metrics::histogram!(REQUEST_DURATION, "method" => method.name()));
        duration.record(took.as_secs_f64());
        let cell = usize::try_from(i32::from(code)).ok().and_then(|code| requests.get(code));
        if let Some(cell) = cell {
            let labels = [("method", method.name()), ("code", code_name(code))];
            cell.get_or_init(|| metrics::counter!(REQUESTS_TOTAL, &labels)).increment(1);
        }
    }
}

/// Makes request ids: random per process, then counted. They are no secrets.
pub(super) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// With a process part that no other run has.
    pub(super) fn new(entropy: &dyn Entropy) -> Self {
        let mut process = [0; 8];
        entropy.fill(&mut process);
        Self { process: u64::from_be_bytes(process), next: AtomicU64::new(1) }
    }

    /// The caller's id if it is one that a log can hold, else a new one.
    pub(super) fn of(&self, headers: &HeaderMap) -> HeaderValue {
        let given = headers.get(REQUEST_ID).filter(|id| {
            (1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic)
        });
        given.cloned().unwrap_or_else(|| {
            let id = format!("{:016x}-{}", self.process, self.next.fetch_add(1, Ordering::Relaxed));
            HeaderValue::try_from(id).unwrap_or(HeaderValue::from_static("-"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed;

    impl Entropy for Fixed {
        fn fill(&self, buffer: &mut [u8]) {
            buffer.fill(7);
        }
    }

    #[test]
    fn every_method_of_the_proto_has_its_label() {
        use prost::Message as _;
        let files = prost_types::FileDescriptorSet::decode(crate::r#gen::FILE_DESCRIPTOR_SET).unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for service in files.file.iter().flat_map(|f| &f.service) {
            for name in service.method.iter().map(prost_types::MethodDescriptorProto::name) {
                let method = Method::of(&format!("/tokenbroker.v1.{}/{name}", service.name()));
                assert_eq!(method.name(), name);
                assert!(method.is_own() && seen.insert(method.0));
            }
        }
        assert_eq!(seen, (0..HEALTH).collect());
    }

    #[test]
    fn made_up_paths_share_one_label_and_need_a_key() {
        for path in
            ["/", "", "/x", "/tokenbroker.v1.TokenBrokerService/Health", "/grpc.health.v1.HealthX/Check"]
        {
            let method = Method::of(path);
            assert_eq!(method.name(), "unknown", "{path}");
            assert!(!method.is_open());
        }
        assert!(Method::of("/grpc.health.v1.Health/Check").is_open());
    }

    #[test]
    fn request_ids_are_echoed_or_made() {
        let ids = RequestIds::new(&Fixed);
        let with = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            ids.of(&headers)
        };
        assert_eq!(with(b"run-7/step-3"), "run-7/step-3");
        let mut made = std::collections::BTreeSet::new();
        for bad in [&b""[..], b"a b", b"\xff", &[b'a'; 129]] {
            let id = with(bad);
            assert_ne!(id.as_bytes(), bad);
            assert!(made.insert(id.to_str().unwrap().to_owned()));
        }
    }
}
