//! The contract of `CredentialStore::persist_lineage` (step 8 of a refresh).

use token_broker::domain::credential::{BackOff, CredentialState, ReauthReason, RefreshFailure};
use token_broker::domain::ports::{ClaimRequest, LineageWrite, Persisted, RevocationOutcome};

use super::samples::{
    at, claim_request, credential_id, fingerprint, grant_id, key, lineage, new_grant, outbox_id, release,
    revoke_write, tokens,
};
use super::{Stores, contract};

contract!(
    a_descendant_of_the_row_is_stored,
    an_answer_without_a_refresh_token_keeps_the_old_one,
    a_repeated_write_is_already_stored,
    i2_an_older_claim_never_replaces_a_newer_pair,
    i3_revoke_beats_a_refresh_under_way,
    another_grant_supersedes_a_refresh_under_way,
    i3_a_new_consent_does_not_make_a_revoked_grant_good,
    i7_an_answer_is_kept_while_its_parent_is_in_the_row,
    i7_a_brother_of_the_stored_pair_replaces_it,
    i7_the_epoch_of_a_claim_that_the_database_has_lost_is_not_given_again,
    a_stranger_is_not_stored,
    of_sixteen_answers_under_one_claim_one_is_stored,
);

fn stored(result: Persisted) -> token_broker::domain::credential::Credential {
    match result {
        Persisted::Stored(row) => *row,
        other => panic!("not stored: {other:?}"),
    }
}

async fn a_descendant_of_the_row_is_stored(stores: Stores) {
    let mut row = stores.connected(key("alice"), 1).await;
    // After a failure, so that the back-off has something to lose.
    let epoch = stores.claimed(&row, 1, at(5)).await;
    let back_off = BackOff { not_before: at(9), failures: 3, last: RefreshFailure::RateLimited };
    assert!(
        stores.credentials.release_claim(release(row.id, epoch, 1, Some(back_off), at(6))).await.unwrap()
    );
    row = stores.row(&key("alice")).await;
    for n in 2..5 {
        let epoch = stores.claimed(&row, 1, at(10)).await;
        // The first success forgets the failures.
        let expected = if n == 2 { 3 } else { 0 };
        let claimed = stores.row(&key("alice")).await.state;
        assert!(matches!(claimed, CredentialState::Refreshing { failures, .. } if failures == expected));
        let write = lineage(&row, epoch, n, at(11));
        let next = stored(stores.credentials.persist_lineage(write.clone()).await.unwrap());
        assert_eq!(next.state, CredentialState::Active { tokens: write.tokens, back_off: None });
        assert_eq!((next.generation, next.epoch), (row.generation + 1, epoch), "n = {n}");
        assert_eq!((next.id, next.grant_id, next.created_at), (row.id, row.grant_id, row.created_at));
        assert_eq!(next.updated_at, at(11));
        assert_eq!(stores.row(&key("alice")).await, next);
        row = next;
    }
    let refresh = row.tokens().unwrap().refresh.as_ref().unwrap();
    assert_eq!((refresh.fingerprint, refresh.parent_fingerprint), (fingerprint(4), Some(fingerprint(3))));
    assert_eq!(refresh.epoch, row.epoch);
}

