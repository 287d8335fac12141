//! The contract of `TenantStore`.

use token_broker::domain::access_policy::Identity;
use token_broker::domain::caller_store::{Tenant, TenantWrite};

use super::caller_store::{caller, key};
use super::samples::{at, tenant};
use super::{Stores, contract};

contract!(
    a_tenant_comes_back_as_it_was_stored,
    a_deleted_tenant_stays_deleted_and_its_callers_are_gone,
    pages_of_tenants_leave_deleted_ones_out,
);

fn sample(name: &str) -> Tenant {
    Tenant {
        id: tenant(name),
        display_name: "Acme, Inc. \u{1F511}".to_owned(),
        created_at: at(1),
        disabled_at: None,
        deleted_at: None,
    }
}

async fn a_tenant_comes_back_as_it_was_stored(stores: Stores) {
    let tenants = stores.tenants;
    let first = sample("acme");
    assert_eq!(tenants.load_tenant(&first.id).await.unwrap(), None);
    assert_eq!(tenants.update_tenant(first.clone()).await.unwrap(), TenantWrite::Unknown);
    assert_eq!(tenants.insert_tenant(first.clone()).await.unwrap(), TenantWrite::Done);
    assert_eq!(tenants.insert_tenant(first.clone()).await.unwrap(), TenantWrite::Exists);
    assert_eq!(tenants.load_tenant(&first.id).await.unwrap(), Some(first.clone()));
    let disabled = Tenant { disabled_at: Some(at(5)), display_name: "A".to_owned(), ..first };
    assert_eq!(tenants.update_tenant(disabled.clone()).await.unwrap(), TenantWrite::Done);
    assert_eq!(tenants.load_tenant(&disabled.id).await.unwrap(), Some(disabled.clone()));
    assert!(!disabled.is_enabled());
    let again = Tenant { disabled_at: None, ..disabled };
    assert_eq!(tenants.update_tenant(again.clone()).await.unwrap(), TenantWrite::Done);
    assert_eq!(tenants.load_tenant(&again.id).await.unwrap(), Some(again));
}

async fn a_deleted_tenant_stays_deleted_and_its_callers_are_gone(stores: Stores) {
    let (tenants, callers) = (stores.tenants, stores.callers);
    tenants.insert_tenant(sample("acme")).await.unwrap();
    let (own, others) = (caller("acme", "agents"), caller("globex", "agents"));
    for (n, owner) in [(1, &own), (2, &others)] {
        callers.insert_caller(owner.clone()).await.unwrap();
        callers.insert_api_key(key(n, owner, 1)).await.unwrap();
    }
    let deleted = Tenant { deleted_at: Some(at(9)), ..sample("acme") };
    assert_eq!(tenants.update_tenant(deleted.clone()).await.unwrap(), TenantWrite::Done);
    assert_eq!(tenants.load_tenant(&deleted.id).await.unwrap(), Some(deleted.clone()));
    assert!(!deleted.is_enabled());
    assert_eq!(callers.find_caller(&Identity::ApiKey([1; 32])).await.unwrap(), None);
    assert_eq!(callers.load_caller(&own.tenant, &own.id).await.unwrap(), None);
    assert!(callers.find_caller(&Identity::ApiKey([2; 32])).await.unwrap().is_some());
    assert_eq!(tenants.update_tenant(sample("acme")).await.unwrap(), TenantWrite::Unknown);
    assert_eq!(tenants.insert_tenant(sample("acme")).await.unwrap(), TenantWrite::Exists);
}

async fn pages_of_tenants_leave_deleted_ones_out(stores: Stores) {
    let tenants = stores.tenants;
    for name in ["b", "a.b", "a", "a-b", "c"] {
        let deleted_at = (name == "a-b").then(|| at(3));
        tenants.insert_tenant(Tenant { deleted_at, ..sample(name) }).await.unwrap();
    }
    let page = async |after: Option<&str>, limit| {
        let after = after.map(tenant);
        let page = tenants.list_tenants(after.as_ref(), limit).await.unwrap();
        page.into_iter().map(|tenant| tenant.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 9).await, ["a", "a.b", "b", "c"]);
    assert_eq!(page(None, 2).await, ["a", "a.b"]);
    assert_eq!(page(Some("a.b"), 2).await, ["b", "c"]);
    assert!(page(Some("c"), 2).await.is_empty());
}
