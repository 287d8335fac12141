//! How the server does what it is asked: over tables of some size, by index, and with no more statements than needed. Seen
//! from outside, in the plans of the very statements that the store sends (`auto_explain`), first with and then without
//! their values.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Executor as _};
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{
    DataKeyPurpose, DataKeyStore as _, ReencryptionStore as _, RenewedRow, SealedTable,
};
use token_broker::domain::flow::FlowStatus;
use token_broker::domain::key::{CredentialId, CredentialKey, GrantId, UserId};
use token_broker::domain::ports::{
    ClaimRequest, Consumed, CredentialStore as _, DeadOwners, DueRequest, FlowStore as _, ListQuery,
    OutboxStore as _, Persisted, RevocationOutcome, StoreHealth as _,
};
use token_broker::domain::provider_config::ProviderConfigStore as _;
use token_broker::domain::user_key::{StoredUserKey, UserDeleted, UserDeletion, UserKeyStore as _};
use token_broker::infra::storage::postgres::PgStore;

use super::Place;
use crate::contract::samples::{
    BROWSER, app_flow, at, claim_request, flow, held, key, key_of, lineage, new_grant, outbox_id, owner,
    provider, release, revocation, revoke_write, scopes, secret, state, tenant,
};

/// 30,000 credentials of 10,000 users at three providers, 60 of them being refreshed, 300 due, 150 of tenants' own apps, a
/// quarter of the due ones among them; 300 own apps; 20,000 ended flows and 100
/// pending ones; 20,000 finished revocations and 100 due ones; 20,000 events; 4,000 data keys;
/// 60,000 users' keys.
const POPULATE: &str = "
    INSERT INTO credentials (id, tenant, provider, user_id, grant_name, account, created_at, updated_at, grant_id,
        generation, epoch, status, access_sealed, access_obtained_at, access_expires_at, token_type, profile_sealed, scopes,
        scopes_assumed, rt_sealed, rt_fingerprint, rt_epoch, claim_owner, claim_deadline, settle_at, next_refresh_at,
        configuration)
    SELECT decode(md5('id' || n), 'hex'), CASE WHEN n % 2 = 0 THEN 'acme' ELSE 'other' END,
        (ARRAY['google', 'github', 'slack'])[1 + n % 3], 'user ' || n / 3, 'mail', 'default', 0, 0,
        decode(md5('grant' || n), 'hex'), 1, 1, CASE WHEN n % 500 = 0 THEN 'refreshing' ELSE 'active' END,
        decode(repeat(md5('a' || n), 8), 'hex'), 0, 4000000000000000, 'Bearer', decode(repeat(md5('p' || n), 8), 'hex'),
        '[\"mail\"]', false, decode(repeat(md5('r' || n), 8), 'hex'), decode(repeat(md5('f' || n), 2), 'hex'), 0,
        CASE WHEN n % 500 = 0 THEN decode(md5('owner'), 'hex') END,
        CASE WHEN n % 500 = 0 THEN 1800000000000000 + n END, CASE WHEN n % 500 = 0 THEN 1800000300000000 + n END,
        CASE WHEN n % 100 = 1 THEN 1700000000000000 + n ELSE 1900000000000000 + n END,
        CASE WHEN n % 20 = 1 AND n % 400 < 40 THEN decode(md5('own' || n % 300), 'hex') END
    FROM generate_series(1, 30000) AS n;
    INSERT INTO provider_configurations (tenant, provider, id, definition, client_id, variables, authentication, revision,
        created_at, updated_at)
    SELECT 'tenant-' || n, (ARRAY['google', 'github', 'slack'])[1 + n % 3], decode(md5('own' || n), 'hex'), 'google', 'app', '{}',
        '{}', 1, 0, 0
    FROM generate_series(0, 299) AS n;
    INSERT INTO flows (id, tenant, provider, user_id, grant_name, account, caller, services, scopes, grant_id, state_hash,
        secrets_sealed, endpoints, redirect_uri, status, created_at, expires_at, ended_at)
    SELECT decode(md5('id' || n), 'hex'), 'acme', 'google', 'user ' || n / 3, 'mail', 'default', 'agent', '[]', '[]',
        decode(md5('grant' || n), 'hex'), decode(repeat(md5('s' || n), 2), 'hex'), '\\x00', '{}', 'https://a.example',
        CASE WHEN n % 200 = 0 THEN 'pending' ELSE 'completed' END, n, 1900000000000000 + n,
        CASE WHEN n % 200 <> 0 THEN 1790000000000000 + n END
    FROM generate_series(1, 20000) AS n;
    INSERT INTO revocations (id, tenant, provider, user_id, grant_name, account, grant_id, access_sealed, attempts,
        created_at, next_attempt_at, finished_at, outcome)
    SELECT decode(md5('id' || n), 'hex'), 'acme', 'google', 'user ' || n / 3, 'mail', 'default',
        decode(md5('grant' || n), 'hex'), CASE WHEN n % 200 = 0 THEN '\\x00'::bytea END, 1, 0, n,
        CASE WHEN n % 200 <> 0 THEN 1790000000000000 + n END, CASE WHEN n % 200 <> 0 THEN 'revoked' END
    FROM generate_series(1, 20000) AS n;
    INSERT INTO events (tenant, provider, user_id, grant_name, account, subject, old_status, new_status, generation,
        created_at)
    SELECT 'acme', 'google', 'user ' || n / 3, 'mail', 'default', 'credential', 'active', 'revoked', 1, n
    FROM generate_series(1, 20000) AS n;
    INSERT INTO data_keys (id, tenant, purpose, kek_id, wrapped, created_at)
    SELECT decode(md5('id' || n), 'hex'), 'tenant-' || n, 'encryption', 'k' || n % 2, '\\x00', n
    FROM generate_series(1, 4000) AS n;
    INSERT INTO user_keys (tenant, user_id, id, sealed, created_at)
    SELECT 'acme', 'user ' || n, decode(md5('id' || n), 'hex'), decode(repeat(md5('k' || n), 6), 'hex'), n
    FROM generate_series(1, 60000) AS n;";