async fn an_answer_without_a_refresh_token_keeps_the_old_one(stores: Stores) {
    // As the application writes it: the old token once more, with itself as its parent.
    let mut row = stores.connected(key("alice"), 1).await;
    for n in 2..5 {
        let epoch = stores.claimed(&row, 1, at(10)).await;
        let mut write = lineage(&row, epoch, n, at(11));
        let kept = row.tokens().unwrap().refresh.clone().unwrap();
        let refresh = write.tokens.refresh.as_mut().unwrap();
        (refresh.sealed, refresh.fingerprint) = (kept.sealed, kept.fingerprint);
        row = stored(stores.credentials.persist_lineage(write.clone()).await.unwrap());
        assert_eq!(row.tokens(), Some(&write.tokens));
        let again = stores.credentials.persist_lineage(write).await.unwrap();
        assert!(matches!(again, Persisted::AlreadyStored(_)), "{again:?}");
    }
    // And if it is left out after all, the row's own stays.
    let epoch = stores.claimed(&row, 1, at(20)).await;
    let mut write = lineage(&row, epoch, 9, at(21));
    write.tokens.refresh = None;
    let next = stored(stores.credentials.persist_lineage(write).await.unwrap());
    let refresh = next.tokens().unwrap().refresh.clone().unwrap();
    assert_eq!((refresh.fingerprint, refresh.epoch), (fingerprint(1), epoch));
    assert_eq!(refresh.sealed, tokens(1).refresh.unwrap().sealed);
}

async fn a_repeated_write_is_already_stored(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let write = lineage(&row, epoch, 2, at(11));
    let first = stored(stores.credentials.persist_lineage(write.clone()).await.unwrap());
    let again = stores.credentials.persist_lineage(write.clone()).await.unwrap();
    assert_eq!(again, Persisted::AlreadyStored(Box::new(first.clone())));
    // Also while the next refresh is under way.
    stores.claimed(&first, 1, at(20)).await;
    let claimed = stores.row(&key("alice")).await;
    let again = stores.credentials.persist_lineage(write).await.unwrap();
    assert_eq!(again, Persisted::AlreadyStored(Box::new(claimed)));
}

async fn i2_an_older_claim_never_replaces_a_newer_pair(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let old = stores.claimed(&row, 1, at(10)).await;
    let claimed = stores.row(&key("alice")).await;
    let settle = claim_request(&claimed, 2, at(310));
    let new = stores.credentials.claim_for_settle(settle).await.unwrap().unwrap();
    let newer = stored(stores.credentials.persist_lineage(lineage(&row, new, 3, at(311))).await.unwrap());
    let late = stores.credentials.persist_lineage(lineage(&row, old, 2, at(312))).await.unwrap();
    assert_eq!(late, Persisted::Superseded);
    assert_eq!(stores.row(&key("alice")).await, newer);
    // The same with a provider that does not rotate: the older access token does not come back.
    let row = stores.connected(key("bob"), 5).await;
    let old = stores.claimed(&row, 1, at(10)).await;
    let settle = claim_request(&stores.row(&key("bob")).await, 2, at(310));
    let new = stores.credentials.claim_for_settle(settle).await.unwrap().unwrap();
    let unrotated = |epoch, n| {
        let mut write = lineage(&row, epoch, n, at(311));
        write.tokens.refresh.as_mut().unwrap().fingerprint = fingerprint(5);
        write
    };
    let newer = stored(stores.credentials.persist_lineage(unrotated(new, 7)).await.unwrap());
    let late = stores.credentials.persist_lineage(unrotated(old, 6)).await.unwrap();
    assert_eq!(late, Persisted::Superseded);
    assert_eq!(stores.row(&key("bob")).await, newer);
}

async fn i3_revoke_beats_a_refresh_under_way(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    stores
        .credentials
        .revoke_with_outbox(revoke_write(&key("alice"), Some(outbox_id(1)), at(11)))
        .await
        .unwrap();
    let revoked = stores.row(&key("alice")).await;
    assert_eq!((&revoked.state, revoked.epoch), (&CredentialState::Revoked, epoch + 1));
    let late = lineage(&row, epoch, 2, at(12));
    assert_eq!(stores.credentials.persist_lineage(late.clone()).await.unwrap(), Persisted::Revoked);
    let back_off = BackOff { not_before: at(20), failures: 1, last: RefreshFailure::OutcomeUnknown };
    assert!(
        !stores.credentials.release_claim(release(row.id, epoch, 1, Some(back_off), at(12))).await.unwrap()
    );
    let reason = ReauthReason::RefreshTokenRejected;
    let marked = stores.credentials.mark_needs_reauth(row.id, epoch, fingerprint(1), reason, at(12));
    assert!(!marked.await.unwrap());
    let claim = ClaimRequest { epoch: revoked.epoch, ..claim_request(&row, 1, at(1000)) };
    assert_eq!(stores.credentials.claim_for_refresh(claim.clone()).await.unwrap(), None);
    assert_eq!(stores.credentials.claim_for_settle(claim).await.unwrap(), None);
    assert_eq!(stores.row(&key("alice")).await, revoked);
    // A row that is not there at all: what was obtained is nobody's.
    let gone = LineageWrite { id: credential_id(99), ..late };
    assert_eq!(stores.credentials.persist_lineage(gone).await.unwrap(), Persisted::Revoked);
}

