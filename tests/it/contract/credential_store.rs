//! The contract of `CredentialStore`: reads, grants, claims. Lineage, revocation and lists have files of their own.

use token_broker::domain::credential::{
    BackOff, CredentialState, ReauthReason, RefreshFailure, StoredTokens,
};
use token_broker::domain::flow::{FlowFailure, FlowStatus};
use token_broker::domain::ports::{DeadOwners, GrantCondition, NewGrant, StoredGrant};

use super::samples::{
    at, claim, claim_request, credential_id, fingerprint, flow, flow_id, grant_id, key, key_of, lineage,
    new_grant, owner, release, revoke_write, tokens,
};
use super::{Stores, contract};

contract!(
    a_grant_is_read_back_as_stored,
    tokens_without_optional_parts_are_read_back,
    a_new_grant_keeps_the_row_and_counts_on,
    a_grant_completes_its_flow_or_is_not_stored,
    a_consent_replaces_the_grant_that_it_was_compared_with_and_no_other,
    an_import_does_not_replace_a_connection,
    keys_that_only_differ_in_where_the_parts_end_have_rows_of_their_own,
    a_claim_needs_the_row_as_it_was_read,
    of_sixteen_claims_one_wins,
    of_sixteen_settlers_one_wins,
    a_settling_claim_waits_for_its_time,
    a_released_claim_backs_off,
    a_dead_grant_needs_reauthorization,
    i8_a_row_that_has_moved_on_is_not_demoted,
    due_rows_come_oldest_first,
    claims_of_dead_owners_are_settled_early,
);

async fn a_grant_is_read_back_as_stored(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    assert_eq!((row.id, &row.key), (credential_id(1), &key("alice")));
    assert_eq!((row.grant_id, row.generation, row.epoch), (grant_id(1), 1, 1));
    assert_eq!((row.created_at, row.updated_at), (at(1), at(1)));
    assert_eq!(row.state, CredentialState::Active { tokens: tokens(1), back_off: None });
    assert_eq!(stores.row(&key("alice")).await, row);
    assert_eq!(stores.credentials.load_by_id(credential_id(1)).await.unwrap(), Some(row));
    assert_eq!(stores.credentials.load(&key("bob")).await.unwrap(), None);
    assert_eq!(stores.credentials.load_by_id(credential_id(2)).await.unwrap(), None);
}

async fn tokens_without_optional_parts_are_read_back(stores: Stores) {
    let mut bare = StoredTokens { refresh: None, scopes_assumed: true, ..tokens(1) };
    bare.access_life.expires_at = None;
    bare.scopes = super::samples::scopes(&[]);
    let row = stores.stored(NewGrant { tokens: bare.clone(), ..new_grant(key("alice"), 1) }).await;
    assert_eq!(row.tokens(), Some(&bare));
}

async fn a_new_grant_keeps_the_row_and_counts_on(stores: Stores) {
    let first = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&first, 1, at(10)).await;
    let second = stores.connected(key("alice"), 2).await;
    assert_eq!((second.id, second.created_at, second.updated_at), (first.id, at(1), at(2)));
    assert_eq!((second.grant_id, second.generation, second.epoch), (grant_id(2), 2, epoch + 1));
    assert_eq!(second.state, CredentialState::Active { tokens: tokens(2), back_off: None });
}

async fn a_grant_completes_its_flow_or_is_not_stored(stores: Stores) {
    let grant = |n| NewGrant {
        condition: GrantCondition::Flow { id: flow_id(n), over: None },
        ..new_grant(key("alice"), n)
    };
    for n in [1, 2, 3] {
        stores.begun(&flow(key("alice"), n, 0)).await;
    }
    // Pending, cancelled, failed and unknown flows store nothing.
    assert_eq!(stores.credentials.store_grant(grant(1)).await.unwrap(), StoredGrant::ConditionFailed);
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Pending);
    stores.flows.cancel_flow(&key("alice").tenant, flow_id(2), at(1)).await.unwrap();
    stores.consume(3, at(1)).await;
    let failed = FlowStatus::Failed(FlowFailure::ExchangeFailed);
    stores.end(3, failed, at(2)).await;
    for n in [2, 3, 9] {
        assert_eq!(stores.credentials.store_grant(grant(n)).await.unwrap(), StoredGrant::ConditionFailed);
    }
    assert_eq!(stores.credentials.load(&key("alice")).await.unwrap(), None);
    assert_eq!(stores.flow(flow_id(2)).await.status, FlowStatus::Cancelled);
    assert_eq!(stores.flow(flow_id(3)).await.status, failed);
    // One that is being exchanged is completed together with the row.
    stores.consume(1, at(3)).await;
    let row = stores.stored(NewGrant { now: at(4), ..grant(1) }).await;
    assert_eq!(row.grant_id, grant_id(1));
    let done = stores.flow(flow_id(1)).await;
    assert_eq!((done.status, done.ended_at), (FlowStatus::Completed, Some(at(4))));
    // And only once.
    assert_eq!(stores.credentials.store_grant(grant(1)).await.unwrap(), StoredGrant::ConditionFailed);
    assert_eq!(stores.row(&key("alice")).await, row);
}

