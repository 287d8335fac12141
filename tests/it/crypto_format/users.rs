//! Users' own keys in the vault: what is sealed for a user opens with that user's key and no other, for as long as it is
//! there, and how long replicas go without a look at whether it is.

use super::*;

use token_broker::domain::data_key::LEARNED_AFTER;

use crate::support::clock::ManualClock;

fn replica(keys: &Arc<Keys>, clock: &Arc<ManualClock>, first: u8) -> Vault {
    let entropy = Arc::new(Counting(AtomicU8::new(first)));
    Vault::new(keyring(&[("k1", 100)], "k1"), keys.clone(), entropy, clock.clone())
}

/// Alice's record, by a replica, and another replica beside it.
async fn two_replicas() -> (Arc<Keys>, Arc<ManualClock>, [Vault; 2], Sealed) {
    let (keys, clock) = (Arc::new(Keys::default()), Arc::new(ManualClock::new()));
    let one = replica(&keys, &clock, 0);
    let record = sealed(&one, &key("alice"), "canary").await;
    let two = replica(&keys, &clock, 128);
    assert_eq!(opened(&two, &key("alice"), &record).await.unwrap(), "canary");
    (keys, clock, [one, two], record)
}

impl Keys {
    fn user_reads(&self) -> usize {
        self.user_reads.load(Ordering::SeqCst)
    }

    fn users_are_away(&self, away: bool) {
        self.users_are_away.store(away, Ordering::SeqCst);
    }

    /// As another replica would delete it.
    fn delete_user(&self, key: &CredentialKey) -> UserKeyId {
        let mut users = self.users.lock().unwrap();
        let at = users.iter().position(|there| there.tenant == key.tenant && there.user == key.user).unwrap();
        users.remove(at).id
    }
}

#[tokio::test]
async fn a_users_key_is_looked_at_once_in_half_its_life_and_serves_while_the_database_is_away() {
    let (keys, clock, [_, two], record) = two_replicas().await;
    let alice = key("alice");
    let before = keys.user_reads();
    let reads = async |seconds: u64, expected: usize| {
        clock.advance(Duration::from_secs(seconds));
        for _ in 0..3 {
            assert_eq!(opened(&two, &alice, &record).await.unwrap(), "canary");
        }
        assert_eq!(keys.user_reads() - before, expected);
    };
    reads(0, 0).await;
    reads(7, 0).await;
    reads(1, 1).await;
    reads(7, 1).await;
    reads(1, 2).await;
    keys.users_are_away(true);
    reads(14, 3).await;
    clock.advance(Duration::from_secs(1));
    let error = opened(&two, &alice, &record).await.unwrap_err();
    assert!(matches!(error, CipherError::Store(_)), "an outage, not a missing token: {error:?}");
    keys.users_are_away(false);
    assert_eq!(opened(&two, &alice, &record).await.unwrap(), "canary");
}

#[tokio::test]
async fn deleting_a_users_key_makes_their_tokens_unreadable_here_at_once_and_elsewhere_within_its_life() {
    for pause in [0, 7, 8, 14] {
        let (keys, clock, [one, two], record) = two_replicas().await;
        let (alice, bob) = (key("alice"), key("bob"));
        let of_bob = sealed(&one, &bob, "bob's").await;
        let id = keys.delete_user(&alice);
        one.forget_user_key(id);
        does_not_open(opened(&one, &alice, &record).await, "where it was deleted");
        does_not_open(opened(&replica(&keys, &clock, 77), &alice, &record).await, "one that has to ask");
        clock.advance(Duration::from_secs(pause));
        let meanwhile = opened(&two, &alice, &record).await;
        if pause < 8 {
            assert_eq!(meanwhile.unwrap(), "canary", "it has not heard of it");
        } else {
            does_not_open(meanwhile, "it has asked");
        }
        clock.advance(LEARNED_AFTER.saturating_sub(Duration::from_secs(pause)));
        for vault in [&one, &two] {
            does_not_open(opened(vault, &alice, &record).await, &format!("{pause} s"));
            assert_eq!(opened(vault, &bob, &of_bob).await.unwrap(), "bob's");
        }
    }
}

#[tokio::test]
async fn a_look_that_began_before_the_deletion_does_not_bring_the_key_back() {
    let (keys, clock, [one, _], record) = two_replicas().await;
    let alice = key("alice");
    clock.advance(LEARNED_AFTER);
    // The answer to this look comes after the deletion.
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    *keys.gate.lock().unwrap() = Some(gate.clone());
    let late = opened(&one, &alice, &record);
    let deletes = async {
        clock.advance(Duration::from_secs(1));
        one.forget_user_key(keys.delete_user(&alice));
        gate.add_permits(1);
    };
    let (_, ()) = tokio::join!(late, deletes);
    *keys.gate.lock().unwrap() = None;
    does_not_open(opened(&one, &alice, &record).await, "deleted");
}