async fn another_grant_supersedes_a_refresh_under_way(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let renewed = stores.connected(key("alice"), 5).await;
    let late = lineage(&row, epoch, 2, at(12));
    assert_eq!(stores.credentials.persist_lineage(late.clone()).await.unwrap(), Persisted::Superseded);
    assert_eq!(stores.row(&key("alice")).await, renewed);
    // Even with a token that the new grant happens to have, and after that was revoked as well.
    let mut same_token = late.clone();
    same_token.tokens.refresh = renewed.tokens().unwrap().refresh.clone();
    same_token.parent_fingerprint = fingerprint(5);
    assert_eq!(stores.credentials.persist_lineage(same_token).await.unwrap(), Persisted::Superseded);
    stores.credentials.revoke_with_outbox(revoke_write(&key("alice"), None, at(13))).await.unwrap();
    assert_eq!(stores.credentials.persist_lineage(late).await.unwrap(), Persisted::Superseded);
}

async fn i3_a_new_consent_does_not_make_a_revoked_grant_good(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    stores
        .credentials
        .revoke_with_outbox(revoke_write(&key("alice"), Some(outbox_id(1)), at(11)))
        .await
        .unwrap();
    let renewed = stores.connected(key("alice"), 5).await;
    let late = lineage(&row, epoch, 2, at(12));
    // Also when the provider has been told of the old token.
    for outcome in [None, Some(RevocationOutcome::Revoked)] {
        if let Some(outcome) = outcome {
            stores.outbox.finish_revocation(outbox_id(1), outcome, at(12)).await.unwrap();
        }
        let answer = stores.credentials.persist_lineage(late.clone()).await.unwrap();
        assert_eq!(answer, Persisted::Revoked, "{outcome:?}");
        assert_eq!(stores.row(&key("alice")).await, renewed);
    }
}

async fn i7_an_answer_is_kept_while_its_parent_is_in_the_row(stores: Stores) {
    // Claimed by somebody else meanwhile: the answer of the first claim still counts.
    let row = stores.connected(key("alice"), 1).await;
    let first = stores.claimed(&row, 1, at(10)).await;
    let settle = claim_request(&stores.row(&key("alice")).await, 2, at(310));
    let second = stores.credentials.claim_for_settle(settle).await.unwrap().unwrap();
    let kept = stored(stores.credentials.persist_lineage(lineage(&row, first, 2, at(311))).await.unwrap());
    assert_eq!((kept.generation, kept.epoch), (2, second), "the row's epoch stays the later claim's");
    assert!(matches!(kept.state, CredentialState::Active { back_off: None, .. }));
    // Given up: the claim was released, or the grant was taken for dead.
    let row = stores.connected(key("bob"), 5).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let back_off = BackOff { not_before: at(99), failures: 1, last: RefreshFailure::OutcomeUnknown };
    assert!(
        stores.credentials.release_claim(release(row.id, epoch, 1, Some(back_off), at(11))).await.unwrap()
    );
    stored(stores.credentials.persist_lineage(lineage(&row, epoch, 6, at(12))).await.unwrap());
    let row = stores.row(&key("bob")).await;
    let epoch = stores.claimed(&row, 1, at(20)).await;
    let reason = ReauthReason::RefreshTokenRejected;
    let marked = stores.credentials.mark_needs_reauth(row.id, epoch, fingerprint(6), reason, at(21));
    assert!(marked.await.unwrap());
    let back = stored(stores.credentials.persist_lineage(lineage(&row, epoch, 7, at(22))).await.unwrap());
    assert!(matches!(back.state, CredentialState::Active { back_off: None, .. }));
}