async fn a_consent_replaces_the_grant_that_it_was_compared_with_and_no_other(stores: Stores) {
    for n in 1..=3 {
        stores.begun(&flow(key("alice"), n, 0)).await;
        stores.consume(n, at(1)).await;
    }
    let store = async |n, over: Option<u32>| {
        let condition = GrantCondition::Flow { id: flow_id(n), over: over.map(grant_id) };
        let grant = NewGrant { condition, ..new_grant(key("alice"), n) };
        stores.credentials.store_grant(grant).await.unwrap() != StoredGrant::ConditionFailed
    };
    // There is none yet.
    assert!(!store(1, Some(1)).await);
    assert_eq!(stores.flow(flow_id(1)).await.status, FlowStatus::Exchanging, "nothing was changed");
    assert!(store(1, None).await);
    // Another consent was stored since it was looked at.
    assert!(!store(2, None).await && !store(2, Some(9)).await);
    assert_eq!(stores.flow(flow_id(2)).await.status, FlowStatus::Exchanging);
    assert!(store(2, Some(1)).await);
    // A refresh is no other grant, nor is a claim.
    let row = stores.row(&key("alice")).await;
    let epoch = stores.claimed(&row, 1, at(5)).await;
    stores.credentials.persist_lineage(lineage(&row, epoch, 12, at(6))).await.unwrap();
    stores.claimed(&stores.row(&key("alice")).await, 1, at(7)).await;
    assert!(store(3, Some(2)).await);
    // Revoked tokens are no tokens.
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(9))).await.unwrap();
    stores.begun(&flow(key("alice"), 6, 0)).await;
    stores.consume(6, at(10)).await;
    assert!(!store(6, Some(3)).await);
    assert!(store(6, None).await);
}

async fn an_import_does_not_replace_a_connection(stores: Stores) {
    let import = |n| NewGrant { condition: GrantCondition::NotConnected, ..new_grant(key("alice"), n) };
    let first = stores.stored(import(1)).await;
    assert_eq!(stores.credentials.store_grant(import(2)).await.unwrap(), StoredGrant::ConditionFailed);
    assert_eq!(stores.row(&key("alice")).await, first);
    let epoch = stores.claimed(&first, 1, at(10)).await;
    assert_eq!(stores.credentials.store_grant(import(2)).await.unwrap(), StoredGrant::ConditionFailed);
    let reason = ReauthReason::RefreshTokenRejected;
    let marked = stores.credentials.mark_needs_reauth(first.id, epoch, fingerprint(1), reason, at(11));
    assert!(marked.await.unwrap());
    // Neither a dead grant nor a revoked one is in the way.
    assert_eq!(stores.stored(import(2)).await.generation, 2);
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(12))).await.unwrap();
    assert_eq!(stores.stored(import(3)).await.generation, 3);
    // Another user's connection does not count.
    let bob = NewGrant { condition: GrantCondition::NotConnected, ..new_grant(key("bob"), 9) };
    assert_eq!(stores.stored(bob).await.generation, 1);
}

async fn keys_that_only_differ_in_where_the_parts_end_have_rows_of_their_own(stores: Stores) {
    let keys = [
        key_of("t", "p", "a", "g", "b:c"),
        key_of("t", "p", "a:b", "g", "c"),
        key_of("t", "p", "a|g|b", "g", "c"),
        key_of("t", "p", "A", "g", "b:c"),
        key_of("t2", "p", "a", "g", "b:c"),
        key_of("t", "p2", "a", "g", "b:c"),
        key_of("t", "p", "a", "g2", "b:c"),
        key_of("t", "p", "e\u{301}", "g", "default"),
        key_of("t", "p", "\u{e9}", "g", "default"),
        key_of("t", "p", "%", "g", "_"),
    ];
    for (n, key) in (1..).zip(&keys) {
        stores.connected(key.clone(), n).await;
    }
    for (n, key) in (1..).zip(&keys) {
        assert_eq!(stores.row(key).await.id, credential_id(n), "{key:?}");
    }
}

