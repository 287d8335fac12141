//! The contract of the background's methods: `reserve_due`, `reschedule`, `mark_used`, and `settle_early` for one owner.

use std::collections::BTreeSet;

use jiff::Timestamp;
use token_broker::domain::credential::{BackOff, Credential, ReauthReason, RefreshFailure, StoredTokens};
use token_broker::domain::key::{CredentialId, CredentialKey};
use token_broker::domain::ports::{DeadOwners, DueCredential, DueRequest, NewGrant};

use super::samples::{
    at, claim_request, credential_id, fingerprint, key, key_of, lineage, new_grant, owner, provider, release,
    revoke_write, tokens,
};
use super::{Stores, contract};

contract!(
    due_rows_are_reserved_the_longest_due_first,
    a_reserved_row_comes_again_when_its_reservation_ends,
    callers_at_one_time_get_rows_of_their_own,
    only_active_rows_are_due,
    a_refresh_sets_when_the_next_is_due,
    a_row_is_rescheduled_while_it_is_active,
    a_use_is_told_and_only_moves_forward,
    the_claims_of_one_dead_owner_are_settled_early,
);

fn grant_due(key: CredentialKey, n: u32, due: Option<Timestamp>) -> NewGrant {
    NewGrant { tokens: StoredTokens { next_refresh_at: due, ..tokens(n) }, ..new_grant(key, n) }
}

impl Stores {
    async fn due(&self, user: &str, n: u32, due: i64) -> Credential {
        self.stored(grant_due(key(user), n, Some(at(due)))).await
    }
}

async fn reserve(stores: &Stores, now: i64, limit: u32) -> Vec<DueCredential> {
    let request = DueRequest {
        provider: provider("google"),
        configuration: None,
        now: at(now),
        until: at(now + 60),
        limit,
    };
    stores.credentials.reserve_due(request).await.unwrap()
}

async fn reserved(stores: &Stores, now: i64, limit: u32) -> Vec<CredentialId> {
    reserve(stores, now, limit).await.iter().map(|due| due.id).collect()
}

/// What is in a set, whatever order it came in.
fn sorted(mut ids: Vec<CredentialId>) -> Vec<CredentialId> {
    ids.sort();
    ids
}

async fn due_rows_are_reserved_the_longest_due_first(stores: Stores) {
    for (n, due) in [(1, 100), (2, 300), (3, 200), (4, 400)] {
        stores.due(&format!("user {n}"), n, due).await;
    }
    stores.stored(grant_due(key("never"), 5, None)).await;
    stores.stored(grant_due(key_of("acme", "github", "alice", "repo", "default"), 6, Some(at(50)))).await;
    // Another tenant's is as due as any.
    stores.stored(grant_due(key_of("other", "google", "alice", "mail", "default"), 7, Some(at(350)))).await;
    assert_eq!(reserve(&stores, 99, 9).await, []);
    let first = DueCredential { id: credential_id(1), used_at: at(1), due_at: at(100) };
    assert_eq!(reserve(&stores, 100, 9).await, [first], "due at its time, not before");
    assert_eq!(
        sorted(reserved(&stores, 390, 2).await),
        [1, 3].map(credential_id),
        "1 is due again since 160"
    );
    assert_eq!(sorted(reserved(&stores, 390, 2).await), [2, 7].map(credential_id));
    assert_eq!(reserved(&stores, 400, 0).await, []);
    assert_eq!(reserved(&stores, 400, 9).await, [credential_id(4)]);
}

async fn a_reserved_row_comes_again_when_its_reservation_ends(stores: Stores) {
    let row = stores.due("alice", 1, 100).await;
    assert_eq!(reserved(&stores, 100, 9).await, [row.id]);
    let pushed = stores.row(&row.key).await;
    assert_eq!(pushed.tokens().unwrap().next_refresh_at, Some(at(160)));
    assert_eq!((pushed.epoch, pushed.generation), (row.epoch, row.generation), "nothing else is changed");
    assert_eq!(reserved(&stores, 159, 9).await, []);
    let again = DueCredential { id: row.id, used_at: at(1), due_at: at(160) };
    assert_eq!(reserve(&stores, 160, 9).await, [again], "whoever reserved it may be dead");
}

async fn callers_at_one_time_get_rows_of_their_own(stores: Stores) {
    for n in 1..=40 {
        stores.due(&format!("user {n}"), n, i64::from(n)).await;
    }
    let mut all: Vec<CredentialId> = Vec::new();
    // One caller may find rows locked by another and get fewer than there are: some rounds.
    for _ in 0..40 {
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let stores = stores.clone();
                tokio::spawn(async move { reserved(&stores, 1000, 3).await })
            })
            .collect();
        for task in tasks {
            let ids = task.await.unwrap();
            assert!(ids.len() <= 3, "the limit holds");
            all.extend(ids);
        }
        if all.len() >= 40 {
            break;
        }
    }
    assert_eq!(all.len(), 40);
    assert_eq!(all.into_iter().collect::<BTreeSet<_>>().len(), 40, "no row was given out twice");
}

