//! The contract of `CredentialStore::revoke_with_outbox`, the ack point of Revoke.

use token_broker::domain::credential::{CredentialState, ReauthReason, StoredTokens};
use token_broker::domain::flow::FlowStatus;
use token_broker::domain::ports::{
    Consumed, GrantCondition, LineageWrite, NewGrant, PendingRevocation, Persisted, RevokedRow, StoredGrant,
};

use super::samples::{
    at, credential_id, fingerprint, flow, flow_id, key, key_of, lineage, new_grant, outbox_id, revocation,
    revoke_write, tokens,
};
use super::{Stores, contract};

contract!(
    tokens_move_to_the_outbox_as_they_are,
    without_an_outbox_row_they_are_deleted,
    any_state_can_be_revoked,
    a_revoked_or_missing_row_is_left_alone_but_its_flows_are_cancelled,
    pending_and_exchanging_flows_of_the_key_are_cancelled,
    i3_an_exchange_under_way_stores_nothing_after_a_revoke,
    i4_nothing_is_read_after_a_revoke,
    i3_revoke_and_persist_race_to_a_revoked_row,
);

async fn tokens_move_to_the_outbox_as_they_are(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    stores.connected(key("bob"), 2).await;
    let done =
        stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), Some(outbox_id(7)), at(50))).await;
    assert_eq!(done.unwrap(), RevokedRow { deleted: true, cancelled_flows: 0 });
    let revoked = stores.row(&key("alice")).await;
    assert_eq!(revoked.state, CredentialState::Revoked);
    assert_eq!((revoked.id, revoked.created_at, revoked.updated_at), (row.id, row.created_at, at(50)));
    assert_eq!((revoked.generation, revoked.epoch), (row.generation, row.epoch + 1));
    assert_eq!(revoked.grant_id, row.grant_id);
    assert_eq!(stores.outbox.due_revocations(at(50), 9).await.unwrap(), [outbox_id(7)]);
    let taken = stores.outbox.take_revocation(outbox_id(7), at(50), at(80)).await.unwrap().unwrap();
    let expected = PendingRevocation {
        id: outbox_id(7),
        grant_id: row.grant_id,
        attempts: 1,
        created_at: at(50),
        next_attempt_at: at(80),
        ..revocation(key("alice"), 1, 0)
    };
    assert_eq!(taken, expected);
    // Bob keeps his.
    assert!(stores.row(&key("bob")).await.is_connected());
}

async fn without_an_outbox_row_they_are_deleted(stores: Stores) {
    stores.connected(key("alice"), 1).await;
    let done =
        stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(50))).await.unwrap();
    assert!(done.deleted);
    assert_eq!(stores.row(&key("alice")).await.state, CredentialState::Revoked);
    assert_eq!(stores.outbox.due_revocations(at(9999), 9).await.unwrap(), []);
}

async fn any_state_can_be_revoked(stores: Stores) {
    // Refreshing.
    let row = stores.connected(key("a"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    assert!(
        stores
            .credentials
            .revoke_with_outbox(revoke_write(&key("a"), Some(outbox_id(1)), at(50)))
            .await
            .unwrap()
            .deleted
    );
    assert_eq!(stores.row(&key("a")).await.epoch, epoch + 1);
    // In need of a new consent: its tokens may live on at the provider.
    let row = stores.connected(key("b"), 2).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let reason = ReauthReason::RefreshTokenRejected;
    let marked = stores.credentials.mark_needs_reauth(row.id, epoch, fingerprint(2), reason, at(11));
    assert!(marked.await.unwrap());
    assert!(
        stores
            .credentials
            .revoke_with_outbox(revoke_write(&key("b"), Some(outbox_id(2)), at(51)))
            .await
            .unwrap()
            .deleted
    );
    // Without a refresh token.
    let bare = NewGrant { tokens: StoredTokens { refresh: None, ..tokens(3) }, ..new_grant(key("c"), 3) };
    stores.stored(bare).await;
    assert!(
        stores
            .credentials
            .revoke_with_outbox(revoke_write(&key("c"), Some(outbox_id(3)), at(52)))
            .await
            .unwrap()
            .deleted
    );
    for name in ["a", "b", "c"] {
        assert_eq!(stores.row(&key(name)).await.state, CredentialState::Revoked);
    }
    assert_eq!(stores.outbox.due_revocations(at(60), 9).await.unwrap(), [1, 2, 3].map(outbox_id));
    let bare = stores.outbox.take_revocation(outbox_id(3), at(60), at(90)).await.unwrap().unwrap();
    assert_eq!(bare.refresh_sealed, None);
}

async fn a_revoked_or_missing_row_is_left_alone_but_its_flows_are_cancelled(stores: Stores) {
    let alice = key("alice");
    stores.begun(&flow(alice.clone(), 1, 0)).await;
    let revoke =
        |n, now| stores.credentials.revoke_with_outbox(revoke_write(&alice, Some(outbox_id(n)), at(now)));
    assert_eq!(revoke(1, 10).await.unwrap(), RevokedRow { deleted: false, cancelled_flows: 1 });
    assert_eq!(stores.credentials.load(&alice).await.unwrap(), None);
    stores.connected(alice.clone(), 1).await;
    assert!(revoke(2, 20).await.unwrap().deleted);
    let revoked = stores.row(&alice).await;
    stores.begun(&flow(alice.clone(), 2, 0)).await;
    assert_eq!(revoke(3, 30).await.unwrap(), RevokedRow { deleted: false, cancelled_flows: 1 });
    assert_eq!(stores.row(&alice).await, revoked);
    assert_eq!(stores.outbox.due_revocations(at(99), 9).await.unwrap(), [outbox_id(2)]);
}

async fn pending_and_exchanging_flows_of_the_key_are_cancelled(stores: Stores) {
    for (n, created) in [(1, 0), (2, 0), (3, 0), (4, -600)] {
        stores.begun(&flow(key("alice"), n, created)).await;
    }
    let others = [
        key("bob"),
        key_of("acme", "google", "alice", "files", "default"),
        key_of("acme", "google", "alice", "mail", "work"),
        key_of("acme", "github", "alice", "mail", "default"),
        key_of("other", "google", "alice", "mail", "default"),
    ];
    for (n, other) in (11..).zip(&others) {
        stores.begun(&flow(other.clone(), n, 0)).await;
    }
    stores.consume(2, at(5)).await;
    stores.consume(3, at(5)).await;
    stores.end(3, FlowStatus::Denied, at(6)).await;
    let done =
        stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(10))).await.unwrap();
    assert_eq!(done, RevokedRow { deleted: false, cancelled_flows: 2 });
    for n in [1, 2] {
        let cancelled = stores.flow(flow_id(n)).await;
        assert_eq!((cancelled.status, cancelled.ended_at), (FlowStatus::Cancelled, Some(at(10))), "flow {n}");
    }
    // What had ended stays as it was; what had run out says so, even if the clock is set back later.
    assert_eq!(stores.flow(flow_id(3)).await.status, FlowStatus::Denied);
    let expired = stores.flow(flow_id(4)).await;
    assert_eq!((expired.status, expired.ended_at), (FlowStatus::Expired, Some(at(0))));
    let late = stores.consume(4, at(-60)).await;
    assert_eq!(late, Consumed::Spent(FlowStatus::Expired));
    for (n, other) in (11..).zip(&others) {
        let flow = stores.flows.load_flow(&other.tenant, flow_id(n)).await.unwrap().unwrap();
        assert_eq!(flow.status, FlowStatus::Pending, "{other:?}");
    }
}