async fn a_claim_needs_the_row_as_it_was_read(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let good = claim_request(&row, 1, at(10));
    let mut wrong = vec![good.clone(); 4];
    wrong[0].id = credential_id(2);
    wrong[1].fingerprint = fingerprint(2);
    wrong[2].generation += 1;
    wrong[3].epoch += 1;
    for request in wrong {
        assert_eq!(stores.credentials.claim_for_refresh(request).await.unwrap(), None);
    }
    assert_eq!(stores.row(&key("alice")).await, row);
    assert_eq!(stores.credentials.claim_for_refresh(good.clone()).await.unwrap(), Some(row.epoch + 1));
    let claimed = stores.row(&key("alice")).await;
    assert_eq!((claimed.epoch, claimed.generation), (row.epoch + 1, row.generation));
    assert_eq!((claimed.updated_at, claimed.grant_id), (at(10), row.grant_id));
    let expected = CredentialState::Refreshing { tokens: tokens(1), claim: claim(1, at(10)), failures: 0 };
    assert_eq!(claimed.state, expected);
    // Taken: neither the old reading nor the new one claims it again.
    let again = claim_request(&claimed, 2, at(11));
    for request in [good, again] {
        assert_eq!(stores.credentials.claim_for_refresh(request).await.unwrap(), None);
    }
    // A row without a refresh token can't be claimed.
    let bare = NewGrant { tokens: StoredTokens { refresh: None, ..tokens(2) }, ..new_grant(key("bob"), 2) };
    let bare = stores.stored(bare).await;
    let request = token_broker::domain::ports::ClaimRequest {
        id: bare.id,
        fingerprint: fingerprint(2),
        generation: bare.generation,
        epoch: bare.epoch,
        claim: claim(1, at(10)),
        now: at(10),
    };
    assert_eq!(stores.credentials.claim_for_refresh(request).await.unwrap(), None);
}

