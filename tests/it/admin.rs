//! The service for operators: a permission of its own, and a listener of its own if wanted.

use token_broker::app::Overrides;
use token_broker::r#gen::v1::{AdminAction, ListProvidersRequest, WhoAmIRequest};
use tonic::Code;

use crate::support::broker::{BrokerBuilder, CallerRights, answered, free_port, refused};

fn builder() -> BrokerBuilder {
    BrokerBuilder::new()
        .caller("ops", CallerRights::none("acme"))
        .set("callers.ops.admin", vec!["read_audit", "manage_keys"])
        .caller("root", CallerRights::none("acme"))
        .set("callers.root.admin", "any")
        .set("callers.root.all_tenants", true)
}

#[tokio::test]
async fn an_admin_right_is_a_permission_of_its_own() {
    let broker = builder().start_in_process(Overrides::default()).await;
    let who = async |caller: &str| broker.admin(caller).await.who_am_i(WhoAmIRequest {}).await;
    let ops = answered(who("ops").await);
    assert_eq!((ops.tenant.as_str(), ops.caller.as_str(), ops.all_tenants), ("acme", "ops", false));
    assert_eq!(ops.actions, [AdminAction::ManageKeys as i32, AdminAction::ReadAudit as i32]);
    let root = answered(who("root").await);
    assert_eq!((root.actions.len(), root.all_tenants), (6, true));
    // All that agents may do is no admin right, and the other way round.
    assert_eq!(refused(who("agent").await).code(), Code::PermissionDenied);
    let agents = broker.client("root").await.list_providers(ListProvidersRequest {}).await;
    assert_eq!(refused(agents).code(), Code::PermissionDenied);
}

#[tokio::test]
async fn with_a_listener_of_its_own_it_is_nowhere_else() {
    let address = format!("127.0.0.1:{}", free_port());
    let broker = builder().set("admin.listen", address.as_str()).start_in_process(Overrides::default()).await;
    let ask =
        async |address: &str| broker.admin_client("ops", address).await.who_am_i(WhoAmIRequest {}).await;
    answered(ask(&address).await);
    assert_eq!(refused(ask(&broker.grpc_address()).await).code(), Code::Unimplemented);
    let mut agents_door = broker.client_at(&address, "agent").await;
    let answer = agents_door.list_providers(ListProvidersRequest {}).await;
    assert_eq!(refused(answer).code(), Code::Unimplemented);
    answered(broker.client("agent").await.list_providers(ListProvidersRequest {}).await);
}
