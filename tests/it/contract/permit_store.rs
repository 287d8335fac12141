//! The contract of `PermitStore`.

use std::time::Duration;

use token_broker::domain::coordination::{Permit, PermitRequest, Successor, Tombstone};
use token_broker::domain::key::ClaimOwner;
use token_broker::domain::ports::LineageWrite;

use super::coordination::{Coordination, hardly_more, on_all};
use super::samples::{at, credential_id, fingerprint, grant_id, owner, scopes, tokens};

on_all!(
    answers_a_ping,
    of_a_hundred_one_takes_the_permit,
    a_held_permit_says_who_and_for_how_long,
    an_owners_own_permit_is_held_too,
    a_permit_ends_after_its_lifetime,
    a_dead_owners_permit_is_taken_over_and_no_other,
    of_a_hundred_one_takes_over,
    permits_of_different_tokens_and_credentials_are_apart,
    a_dropped_permit_is_free,
    nobody_drops_what_is_not_theirs,
    a_successor_is_answered_whole,
    a_successor_takes_the_place_of_any_permit,
    a_successor_that_the_row_has_already_is_no_news,
    at_a_provider_that_does_not_rotate_a_token_follows_itself,
    an_older_successor_never_replaces_a_younger,
    of_many_successors_the_youngest_stays,
    a_successor_of_another_grant_is_none,
    a_successor_stands_for_a_day,
    a_stored_successor_stands_for_a_quarter_of_an_hour,
    only_the_stored_epoch_is_forgotten_early,
    a_revoked_grant_is_buried_for_a_day,
    another_grants_tombstone_does_not_matter,
    a_tombstone_is_stronger_than_permit_and_successor,
    a_dead_owner_is_known_for_a_day,
);

const MINUTE: Duration = Duration::from_mins(1);
const ALMOST_A_DAY: Duration = Duration::from_mins(24 * 60 - 1);

/// Owner `n` asks for token 1 of credential 1 with grant 1, whose row has it from a consent.
fn request(n: u32) -> PermitRequest {
    PermitRequest {
        credential: credential_id(1),
        grant: grant_id(1),
        token: fingerprint(1),
        row_epoch: 0,
        owner: owner(n),
        lifetime: MINUTE * 5,
        takeover: None,
    }
}

/// Pair `n`, obtained with token 1 under an epoch.
fn successor(n: u32, epoch: i64) -> Successor {
    let mut tokens = tokens(n);
    tokens.scopes = scopes(&["a", "b"]);
    tokens.next_refresh_at = Some(at(5));
    let refresh = tokens.refresh.as_mut().unwrap();
    (refresh.parent_fingerprint, refresh.epoch) = (Some(fingerprint(1)), epoch);
    let write = LineageWrite {
        id: credential_id(1),
        grant_id: grant_id(1),
        epoch,
        parent_fingerprint: fingerprint(1),
        tokens,
        now: at(10),
    };
    Successor { write, mac: [n.to_be_bytes()[3]; 32] }
}

const TOMBSTONE: Tombstone = Tombstone([7; 32]);

async fn take(store: &Coordination, request: PermitRequest) -> Permit {
    store.permits.take(request).await.unwrap()
}

async fn kept(store: &Coordination) -> Option<Successor> {
    store.permits.successor(credential_id(1), fingerprint(1)).await.unwrap()
}

fn holder(permit: &Permit) -> ClaimOwner {
    match permit {
        Permit::Held { owner, .. } => *owner,
        other => panic!("not held: {other:?}"),
    }
}

/// All ask at one time; answers who got it.
async fn race(store: &Coordination, takeover: Option<ClaimOwner>) -> Vec<ClaimOwner> {
    let tasks: Vec<_> = (100..200)
        .map(|n| {
            let (store, request) = (store.clone(), PermitRequest { takeover, ..request(n) });
            tokio::spawn(async move { (request.owner, take(&store, request).await) })
        })
        .collect();
    let mut winners = Vec::new();
    for task in tasks {
        let (owner, permit) = task.await.unwrap();
        if permit == Permit::Taken {
            winners.push(owner);
        }
    }
    winners
}

async fn answers_a_ping(store: Coordination) {
    store.permits.ping().await.unwrap();
}

async fn of_a_hundred_one_takes_the_permit(store: Coordination) {
    let winners = race(&store, None).await;
    assert_eq!(winners.len(), 1);
    assert_eq!(holder(&take(&store, request(1)).await), winners[0]);
}

async fn a_held_permit_says_who_and_for_how_long(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    for minutes in [0, 1, 2] {
        match take(&store, request(2)).await {
            Permit::Held { owner: held_by, age } => {
                assert_eq!(held_by, owner(1));
                assert!(hardly_more(age, MINUTE * minutes), "{age:?}");
            }
            other => panic!("not held: {other:?}"),
        }
        store.pass(MINUTE);
    }
}

