//! The contract of `OutboxStore`.

use token_broker::domain::credential::Sealed;
use token_broker::domain::ports::{PendingRevocation, RevocationOutcome};

use super::samples::{at, key, outbox_id, revocation};
use super::{Stores, contract};

contract!(
    a_revocation_is_taken_by_one_until_its_lease_ends,
    a_revocation_sent_twice_is_stored_once,
    due_revocations_come_oldest_first,
    a_postponed_revocation_waits,
    a_finished_revocation_is_over,
    unknown_revocations_are_nobodys,
);

async fn a_revocation_is_taken_by_one_until_its_lease_ends(stores: Stores) {
    let outbox = stores.outbox;
    let pending = revocation(key("alice"), 1, 10);
    outbox.enqueue_revocation(pending.clone()).await.unwrap();
    assert_eq!(outbox.take_revocation(pending.id, at(9), at(40)).await.unwrap(), None, "not due yet");
    let tasks: Vec<_> = (0..16)
        .map(|_| {
            let outbox = outbox.clone();
            tokio::spawn(async move { outbox.take_revocation(outbox_id(1), at(10), at(40)).await.unwrap() })
        })
        .collect();
    let mut taken = Vec::new();
    for task in tasks {
        taken.extend(task.await.unwrap());
    }
    assert_eq!(taken, [PendingRevocation { attempts: 1, next_attempt_at: at(40), ..pending.clone() }]);
    assert_eq!(outbox.due_revocations(at(39), 9).await.unwrap(), []);
    // Its holder died: taken again when the lease has ended.
    let again = outbox.take_revocation(pending.id, at(40), at(70)).await.unwrap().unwrap();
    assert_eq!((again.attempts, again.next_attempt_at), (2, at(70)));
}

async fn a_revocation_sent_twice_is_stored_once(stores: Stores) {
    let pending = PendingRevocation { refresh_sealed: None, ..revocation(key("alice"), 1, 10) };
    stores.outbox.enqueue_revocation(pending.clone()).await.unwrap();
    let other = PendingRevocation { access_sealed: Sealed(b"other".to_vec()), ..pending.clone() };
    stores.outbox.enqueue_revocation(other).await.unwrap();
    assert_eq!(stores.outbox.due_revocations(at(10), 9).await.unwrap(), [outbox_id(1)]);
    let taken = stores.outbox.take_revocation(outbox_id(1), at(10), at(40)).await.unwrap().unwrap();
    assert_eq!((taken.access_sealed, taken.refresh_sealed), (pending.access_sealed, None));
}

async fn due_revocations_come_oldest_first(stores: Stores) {
    for (n, created) in [(1, 30), (2, 10), (3, 20), (4, 100)] {
        stores.outbox.enqueue_revocation(revocation(key("alice"), n, created)).await.unwrap();
    }
    let due = |now, limit| stores.outbox.due_revocations(at(now), limit);
    assert_eq!(due(9, 9).await.unwrap(), []);
    assert_eq!(due(10, 9).await.unwrap(), [outbox_id(2)]);
    assert_eq!(due(99, 9).await.unwrap(), [2, 3, 1].map(outbox_id));
    assert_eq!(due(99, 2).await.unwrap(), [2, 3].map(outbox_id));
}

async fn a_postponed_revocation_waits(stores: Stores) {
    stores.outbox.enqueue_revocation(revocation(key("alice"), 1, 10)).await.unwrap();
    stores.outbox.take_revocation(outbox_id(1), at(10), at(40)).await.unwrap().unwrap();
    stores.outbox.postpone_revocation(outbox_id(1), at(100)).await.unwrap();
    assert_eq!(stores.outbox.due_revocations(at(99), 9).await.unwrap(), []);
    assert_eq!(stores.outbox.take_revocation(outbox_id(1), at(99), at(200)).await.unwrap(), None);
    let taken = stores.outbox.take_revocation(outbox_id(1), at(100), at(200)).await.unwrap().unwrap();
    assert_eq!(taken.attempts, 2);
}

async fn a_finished_revocation_is_over(stores: Stores) {
    let outbox = stores.outbox;
    let outcomes = [RevocationOutcome::Revoked, RevocationOutcome::Failed, RevocationOutcome::NotSupported];
    for (n, outcome) in (1..).zip(outcomes) {
        outbox.enqueue_revocation(revocation(key("alice"), n, 0)).await.unwrap();
        outbox.finish_revocation(outbox_id(n), outcome, at(i64::from(n) * 10)).await.unwrap();
    }
    outbox.enqueue_revocation(revocation(key("alice"), 4, 0)).await.unwrap();
    // Neither postponing nor finishing it again, nor sending it again, brings it back.
    outbox.postpone_revocation(outbox_id(1), at(0)).await.unwrap();
    outbox.finish_revocation(outbox_id(1), RevocationOutcome::Failed, at(999)).await.unwrap();
    outbox.enqueue_revocation(revocation(key("alice"), 1, 0)).await.unwrap();
    assert_eq!(outbox.due_revocations(at(999), 9).await.unwrap(), [outbox_id(4)]);
    for n in 1..4 {
        assert_eq!(outbox.take_revocation(outbox_id(n), at(999), at(9999)).await.unwrap(), None);
    }
    // Kept for a while, then deleted; what is not finished never is.
    assert_eq!(outbox.delete_finished_revocations(at(10)).await.unwrap(), 0);
    assert_eq!(outbox.delete_finished_revocations(at(21)).await.unwrap(), 2);
    assert_eq!(outbox.delete_finished_revocations(at(9999)).await.unwrap(), 1);
    assert_eq!(outbox.due_revocations(at(999), 9).await.unwrap(), [outbox_id(4)]);
}

async fn unknown_revocations_are_nobodys(stores: Stores) {
    let outbox = stores.outbox;
    assert_eq!(outbox.take_revocation(outbox_id(1), at(0), at(1)).await.unwrap(), None);
    outbox.postpone_revocation(outbox_id(1), at(1)).await.unwrap();
    outbox.finish_revocation(outbox_id(1), RevocationOutcome::Revoked, at(1)).await.unwrap();
    assert_eq!(outbox.due_revocations(at(9), 9).await.unwrap(), []);
}