#[tokio::test]
async fn who_comes_back_has_another_key_on_every_replica() {
    let (keys, clock, [one, two], record) = two_replicas().await;
    let alice = key("alice");
    let id = keys.delete_user(&alice);
    one.forget_user_key(id);
    // The other one has the former key in memory, and would lose what it sealed with it.
    let anew = sealed(&two, &alice, "anew").await;
    assert_ne!(anew.0[17..33], id, "the header names the key");
    for vault in [&one, &two, &replica(&keys, &clock, 77)] {
        assert_eq!(opened(vault, &alice, &anew).await.unwrap(), "anew");
    }
    clock.advance(LEARNED_AFTER);
    for vault in [&one, &two] {
        does_not_open(opened(vault, &alice, &record).await, "what was before");
        assert_eq!(opened(vault, &alice, &anew).await.unwrap(), "anew");
    }
}

#[tokio::test]
async fn a_sealer_needs_nobody_for_as_long_as_it_lives_and_is_one_users() {
    let (keys, clock, [one, two], _) = two_replicas().await;
    let (alice, bob) = (key("alice"), key("bob"));
    let sealer = one.sealer(&alice, None).await.unwrap();
    keys.users_are_away(true);
    clock.advance(Duration::from_hours(1));
    let record = sealer.seal(bound(&alice, 1, Field::AccessToken), &plain("late")).unwrap();
    let second = key_of("acme", "github", "alice", "mail", "work");
    sealer.seal(bound(&second, 1, Field::AccessToken), &plain("late")).unwrap();
    does_not_open(sealer.seal(bound(&bob, 1, Field::AccessToken), &plain("x")), "another user's");
    let theirs = key_of("other", "google", "alice", "mail", "default");
    does_not_open(sealer.seal(bound(&theirs, 1, Field::AccessToken), &plain("x")), "another tenant's");
    does_not_open(sealer.seal(bound(&alice, 1, Field::UserKey), &plain("x")), "no user's field");
    let away = one.sealer(&alice, None).await.err();
    assert!(matches!(away, Some(CipherError::Store(_))), "{away:?}");
    keys.users_are_away(false);
    assert_eq!(opened(&two, &alice, &record).await.unwrap(), "late");
}

#[tokio::test]
async fn what_stands_in_the_place_of_a_ciphertext_is_sealed_with_its_users_key_without_a_look() {
    let (keys, _, [_, two], record) = two_replicas().await;
    let alice = key("alice");
    let before = keys.user_reads();
    let sealer = two.sealer(&alice, Some(&record)).await.unwrap();
    let next = sealer.seal(bound(&alice, 1, Field::AccessToken), &plain("next")).unwrap();
    assert_eq!((&next.0[17..33], keys.user_reads()), (&record.0[17..33], before));
    assert_eq!(opened(&two, &alice, &next).await.unwrap(), "next");
    let of_bob = sealed(&two, &key("bob"), "bob's").await;
    does_not_open(two.sealer(&alice, Some(&of_bob)).await.map(|_| ()), "another user's");
    // Beside one of the first version, which has none, or something that is no ciphertext: the user's.
    for other in [Sealed(hex::decode(GOLDEN_FIRST_RECORD).unwrap()), Sealed(vec![9; 9])] {
        let sealer = two.sealer(&alice, Some(&other)).await.unwrap();
        let next = sealer.seal(bound(&alice, 1, Field::AccessToken), &plain("x")).unwrap();
        assert_eq!(next.0[17..33], record.0[17..33]);
    }
    // One whose key is gone.
    two.forget_user_key(keys.delete_user(&alice));
    does_not_open(two.sealer(&alice, Some(&record)).await.map(|_| ()), "deleted");
}

#[tokio::test]
async fn a_look_for_a_key_makes_none() {
    let keys = Arc::new(Keys::default());
    let vault = vault(&keys);
    assert!(vault.existing_sealer(&key("alice")).await.unwrap().is_none());
    assert!(keys.users.lock().unwrap().is_empty() && keys.list().is_empty());
    let record = sealed(&vault, &key("alice"), "canary").await;
    let sealer = vault.existing_sealer(&key("alice")).await.unwrap().unwrap();
    let next = sealer.seal(bound(&key("alice"), 1, Field::AccessToken), &plain("x")).unwrap();
    assert_eq!(next.0[17..33], record.0[17..33]);
}

