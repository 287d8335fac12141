//! The copies of a new pair fail, one or all.

use std::sync::atomic::Ordering;
use std::time::Duration;

use token_broker::application::error::Unavailable;
use token_broker::domain::step::Step;

use crate::support::rig::{Rig, unavailable};

#[tokio::test]
async fn without_a_journal_nothing_is_claimed() {
    let rig = Rig::new().await;
    rig.connect(&["mail"]).await;
    rig.journal.not_ready.store(true, Ordering::SeqCst);
    rig.clock.advance(Duration::from_secs(3600 - 200));
    assert_eq!(rig.token().await.generation, 1, "I6");
    rig.settle().await;
    rig.clock.advance(Duration::from_secs(200));
    let before = rig.row().await;
    assert_eq!(unavailable(rig.get().await).0, Unavailable::Storage);
    assert!(rig.life.taken().iter().all(|step| *step == Step::GrantStored));
    assert_eq!(rig.row().await, before);
    assert_eq!(rig.replica(2).token().await.generation, 2, "another replica's disk works");
    rig.journal.not_ready.store(false, Ordering::SeqCst);
    rig.expire_token();
    assert_eq!(rig.token().await.generation, 3);
}

#[tokio::test]
async fn i7_the_row_gets_the_pair_whichever_copy_fails() {
    for (journal, permits, database) in [
        (true, false, 0),
        (false, true, 0),
        (true, true, 0),
        (true, true, 3),
        (true, false, 3),
        (false, true, 3),
    ] {
        let rig = Rig::new().await;
        rig.connect(&["mail"]).await;
        rig.expire_token();
        rig.journal.fails.store(journal, Ordering::SeqCst);
        rig.permits.keeps_nothing.store(permits, Ordering::SeqCst);
        rig.faults.persist.store(database, Ordering::SeqCst);
        assert_eq!(rig.token().await.generation, 2, "{journal} {permits} {database}");
        assert_eq!(rig.faults.persist.load(Ordering::SeqCst), 0);
        let taken = rig.life.taken();
        assert_eq!(taken.contains(&Step::Journaled), !journal);
        assert_eq!(taken.contains(&Step::SuccessorCopied), !permits);
        assert_eq!(rig.provider.presented().len(), 1);
        assert!(rig.holds_the_live_token().await);
        rig.expire_token();
        assert_eq!(rig.replica(2).token().await.generation, 3, "what is left over stops nobody");
    }
}