/// A statement as the server did it.
#[derive(Debug)]
struct Done {
    statement: String,
    plan: String,
}

impl Place {
    /// A populated database whose server explains what it does, and a connection on which it does not.
    async fn explained() -> (Self, PgConnection) {
        let place = Self::new().await;
        let mut backdoor = place.server.backdoor(&place.database).await;
        backdoor.execute(POPULATE).await.unwrap();
        // Not in a transaction, and so by itself.
        backdoor.execute("VACUUM ANALYZE").await.unwrap();
        let database = &place.database;
        let sql = format!(
            "ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain';
             ALTER DATABASE {database} SET auto_explain.log_min_duration = 0;
             ALTER DATABASE {database} SET auto_explain.log_nested_statements = on"
        );
        backdoor.execute(AssertSqlSafe(sql)).await.unwrap();
        place.store.close().await;
        let settings = crate::engines::postgres::settings(&place.server.url(database));
        let row_clock = token_broker::infra::storage::postgres::RowClock::Database;
        let store = crate::engines::postgres::open(&settings, row_clock).await;
        (Self { store, ..place }, backdoor)
    }

    /// What the server has done in this database so far.
    fn done(&self) -> Vec<Done> {
        let log = self.server.log();
        let mine = format!("] {} LOG:", self.database);
        let mut done: Vec<Done> = Vec::new();
        let mut is_mine = false;
        for line in log.lines() {
            match line.strip_prefix('\t') {
                // Statements have lines without anything of a plan.
                Some(rest) if is_mine => {
                    if let Some(last) = done.last_mut() {
                        let part = if last.plan.is_empty() && !rest.contains("(cost=") {
                            &mut last.statement
                        } else {
                            &mut last.plan
                        };
                        part.push_str(rest);
                        part.push('\n');
                    }
                }
                Some(_) => {}
                None => {
                    is_mine = line.contains(&mine) && line.contains("plan:");
                    if is_mine {
                        done.push(Done { statement: String::new(), plan: String::new() });
                    }
                }
            }
        }
        done
    }
}