#[tokio::test]
async fn a_damaged_or_moved_users_key_does_not_open() {
    let (keys, clock, [one, _], record) = two_replicas().await;
    let (alice, bob) = (key("alice"), key("bob"));
    sealed(&one, &bob, "x").await;
    let [original, of_bob] = &keys.users.lock().unwrap().clone()[..] else { panic!("two users") };
    does_not_open(one.open(bound(&alice, 1, Field::AccessToken), &original.sealed).await, "it is no token");
    let try_with = async |changed: StoredUserKey| {
        *keys.users.lock().unwrap() = vec![changed];
        opened(&replica(&keys, &clock, 77), &alice, &record).await
    };
    assert_eq!(try_with(original.clone()).await.unwrap(), "canary");
    for length in 0..original.sealed.0.len() {
        let mut cut = original.clone();
        cut.sealed.0.truncate(length);
        does_not_open(try_with(cut).await, &format!("{length} bytes"));
    }
    for (byte, bit) in (0..original.sealed.0.len()).flat_map(|byte| (0..8).map(move |bit| (byte, bit))) {
        let mut flipped = original.clone();
        flipped.sealed.0[byte] ^= 1 << bit;
        does_not_open(try_with(flipped).await, &format!("byte {byte}, bit {bit}"));
    }
    for moved in [
        StoredUserKey { user: bob.user.clone(), ..original.clone() },
        StoredUserKey { tenant: tenant("other"), ..original.clone() },
        StoredUserKey { sealed: of_bob.sealed.clone(), ..original.clone() },
        StoredUserKey { id: original.id, ..of_bob.clone() },
        StoredUserKey { id: of_bob.id, ..original.clone() },
    ] {
        does_not_open(try_with(moved.clone()).await, &format!("{moved:?}"));
    }
    // The id of another user's key in the header.
    *keys.users.lock().unwrap() = vec![original.clone(), of_bob.clone()];
    let mut renamed = record.clone();
    renamed.0[17..33].copy_from_slice(&of_bob.id);
    does_not_open(opened(&one, &alice, &renamed).await, "another user's key");
    does_not_open(opened(&one, &bob, &renamed).await, "another user's record");
    assert_eq!(opened(&one, &alice, &record).await.unwrap(), "canary");
}

#[tokio::test]
async fn two_first_seals_at_one_time_keep_one_users_key() {
    let (keys, clock) = (Arc::new(Keys::default()), Arc::new(ManualClock::new()));
    let alice = key("alice");
    sealed(&replica(&keys, &clock, 0), &key("bob"), "x").await;
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    *keys.gate.lock().unwrap() = Some(gate.clone());
    let (one, two) = (replica(&keys, &clock, 50), replica(&keys, &clock, 150));
    // Both have found none before either stores one.
    let opens = async { gate.add_permits(2) };
    let (from_one, from_two, ()) =
        tokio::join!(sealed(&one, &alice, "one"), sealed(&two, &alice, "two"), opens);
    *keys.gate.lock().unwrap() = None;
    assert_eq!(from_one.0[17..33], from_two.0[17..33]);
    assert_eq!(keys.users.lock().unwrap().len(), 2, "alice's and bob's");
    assert_eq!(opened(&one, &alice, &from_two).await.unwrap(), "two");
    assert_eq!(opened(&two, &alice, &from_one).await.unwrap(), "one");
}

#[tokio::test]
async fn the_keys_of_a_page_of_users_are_read_at_one_time() {
    let (keys, clock, [one, _], _) = two_replicas().await;
    let mut records = Vec::new();
    for n in 0..20 {
        records.push(sealed(&one, &key(&format!("user-{n}")), "canary").await);
    }
    let fresh = replica(&keys, &clock, 77);
    let before = keys.user_reads();
    let all: Vec<&Sealed> = records.iter().chain(&records).collect();
    fresh.expect(&all).await;
    for (n, record) in records.iter().enumerate() {
        assert_eq!(opened(&fresh, &key(&format!("user-{n}")), record).await.unwrap(), "canary");
    }
    assert_eq!(keys.user_reads() - before, 1);
    // What does not open is nobody else's trouble.
    let gone = keys.delete_user(&key("user-7"));
    keys.users.lock().unwrap().iter_mut().find(|there| there.user == key("user-8").user).unwrap().sealed.0
        [50] ^= 1;
    let fresh = replica(&keys, &clock, 77);
    fresh.expect(&all).await;
    for (n, record) in records.iter().enumerate() {
        let outcome = opened(&fresh, &key(&format!("user-{n}")), record).await;
        assert_eq!(outcome.is_ok(), n != 7 && n != 8, "{n}");
    }
    one.forget_user_key(gone);
}