async fn i3_an_exchange_under_way_stores_nothing_after_a_revoke(stores: Stores) {
    stores.begun(&flow(key("alice"), 1, 0)).await;
    stores.consume(1, at(5)).await;
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(10))).await.unwrap();
    let grant = NewGrant {
        condition: GrantCondition::Flow { id: flow_id(1), over: None },
        ..new_grant(key("alice"), 1)
    };
    assert_eq!(stores.credentials.store_grant(grant).await.unwrap(), StoredGrant::ConditionFailed);
    assert_eq!(stores.credentials.load(&key("alice")).await.unwrap(), None);
    assert!(!stores.end(1, FlowStatus::Completed, at(11)).await);
}

async fn i4_nothing_is_read_after_a_revoke(stores: Stores) {
    stores.connected(key("alice"), 1).await;
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(10))).await.unwrap();
    // Sixteen readers over all reading connections, each begun after the answer.
    let tasks: Vec<_> = (0..16)
        .map(|n| {
            let credentials = stores.credentials.clone();
            tokio::spawn(async move {
                if n % 2 == 0 {
                    credentials.load(&key("alice")).await.unwrap().unwrap()
                } else {
                    credentials.load_by_id(credential_id(1)).await.unwrap().unwrap()
                }
            })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().tokens(), None);
    }
}

async fn i3_revoke_and_persist_race_to_a_revoked_row(stores: Stores) {
    for n in 0..20 {
        let user = key(&format!("user {n}"));
        let row = stores.connected(user.clone(), n * 10 + 1).await;
        let epoch = stores.claimed(&row, 1, at(10)).await;
        let write = lineage(&row, epoch, n * 10 + 2, at(11));
        let (one, two) = (stores.credentials.clone(), stores.credentials.clone());
        let persist = tokio::spawn(async move { one.persist_lineage(write).await.unwrap() });
        let key = user.clone();
        let revoke = tokio::spawn(async move {
            two.revoke_with_outbox(revoke_write(&key, Some(outbox_id(n)), at(11))).await.unwrap()
        });
        assert!(revoke.await.unwrap().deleted);
        let persisted = persist.await.unwrap();
        assert_eq!(stores.row(&user).await.state, CredentialState::Revoked);
        // Whoever was first, the newest refresh token is in somebody's hands for revocation.
        let outbox = stores.outbox.take_revocation(outbox_id(n), at(20), at(30)).await.unwrap().unwrap();
        let old = tokens(n * 10 + 1).refresh.unwrap().sealed;
        let new = tokens(n * 10 + 2).refresh.unwrap().sealed;
        match persisted {
            Persisted::Stored(_) => assert_eq!(outbox.refresh_sealed, Some(new)),
            Persisted::Revoked => assert_eq!(outbox.refresh_sealed, Some(old)),
            other => panic!("{other:?}"),
        }
        // And nothing later changes that.
        let again = LineageWrite { epoch: epoch + 5, ..lineage(&row, epoch, n * 10 + 3, at(12)) };
        assert_eq!(stores.credentials.persist_lineage(again).await.unwrap(), Persisted::Revoked);
    }
}