async fn only_active_rows_are_due(stores: Stores) {
    let mut rows = Vec::new();
    for n in 1..=4 {
        rows.push(stores.due(&format!("user {n}"), n, 100).await);
    }
    // 1 is being refreshed, 2 needs a consent, 3 is revoked, 4 backs off.
    stores.claimed(&rows[0], 1, at(110)).await;
    let epoch = stores.claimed(&rows[1], 1, at(110)).await;
    let reason = ReauthReason::RefreshTokenRejected;
    let marked = stores.credentials.mark_needs_reauth(rows[1].id, epoch, fingerprint(2), reason, at(111));
    assert!(marked.await.unwrap());
    stores.credentials.revoke_with_outbox(revoke_write(&rows[2].key, None, at(110))).await.unwrap();
    let epoch = stores.claimed(&rows[3], 1, at(110)).await;
    let back_off = BackOff { not_before: at(500), failures: 1, last: RefreshFailure::RateLimited };
    let released = stores.credentials.release_claim(release(rows[3].id, epoch, 1, Some(back_off), at(111)));
    assert!(released.await.unwrap());
    assert_eq!(reserved(&stores, 499, 9).await, [], "the back-off is waited for");
    assert_eq!(reserved(&stores, 500, 9).await, [rows[3].id]);
    // One that is never refreshed ahead does not begin to be by a back-off.
    let row = stores.stored(grant_due(key("never"), 5, None)).await;
    let epoch = stores.claimed(&row, 1, at(510)).await;
    assert!(
        stores.credentials.release_claim(release(row.id, epoch, 1, Some(back_off), at(511))).await.unwrap()
    );
    assert_eq!(stores.row(&row.key).await.tokens().unwrap().next_refresh_at, None);
}

async fn a_refresh_sets_when_the_next_is_due(stores: Stores) {
    let row = stores.due("alice", 1, 100).await;
    let epoch = stores.claimed(&row, 1, at(110)).await;
    let mut write = lineage(&row, epoch, 2, at(111));
    write.tokens.next_refresh_at = Some(at(700));
    stores.credentials.persist_lineage(write).await.unwrap();
    assert_eq!(reserved(&stores, 699, 9).await, []);
    assert_eq!(reserved(&stores, 700, 9).await, [row.id]);
    // So does a new consent.
    stores.stored(grant_due(key("alice"), 3, None)).await;
    assert_eq!(reserved(&stores, 9999, 9).await, []);
}

async fn a_row_is_rescheduled_while_it_is_active(stores: Stores) {
    let row = stores.due("alice", 1, 100).await;
    let store = &stores.credentials;
    store.reschedule(row.id, Some(at(900))).await.unwrap();
    assert_eq!(reserved(&stores, 899, 9).await, []);
    assert_eq!(reserved(&stores, 900, 9).await, [row.id]);
    store.reschedule(row.id, None).await.unwrap();
    assert_eq!(reserved(&stores, 9999, 9).await, []);
    store.reschedule(credential_id(9), Some(at(1))).await.unwrap();
    // Somebody is refreshing it: that decides.
    let claimed = stores.claimed(&stores.row(&row.key).await, 1, at(910)).await;
    store.reschedule(row.id, Some(at(1))).await.unwrap();
    assert_eq!(stores.row(&row.key).await.tokens().unwrap().next_refresh_at, None);
    assert_eq!(stores.row(&row.key).await.epoch, claimed);
}

async fn a_use_is_told_and_only_moves_forward(stores: Stores) {
    for n in 1..=3 {
        stores.due(&format!("user {n}"), n, 100).await;
    }
    let store = &stores.credentials;
    store.mark_used(&[1, 2, 9].map(credential_id), at(50)).await.unwrap();
    store.mark_used(&[credential_id(2)], at(40)).await.unwrap();
    store.mark_used(&[credential_id(1)], at(60)).await.unwrap();
    store.mark_used(&[], at(70)).await.unwrap();
    let mut due = reserve(&stores, 100, 9).await;
    due.sort_by_key(|due| due.id);
    let told: Vec<_> = due.iter().map(|due| (due.id, due.used_at)).collect();
    assert_eq!(told, [(1, 60), (2, 50), (3, 3)].map(|(n, used)| (credential_id(n), at(used))));
    let row = stores.row(&key("user 1")).await;
    assert_eq!((row.epoch, row.updated_at), (1, at(1)), "a use changes nothing that anybody waits for");
}

async fn the_claims_of_one_dead_owner_are_settled_early(stores: Stores) {
    for (n, claimant) in [(1, 1), (2, 2), (3, 1)] {
        let row = stores.connected(key(&format!("user {n}")), n).await;
        stores.claimed(&row, claimant, at(10)).await;
    }
    stores.connected(key("idle"), 4).await;
    let store = &stores.credentials;
    assert_eq!(store.settle_early(DeadOwners::One(owner(3))).await.unwrap(), 0, "it had no claims");
    assert_eq!(store.settle_early(DeadOwners::One(owner(1))).await.unwrap(), 2);
    assert_eq!(store.settle_early(DeadOwners::One(owner(1))).await.unwrap(), 0, "done already");
    // Not before the request that may be under way has ended; the living owner's claim is left alone.
    assert_eq!(store.due_for_settle(at(39), 9).await.unwrap(), []);
    assert_eq!(sorted(store.due_for_settle(at(40), 9).await.unwrap()), [1, 3].map(credential_id));
    let claimed = stores.row(&key("user 1")).await;
    let settled = store.claim_for_settle(claim_request(&claimed, 2, at(40))).await.unwrap();
    assert_eq!(settled, Some(claimed.epoch + 1));
    // The settler lives: what the dead one's end allowed is over.
    assert_eq!(store.settle_early(DeadOwners::One(owner(1))).await.unwrap(), 0);
    assert_eq!(store.due_for_settle(at(40), 9).await.unwrap(), [credential_id(3)]);
}