async fn an_owners_own_permit_is_held_too(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    store.pass(MINUTE);
    for n in [1, 2] {
        match take(&store, request(n)).await {
            Permit::Held { owner: by, age } => {
                assert_eq!(by, owner(1));
                assert!(hardly_more(age, MINUTE), "{age:?}");
            }
            other => panic!("not held: {other:?}"),
        }
    }
}

async fn a_permit_ends_after_its_lifetime(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    store.pass(Duration::from_secs(280));
    assert_eq!(holder(&take(&store, request(2)).await), owner(1));
    store.pass(Duration::from_secs(20));
    assert_eq!(take(&store, request(2)).await, Permit::Taken);
}

async fn a_dead_owners_permit_is_taken_over_and_no_other(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    let from = |n, dead| PermitRequest { takeover: Some(owner(dead)), ..request(n) };
    assert_eq!(holder(&take(&store, from(2, 3)).await), owner(1));
    assert_eq!(take(&store, from(2, 1)).await, Permit::Taken);
    assert_eq!(holder(&take(&store, from(3, 1)).await), owner(2));
}

async fn of_a_hundred_one_takes_over(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    assert_eq!(race(&store, Some(owner(1))).await.len(), 1);
}

async fn permits_of_different_tokens_and_credentials_are_apart(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    let other_token = PermitRequest { token: fingerprint(2), ..request(2) };
    let other_row = PermitRequest { credential: credential_id(2), ..request(2) };
    assert_eq!(take(&store, other_token).await, Permit::Taken);
    assert_eq!(take(&store, other_row).await, Permit::Taken);
}

async fn a_dropped_permit_is_free(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    store.permits.drop_permit(credential_id(1), fingerprint(1), owner(1)).await.unwrap();
    assert_eq!(take(&store, request(2)).await, Permit::Taken);
}

async fn nobody_drops_what_is_not_theirs(store: Coordination) {
    let drop_of = |n| store.permits.drop_permit(credential_id(1), fingerprint(1), owner(n));
    // Nothing there: nothing to do.
    drop_of(1).await.unwrap();
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    drop_of(2).await.unwrap();
    assert_eq!(holder(&take(&store, request(2)).await), owner(1));
    store.permits.keep_successor(&successor(2, 1)).await.unwrap();
    drop_of(1).await.unwrap();
    assert_eq!(kept(&store).await, Some(successor(2, 1)));
}

async fn a_successor_is_answered_whole(store: Coordination) {
    assert_eq!(kept(&store).await, None);
    for n in [2, 3] {
        let mut pair = successor(n, i64::from(n));
        if n == 3 {
            let tokens = &mut pair.write.tokens;
            tokens.refresh = None;
            tokens.access_life.expires_at = None;
            tokens.access_sealed.0 = (0..=255).collect();
        }
        store.permits.keep_successor(&pair).await.unwrap();
        assert_eq!(kept(&store).await, Some(pair.clone()));
        assert_eq!(take(&store, request(1)).await, Permit::Successor(Box::new(pair)));
    }
}

async fn a_successor_takes_the_place_of_any_permit(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    assert_eq!(kept(&store).await, None, "a permit is no successor");
    store.permits.keep_successor(&successor(2, 1)).await.unwrap();
    for takeover in [None, Some(owner(1))] {
        let answer = take(&store, PermitRequest { takeover, ..request(1) }).await;
        assert_eq!(answer, Permit::Successor(Box::new(successor(2, 1))));
    }
}

async fn a_successor_that_the_row_has_already_is_no_news(store: Coordination) {
    store.permits.keep_successor(&successor(2, 7)).await.unwrap();
    let at_epoch = |row_epoch| PermitRequest { row_epoch, ..request(1) };
    assert!(matches!(take(&store, at_epoch(6)).await, Permit::Successor(_)));
    assert_eq!(take(&store, at_epoch(7)).await, Permit::Taken);
    assert_eq!(kept(&store).await, None);
}

async fn at_a_provider_that_does_not_rotate_a_token_follows_itself(store: Coordination) {
    for epoch in 1..5 {
        // The row has the token from the refresh before.
        let asked = PermitRequest { row_epoch: epoch - 1, ..request(1) };
        assert_eq!(take(&store, asked).await, Permit::Taken, "epoch {epoch}");
        let mut pair = successor(1, epoch);
        pair.write.tokens.refresh.as_mut().unwrap().fingerprint = fingerprint(1);
        store.permits.keep_successor(&pair).await.unwrap();
        assert_eq!(take(&store, asked).await, Permit::Successor(Box::new(pair)));
        store.permits.successor_stored(credential_id(1), fingerprint(1), epoch).await.unwrap();
    }
}

async fn an_older_successor_never_replaces_a_younger(store: Coordination) {
    store.permits.keep_successor(&successor(2, 10)).await.unwrap();
    store.permits.keep_successor(&successor(3, 9)).await.unwrap();
    assert_eq!(kept(&store).await, Some(successor(2, 10)));
    // The same claim again, and a later one.
    store.permits.keep_successor(&successor(3, 10)).await.unwrap();
    assert_eq!(kept(&store).await, Some(successor(3, 10)));
    store.permits.keep_successor(&successor(4, 11)).await.unwrap();
    assert_eq!(kept(&store).await, Some(successor(4, 11)));
}