async fn of_sixteen_claims_one_wins(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let tasks: Vec<_> = (1..=16)
        .map(|n| {
            let (credentials, request) = (stores.credentials.clone(), claim_request(&row, n, at(10)));
            tokio::spawn(async move { credentials.claim_for_refresh(request).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap() == Some(row.epoch + 1));
    }
    assert_eq!(won, 1);
    assert_eq!(stores.row(&key("alice")).await.epoch, row.epoch + 1);
}

async fn of_sixteen_settlers_one_wins(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    stores.claimed(&row, 1, at(10)).await;
    let row = stores.row(&key("alice")).await;
    let tasks: Vec<_> = (1..=16)
        .map(|n| {
            let (credentials, request) = (stores.credentials.clone(), claim_request(&row, n, at(310)));
            tokio::spawn(async move { credentials.claim_for_settle(request).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(task.await.unwrap() == Some(row.epoch + 1));
    }
    assert_eq!(won, 1);
}

async fn a_settling_claim_waits_for_its_time(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    // Not of a row that nobody has claimed.
    let request = claim_request(&row, 2, at(1000));
    assert_eq!(stores.credentials.claim_for_settle(request).await.unwrap(), None);
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let claimed = stores.row(&key("alice")).await;
    let early = claim_request(&claimed, 2, at(309));
    assert_eq!(stores.credentials.claim_for_settle(early).await.unwrap(), None);
    let mut stale = claim_request(&claimed, 2, at(310));
    stale.epoch -= 1;
    assert_eq!(stores.credentials.claim_for_settle(stale).await.unwrap(), None);
    assert_eq!(stores.row(&key("alice")).await, claimed);
    let due = claim_request(&claimed, 2, at(310));
    assert_eq!(stores.credentials.claim_for_settle(due).await.unwrap(), Some(epoch + 1));
    let settling = stores.row(&key("alice")).await;
    let expected = CredentialState::Refreshing { tokens: tokens(1), claim: claim(2, at(310)), failures: 0 };
    assert_eq!((settling.state, settling.epoch), (expected, epoch + 1));
}

async fn a_released_claim_backs_off(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let failures = [
        RefreshFailure::ProviderUnavailable,
        RefreshFailure::RateLimited,
        RefreshFailure::ClientRejected,
        RefreshFailure::OutcomeUnknown,
    ];
    let mut epoch = epoch;
    for (n, last) in (1..).zip(failures) {
        let back_off = BackOff { not_before: at(100), failures: n, last };
        let give_up =
            |epoch| stores.credentials.release_claim(release(row.id, epoch, 1, Some(back_off), at(20)));
        assert!(!give_up(epoch - 1).await.unwrap() && !give_up(epoch + 1).await.unwrap());
        assert!(give_up(epoch).await.unwrap());
        let free = stores.row(&key("alice")).await;
        let expected = CredentialState::Active { tokens: tokens(1), back_off: Some(back_off) };
        assert_eq!((&free.state, free.epoch, free.updated_at), (&expected, epoch, at(20)));
        assert!(!give_up(epoch).await.unwrap(), "released already");
        // The count outlives the next claim.
        epoch = stores.claimed(&free, 1, at(30)).await;
        let claimed = stores.row(&key("alice")).await.state;
        assert!(matches!(claimed, CredentialState::Refreshing { failures, .. } if failures == n));
    }
}

async fn a_dead_grant_needs_reauthorization(stores: Stores) {
    for (n, reason) in (1..).zip([ReauthReason::RefreshTokenRejected, ReauthReason::ExpiredNoRefresh]) {
        let row = stores.connected(key("alice"), n).await;
        let mark =
            |epoch, n| stores.credentials.mark_needs_reauth(row.id, epoch, fingerprint(n), reason, at(20));
        assert!(!mark(row.epoch, n).await.unwrap(), "nobody has claimed it");
        let epoch = stores.claimed(&row, 1, at(10)).await;
        assert!(!mark(epoch - 1, n).await.unwrap() && !mark(epoch, n + 5).await.unwrap());
        assert!(mark(epoch, n).await.unwrap());
        let dead = stores.row(&key("alice")).await;
        assert_eq!(dead.state, CredentialState::NeedsReauth { tokens: tokens(n), reason });
        assert_eq!((dead.epoch, dead.generation, dead.updated_at), (epoch, row.generation, at(20)));
        assert!(!mark(epoch, n).await.unwrap());
        assert_eq!(
            stores.credentials.claim_for_refresh(claim_request(&dead, 1, at(30))).await.unwrap(),
            None
        );
    }
}

async fn i8_a_row_that_has_moved_on_is_not_demoted(stores: Stores) {
    // The claim is old: somebody settled it and stored a new pair, and then its owner hears "invalid_grant".
    let row = stores.connected(key("alice"), 1).await;
    let first = stores.claimed(&row, 1, at(10)).await;
    let claimed = stores.row(&key("alice")).await;
    let settle = claim_request(&claimed, 2, at(310));
    let second = stores.credentials.claim_for_settle(settle).await.unwrap().unwrap();
    let reason = ReauthReason::RefreshTokenRejected;
    let mark = |epoch| stores.credentials.mark_needs_reauth(row.id, epoch, fingerprint(1), reason, at(320));
    assert!(!mark(first).await.unwrap(), "another claim is under way");
    stores.credentials.persist_lineage(lineage(&row, second, 2, at(315))).await.unwrap();
    let moved = stores.row(&key("alice")).await;
    assert!(!mark(first).await.unwrap() && !mark(second).await.unwrap());
    assert_eq!(stores.row(&key("alice")).await, moved);
    // Claimed once more: the epoch is right, the refresh token is not.
    let third = stores.claimed(&moved, 1, at(330)).await;
    assert!(!mark(third).await.unwrap());
}

async fn due_rows_come_oldest_first(stores: Stores) {
    for (n, claimed_at) in [(1, 30), (2, 10), (3, 20), (4, 500)] {
        let row = stores.connected(key(&format!("user {n}")), n).await;
        stores.claimed(&row, 1, at(claimed_at)).await;
    }
    stores.connected(key("idle"), 5).await;
    let due = |now, limit| stores.credentials.due_for_settle(at(now), limit);
    assert_eq!(due(309, 9).await.unwrap(), []);
    assert_eq!(due(310, 9).await.unwrap(), [credential_id(2)]);
    assert_eq!(due(400, 9).await.unwrap(), [2, 3, 1].map(credential_id));
    assert_eq!(due(400, 2).await.unwrap(), [2, 3].map(credential_id));
}

async fn claims_of_dead_owners_are_settled_early(stores: Stores) {
    for (n, owner) in [(1, 1), (2, 2), (3, 7)] {
        let row = stores.connected(key(&format!("user {n}")), n).await;
        stores.claimed(&row, owner, at(10)).await;
    }
    stores.connected(key("idle"), 4).await;
    assert_eq!(stores.credentials.settle_early(DeadOwners::AllBut(owner(7))).await.unwrap(), 2);
    // Not before the request that may be under way has ended; the living owner's claim is left alone.
    assert_eq!(stores.credentials.due_for_settle(at(39), 9).await.unwrap(), []);
    let mut due = stores.credentials.due_for_settle(at(40), 9).await.unwrap();
    due.sort();
    assert_eq!(due, [1, 2].map(credential_id));
    let dead = stores.row(&key("user 1")).await;
    assert!(matches!(dead.state, CredentialState::Refreshing { claim, .. } if claim.settle_at == at(40)));
    assert_eq!(
        stores.credentials.settle_early(DeadOwners::AllBut(owner(7))).await.unwrap(),
        0,
        "done already"
    );
    // A later start changes nothing of a claim that settles earlier.
    assert_eq!(stores.credentials.settle_early(DeadOwners::AllBut(owner(8))).await.unwrap(), 1);
}