fn list(user: Option<&str>) -> ListQuery {
    ListQuery {
        tenant: tenant("acme"),
        user: user.map(|user| UserId::new(user).unwrap()),
        among: None,
        providers: None,
        covering: scopes(&["mail"]),
        after: Some(key_of("acme", "github", "user 2000", "mail", "default")),
        limit: 20,
    }
}

/// One of everything that is done often.
async fn a_round(place: &Place, n: u32, ids: &[[u8; 16]], grant: GrantId) {
    let store = &place.store;
    let alice = key(&format!("alice {n}"));
    let token_broker::domain::ports::StoredGrant::Stored(row) =
        store.store_grant(new_grant(alice.clone(), n)).await.unwrap()
    else {
        panic!("stored")
    };
    assert!(store.load(&alice).await.unwrap().is_some());
    let epoch = store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap().unwrap();
    let persisted = store.persist_lineage(lineage(&row, epoch, n + 10_000, at(6))).await.unwrap();
    let Persisted::Stored(row) = persisted else { panic!("{persisted:?}") };
    let stranger = lineage(&row, epoch + 9, n + 20_000, at(6));
    let stranger = token_broker::domain::ports::LineageWrite { grant_id: grant, ..stranger };
    assert_eq!(store.persist_lineage(stranger).await.unwrap(), Persisted::Revoked);
    let request: ClaimRequest = claim_request(&row, 1, at(7));
    let epoch = store.claim_for_refresh(request.clone()).await.unwrap().unwrap();
    let claimed = store.load_by_id(row.id).await.unwrap().unwrap();
    assert_eq!(store.claim_for_settle(claim_request(&claimed, 1, at(8))).await.unwrap(), None);
    assert!(store.release_claim(release(row.id, epoch, 1, None, at(8))).await.unwrap());
    let reason = token_broker::domain::credential::ReauthReason::RefreshTokenRejected;
    assert!(!store.mark_needs_reauth(row.id, epoch, request.fingerprint, reason, at(9)).await.unwrap());
    store.settle_early(DeadOwners::One(owner(n))).await.unwrap();
    store.due_for_settle(at(9), 50).await.unwrap();
    let due = DueRequest {
        provider: provider("google"),
        configuration: None,
        now: at(1),
        until: at(900_000),
        limit: 10,
    };
    assert!(!store.reserve_due(due.clone()).await.unwrap().is_empty());
    let own = store.due_provider_configs(at(1), 1_000).await.unwrap();
    let of_own = DueRequest { provider: own[0].provider.clone(), configuration: Some(own[0].id), ..due };
    assert!(!store.reserve_due(of_own).await.unwrap().is_empty());
    store.reschedule(row.id, Some(at(9))).await.unwrap();
    let some: Vec<CredentialId> = ids.iter().copied().map(CredentialId::from_bytes).collect();
    store.mark_used(&some, at(9)).await.unwrap();
    assert_eq!(store.list(list(None)).await.unwrap().len(), 20);
    store.list(list(Some("user 2001"))).await.unwrap();

    assert!(store.insert_flow(&flow(alice.clone(), n, 0), 9).await.unwrap());
    assert!(store.latest_flow(&alice).await.unwrap().is_some());
    assert_eq!(store.pending_flows(&alice, at(1)).await.unwrap().len(), 1);
    let consumed = store.consume_flow(state(n), &provider("google"), BROWSER, at(1)).await.unwrap();
    let Consumed::Won(flow) = consumed else { panic!("{consumed:?}") };
    assert!(matches!(
        store.consume_flow(state(n), &provider("google"), BROWSER, at(1)).await.unwrap(),
        Consumed::Spent(_)
    ));
    assert!(store.end_flow(flow.id, FlowStatus::Exchanging, FlowStatus::Denied, at(2)).await.unwrap());
    let app = app_flow(alice.clone(), n + 500, 0);
    assert!(store.insert_flow(&app, 9).await.unwrap());
    assert!(store.flow_of_state(state(n + 500), &provider("google")).await.unwrap().is_some());
    assert!(store.flow_of_link(secret(n)).await.unwrap().is_some());
    assert!(store.flow_of_browser(flow.id).await.unwrap().is_some());
    assert!(!store.admit_browser(flow.id, BROWSER, at(1)).await.unwrap());
    assert!(matches!(store.hold_code(held(n + 500), at(1)).await.unwrap(), Consumed::Won(_)));
    let half = secret(n + 1_500);
    assert!(matches!(store.redeem_flow(app.id, half, at(1)).await.unwrap(), Consumed::Won(_)));
    assert!(matches!(store.redeem_flow(app.id, half, at(1)).await.unwrap(), Consumed::Spent(_)));
    assert!(store.cancel_flow(&tenant("acme"), flow.id, at(2)).await.unwrap().is_some());
    store.sweep_flows(at(1), at(0), at(-900_000_000)).await.unwrap();

    store.enqueue_revocation(revocation(alice.clone(), n, 0)).await.unwrap();
    assert!(!store.due_revocations(at(1), 50).await.unwrap().is_empty());
    assert!(store.take_revocation(outbox_id(n), at(1), at(2)).await.unwrap().is_some());
    store.postpone_revocation(outbox_id(n), at(1)).await.unwrap();
    store.finish_revocation(outbox_id(n), RevocationOutcome::Failed, at(2)).await.unwrap();
    store.delete_finished_revocations(at(-900_000_000)).await.unwrap();
    assert!(
        store
            .revoke_with_outbox(revoke_write(&alice, Some(outbox_id(n + 500)), at(9)))
            .await
            .unwrap()
            .deleted
    );

    a_round_of_keys(store, &alice, n, ids).await;
    store.ping().await.unwrap();
}