async fn i7_a_brother_of_the_stored_pair_replaces_it(stores: Stores) {
    // A provider with a grace period answered the same refresh token twice: the later claim's answer is the live one.
    let row = stores.connected(key("alice"), 1).await;
    let first = stores.claimed(&row, 1, at(10)).await;
    let settle = claim_request(&stores.row(&key("alice")).await, 2, at(310));
    let second = stores.credentials.claim_for_settle(settle).await.unwrap().unwrap();
    stored(stores.credentials.persist_lineage(lineage(&row, first, 2, at(311))).await.unwrap());
    let newest = stored(stores.credentials.persist_lineage(lineage(&row, second, 3, at(312))).await.unwrap());
    assert_eq!(newest.generation, 3);
    assert_eq!(newest.tokens().unwrap().refresh.as_ref().unwrap().fingerprint, fingerprint(3));
}

async fn i7_the_epoch_of_a_claim_that_the_database_has_lost_is_not_given_again(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    // The claim's commit went with a failover; its answer comes all the same.
    let lost = row.epoch + 1;
    let kept = stored(stores.credentials.persist_lineage(lineage(&row, lost, 2, at(11))).await.unwrap());
    assert_eq!((kept.epoch, kept.generation), (lost, row.generation + 1));
    // Else the next claim's answer would be no younger than the row, and be thrown away.
    let epoch = stores.claimed(&kept, 1, at(20)).await;
    assert_eq!(epoch, lost + 1);
    let next = stored(stores.credentials.persist_lineage(lineage(&kept, epoch, 3, at(21))).await.unwrap());
    assert_eq!((next.epoch, next.tokens()), (epoch, Some(&lineage(&kept, epoch, 3, at(21)).tokens)));
}

async fn a_stranger_is_not_stored(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let good = lineage(&row, epoch, 2, at(11));
    let claimed = stores.row(&key("alice")).await;
    let parent = LineageWrite { parent_fingerprint: fingerprint(8), ..good.clone() };
    let grant = LineageWrite { grant_id: grant_id(8), ..good.clone() };
    let stale = LineageWrite { epoch: 0, ..good };
    for write in [parent, grant, stale] {
        assert_eq!(stores.credentials.persist_lineage(write).await.unwrap(), Persisted::Superseded);
    }
    assert_eq!(stores.row(&key("alice")).await, claimed);
    // A row without a refresh token has no descendants.
    let mut bare = new_grant(key("bob"), 5);
    bare.tokens.refresh = None;
    let bare = stores.stored(bare).await;
    let write = LineageWrite { id: bare.id, grant_id: bare.grant_id, ..lineage(&row, epoch, 6, at(11)) };
    assert_eq!(stores.credentials.persist_lineage(write).await.unwrap(), Persisted::Superseded);
}

async fn of_sixteen_answers_under_one_claim_one_is_stored(stores: Stores) {
    let row = stores.connected(key("alice"), 1).await;
    let epoch = stores.claimed(&row, 1, at(10)).await;
    let tasks: Vec<_> = (2..18)
        .map(|n| {
            let (credentials, write) = (stores.credentials.clone(), lineage(&row, epoch, n, at(11)));
            tokio::spawn(async move { credentials.persist_lineage(write).await.unwrap() })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        won += usize::from(matches!(task.await.unwrap(), Persisted::Stored(_)));
    }
    assert_eq!((won, stores.row(&key("alice")).await.generation), (1, 2));
}