async fn of_many_successors_the_youngest_stays(store: Coordination) {
    let tasks: Vec<_> = (1..=50_u32)
        .map(|n| {
            let permits = store.permits.clone();
            // Neither up nor down.
            let n = n * 23 % 53;
            tokio::spawn(async move { permits.keep_successor(&successor(n, i64::from(n))).await.unwrap() })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let youngest = (1..=50).map(|n| n * 23 % 53).max().unwrap();
    assert_eq!(kept(&store).await.unwrap().write.epoch, youngest);
}

async fn a_successor_of_another_grant_is_none(store: Coordination) {
    // A provider may give out the same token under a new consent, whose row begins at epoch 0.
    store.permits.keep_successor(&successor(2, 7)).await.unwrap();
    let new_consent = PermitRequest { grant: grant_id(2), ..request(1) };
    assert_eq!(take(&store, new_consent).await, Permit::Taken);
}

async fn a_successor_stands_for_a_day(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    store.permits.keep_successor(&successor(2, 1)).await.unwrap();
    store.pass(ALMOST_A_DAY);
    assert_eq!(kept(&store).await, Some(successor(2, 1)));
    store.pass(MINUTE);
    assert_eq!(kept(&store).await, None);
    assert_eq!(take(&store, request(2)).await, Permit::Taken);
}

async fn a_stored_successor_stands_for_a_quarter_of_an_hour(store: Coordination) {
    store.permits.keep_successor(&successor(2, 1)).await.unwrap();
    store.permits.successor_stored(credential_id(1), fingerprint(1), 1).await.unwrap();
    store.pass(MINUTE * 14);
    assert!(matches!(take(&store, request(1)).await, Permit::Successor(_)));
    store.pass(MINUTE);
    assert_eq!(kept(&store).await, None);
    // Nothing there, or a permit: nothing to do.
    store.permits.successor_stored(credential_id(1), fingerprint(1), 1).await.unwrap();
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    store.permits.successor_stored(credential_id(1), fingerprint(1), 1).await.unwrap();
    assert_eq!(holder(&take(&store, request(2)).await), owner(1));
}

async fn only_the_stored_epoch_is_forgotten_early(store: Coordination) {
    store.permits.keep_successor(&successor(2, 12)).await.unwrap();
    for epoch in [1, 11, 13] {
        store.permits.successor_stored(credential_id(1), fingerprint(1), epoch).await.unwrap();
    }
    store.pass(MINUTE * 16);
    assert_eq!(kept(&store).await, Some(successor(2, 12)));
}

async fn a_revoked_grant_is_buried_for_a_day(store: Coordination) {
    store.permits.bury(credential_id(1), grant_id(1), TOMBSTONE).await.unwrap();
    assert_eq!(take(&store, request(1)).await, Permit::Buried(TOMBSTONE));
    store.pass(ALMOST_A_DAY);
    assert_eq!(take(&store, request(1)).await, Permit::Buried(TOMBSTONE));
    store.pass(MINUTE);
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
}

async fn another_grants_tombstone_does_not_matter(store: Coordination) {
    store.permits.bury(credential_id(1), grant_id(1), TOMBSTONE).await.unwrap();
    let next = PermitRequest { grant: grant_id(2), ..request(1) };
    assert_eq!(take(&store, next).await, Permit::Taken);
    // And when that one is revoked, too, both are.
    store.permits.bury(credential_id(1), grant_id(2), TOMBSTONE).await.unwrap();
    assert_eq!(take(&store, next).await, Permit::Buried(TOMBSTONE));
    assert_eq!(take(&store, request(1)).await, Permit::Buried(TOMBSTONE));
}

async fn a_tombstone_is_stronger_than_permit_and_successor(store: Coordination) {
    assert_eq!(take(&store, request(1)).await, Permit::Taken);
    store.permits.bury(credential_id(1), grant_id(1), TOMBSTONE).await.unwrap();
    assert_eq!(take(&store, request(1)).await, Permit::Buried(TOMBSTONE));
    store.permits.keep_successor(&successor(2, 1)).await.unwrap();
    let heir = PermitRequest { takeover: Some(owner(1)), ..request(1) };
    assert_eq!(take(&store, heir).await, Permit::Buried(TOMBSTONE));
    // What was obtained has to be revoked: it can be found.
    assert_eq!(kept(&store).await, Some(successor(2, 1)));
}

async fn a_dead_owner_is_known_for_a_day(store: Coordination) {
    assert!(!store.permits.is_dead(owner(1)).await.unwrap());
    store.permits.owner_died(owner(1)).await.unwrap();
    store.pass(ALMOST_A_DAY);
    assert!(store.permits.is_dead(owner(1)).await.unwrap());
    assert!(!store.permits.is_dead(owner(2)).await.unwrap());
    store.pass(MINUTE);
    assert!(!store.permits.is_dead(owner(1)).await.unwrap());
}