/// The same of those of keys.
async fn a_round_of_keys(store: &PgStore, alice: &CredentialKey, n: u32, ids: &[[u8; 16]]) {
    store.data_key(ids[0]).await.unwrap();
    store.newest_data_key(&tenant("acme"), DataKeyPurpose::Encryption).await.unwrap();
    store.data_keys_under("k1", 3).await.unwrap();
    store.kek_ids_in_use().await.unwrap();
    store.data_keys(None, None, 9).await.unwrap();
    store.data_keys(Some(&tenant("acme")), None, 9).await.unwrap();
    store.data_key_states(&ids[..3]).await.unwrap();
    store.user_key(ids[0]).await.unwrap();
    store.user_keys(&ids[..3]).await.unwrap();
    store.user_key_of(&tenant("acme"), &alice.user).await.unwrap();
    let user_key = StoredUserKey {
        id: *outbox_id(n).as_bytes(),
        tenant: tenant("acme"),
        user: alice.user.clone(),
        sealed: Sealed(vec![1]),
        created_at: at(1),
    };
    assert!(store.user_key_or_insert(user_key).await.unwrap().is_some());
    let deletion = UserDeletion {
        tenant: tenant("acme"),
        user: alice.user.clone(),
        abandon_revocations: true,
        limit: 99,
    };
    assert!(matches!(store.delete_user(&deletion).await.unwrap(), UserDeleted::Gone(Some(_))));
    for table in SealedTable::ALL {
        let rows = store.sealed_rows(table, Some(ids[0]), 50).await.unwrap();
        let unchanged: Vec<_> = rows.into_iter().map(|was| RenewedRow { is: was.clone(), was }).collect();
        assert_eq!(store.replace_sealed(table, &unchanged).await.unwrap().len(), unchanged.len());
    }
}

