//! Bad input, a table for each RPC: the code, the reason, the fields, and that nothing is stored or sent.

mod flows;
mod keys;
mod leases_and_watches;
mod requests;

use tonic::{Code, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::doors::{AGENT, Doors};

/// A broker with something to lose: a connected user and a pending consent.
struct Stage {
    doors: Doors,
    flow: String,
    before: String,
    asked: usize,
}

/// What a refusal has to say: code, reason, fields.
type Refusal = (Code, &'static str, &'static [&'static str]);

const fn invalid(fields: &'static [&'static str]) -> Refusal {
    (Code::InvalidArgument, "INVALID_ARGUMENT", fields)
}

const NO_PROVIDER: Refusal = (Code::NotFound, "PROVIDER_NOT_FOUND", &[]);
const NO_SERVICE: Refusal = (Code::NotFound, "SERVICE_NOT_FOUND", &[]);
const NO_FLOW: Refusal = (Code::NotFound, "FLOW_NOT_FOUND", &[]);
const FORBIDDEN: Refusal = (Code::PermissionDenied, "PERMISSION_DENIED", &[]);

impl Stage {
    async fn set() -> Self {
        let doors = Doors::open().await;
        doors.connect(AGENT, "alice", "at-1", "rt-1").await;
        let (flow, _) = doors.begin(AGENT, "hostile", "alice").await;
        let before = doors.rows().await;
        assert!(
            before.contains("alice") && before.contains(&flow_in_hex(&flow)),
            "the dump shows rows: {before}"
        );
        let asked = doors.provider.requests().len();
        Self { doors, flow, before, asked }
    }

    /// The answer is this refusal, and nothing has changed.
    async fn refused<T>(&self, case: &str, answer: Result<Response<T>, Status>, refusal: Refusal) {
        let Err(status) = answer else { panic!("{case}: it was accepted") };
        let info =
            status.get_details_error_info().unwrap_or_else(|| panic!("{case}: no reason in {status:?}"));
        let fields: Vec<_> = status
            .get_details_bad_request()
            .map(|bad| bad.field_violations.into_iter().map(|violation| violation.field).collect())
            .unwrap_or_default();
        assert_eq!(
            (status.code(), info.reason.as_str(), fields),
            (refusal.0, refusal.1, refusal.2.iter().map(ToString::to_string).collect()),
            "{case}"
        );
        assert_eq!(info.domain, "tokenbroker", "{case}");
        assert!(!format!("{status:?}").contains("canary"), "{case}: the value is repeated");
        assert_eq!(self.doors.rows().await, self.before, "{case}: something was stored");
        assert_eq!(self.doors.provider.requests().len(), self.asked, "{case}: the provider was asked");
    }
}

/// One row of a table: what is changed in a request that is good, and what must come of it.
type Row<M> = (&'static str, fn(&mut M), Refusal);

/// Runs a table, then the unchanged request, which must be good: else the table would prove nothing.
macro_rules! run_table {
    ($rpc:ident, $good:expr, $rows:expr) => {{
        let stage = $crate::grpc_bad_input::Stage::set().await;
        let mut client = stage.doors.client($crate::support::doors::AGENT).await;
        for (case, change, refusal) in $rows {
            let mut request = $good;
            change(&mut request);
            stage.refused(case, client.$rpc(request).await, refusal).await;
        }
        for (caller, change, refusal) in $crate::grpc_bad_input::keys::strangers() {
            let mut request = $good;
            change.apply(&mut request);
            stage.refused(caller, stage.doors.client(caller).await.$rpc(request).await, refusal).await;
        }
        assert!(client.$rpc($good).await.is_ok(), "the unchanged request is good");
        stage
    }};
}
use run_table;

/// As the database quotes the bytes of a flow's id.
fn flow_in_hex(id: &str) -> String {
    format!("X'{}'", id.replace('-', "").to_uppercase())
}