#[tokio::test]
async fn frequent_statements_use_an_index() {
    let (place, mut backdoor) = Place::explained().await;
    let ids: Vec<(Vec<u8>,)> =
        sqlx::query_as("SELECT id FROM credentials LIMIT 30").fetch_all(&mut backdoor).await.unwrap();
    let ids: Vec<[u8; 16]> = ids.into_iter().map(|(id,)| id.try_into().unwrap()).collect();
    let (grant,): (Vec<u8>,) =
        sqlx::query_as("SELECT grant_id FROM revocations LIMIT 1").fetch_one(&mut backdoor).await.unwrap();
    let grant = GrantId::from_bytes(grant.try_into().unwrap());
    // From the sixth time on, the server may plan without the values.
    for n in 40_001..40_008 {
        a_round(&place, n, &ids, grant).await;
    }
    let done = place.done();
    let distinct: std::collections::BTreeSet<&str> =
        done.iter().map(|done| done.statement.as_str()).collect();
    assert!(distinct.len() > 35, "the plans are in the log: {}", distinct.len());
    for Done { statement, plan } in done.iter().filter(|done| !done.statement.contains("_sqlx_migrations")) {
        // Whether there is any row at all.
        let pings = statement.contains("EXISTS (SELECT 1 FROM data_keys)");
        let whole_table = ["credentials", "flows", "revocations", "data_keys", "user_keys", "events"]
            .iter()
            .any(|table| plan.contains(&format!("Seq Scan on {table}")));
        assert!(pings || !whole_table, "{statement}\n{plan}");
        // Nothing is collected and sorted, but for rows that are locked in the order of their ids, the few pending flows of one
        // user, and what is due at one tenant's own app.
        let few = ["ORDER BY id", "status = 'pending'", "configuration = $5"];
        let few = few.iter().any(|part| statement.contains(part));
        assert!(few || !plan.contains("Sort"), "{statement}\n{plan}");
    }
    let by = |part: &str| {
        let found: Vec<_> = done.iter().filter(|done| done.statement.contains(part)).collect();
        assert!(!found.is_empty(), "{part}");
        found.into_iter().map(|done| done.plan.clone()).collect::<Vec<_>>()
    };
    // What is due at one app, and not what is due at others.
    let due = |configuration| {
        let of_these = format!("status = 'active' AND configuration {configuration}");
        by(&of_these)
    };
    assert!(due("IS NULL").iter().all(|plan| plan.contains("Index Scan using credentials_due_operators")));
    assert!(due("= $5").iter().all(|plan| plan.contains("credentials_due_own")));
    let by_app = by("FROM provider_configurations AS c");
    assert!(by_app.iter().all(|plan| plan.contains("credentials_due_own")), "{by_app:#?}");
    assert!(by("ORDER BY settle_at").iter().all(|plan| plan.contains("credentials_to_settle")));
    assert!(by("WITH abandoned AS").iter().all(|plan| plan.contains("credentials_to_settle")));
}

#[tokio::test]
async fn a_refresh_is_two_statements() {
    let (place, _) = Place::explained().await;
    let token_broker::domain::ports::StoredGrant::Stored(row) =
        place.store.store_grant(new_grant(key("alice"), 1)).await.unwrap()
    else {
        panic!("stored")
    };
    let before = place.done().len();
    let epoch = place.store.claim_for_refresh(claim_request(&row, 1, at(5))).await.unwrap().unwrap();
    place.store.persist_lineage(lineage(&row, epoch, 2, at(6))).await.unwrap();
    let done = place.done();
    let statements: Vec<&str> = done[before..].iter().map(|done| done.statement.trim()).collect();
    assert_eq!(statements.len(), 2, "{statements:#?}");
    assert!(statements.iter().all(|statement| statement.contains("UPDATE credentials")), "{statements:#?}");
    place.store.load(&row.key).await.unwrap();
    assert_eq!(place.done().len(), before + 3, "a read is one");
}
