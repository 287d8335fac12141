//! The contract of `ReencryptionStore`.

use std::time::Duration;

use token_broker::domain::cipher::Field;
use token_broker::domain::credential::Sealed;
use token_broker::domain::data_key::{
    PassCounts, PassPlace, PassStep, Reencryption, RenewedRow, RowsPerKey, SealedRow, SealedTable,
};
use token_broker::domain::key::CredentialKey;
use token_broker::domain::ports::RevocationOutcome;
use token_broker::domain::provider_config::CONFIG_FIELDS;

use super::event_store::told;
use super::provider_config_store::config;
use super::samples::{
    at, credential_id, flow, key, lineage, new_grant, outbox_id, owner, provider, revocation, revoke_write,
    tenant,
};
use super::user_store::user_key;
use super::{Stores, contract};

contract!(
    pages_hold_every_ciphertext_with_what_it_is_bound_to,
    ciphertexts_are_replaced_and_nothing_else,
    what_has_changed_since_it_was_read_is_left_alone,
    one_worker_at_a_time_and_the_next_goes_on_where_it_stopped,
    nobody_works_on_what_nobody_asked_for,
    what_is_asked_for_meanwhile_stays_asked_for,
);

const LEASE: Duration = Duration::from_secs(30);

fn renewed(was: SealedRow) -> RenewedRow {
    let anew = |sealed: &Sealed| Sealed([&b"new "[..], &sealed.0].concat());
    let fields = was.fields.iter().map(|(field, sealed)| (*field, anew(sealed))).collect();
    RenewedRow { is: SealedRow { fields, ..was.clone() }, was }
}

async fn rows(stores: &Stores, table: SealedTable) -> Vec<SealedRow> {
    stores.reencryption.sealed_rows(table, None, 99).await.unwrap()
}

fn users(rows: &[SealedRow]) -> Vec<&str> {
    rows.iter().map(|row| row.key.user.as_str()).collect()
}

/// Three credentials, of which one is revoked and one has no refresh token; two flows; two revocations and one that is done.
async fn populated(stores: &Stores) {
    for (n, user) in [(3, "carol"), (1, "alice"), (2, "bob")] {
        let mut grant = new_grant(key(user), n);
        grant.tokens.refresh = grant.tokens.refresh.filter(|_| user != "bob");
        stores.stored(grant).await;
    }
    stores.credentials.revoke_with_outbox(revoke_write(&key("carol"), None, at(9))).await.unwrap();
    for (n, user) in [(2, "bob"), (1, "alice")] {
        stores.begun(&flow(key(user), n, 0)).await;
    }
    for n in [2, 1, 3] {
        let mut revocation = revocation(key("dave"), n, 0);
        revocation.refresh_sealed = revocation.refresh_sealed.filter(|_| n != 2);
        stores.outbox.enqueue_revocation(revocation).await.unwrap();
    }
    stores.outbox.finish_revocation(outbox_id(3), RevocationOutcome::Revoked, at(1)).await.unwrap();
    let bare = |n: u8, name: &str| {
        let mut config = config("acme", name, n);
        config.authentication.private_key = None;
        config.authentication.client_secret = config.authentication.client_secret.filter(|_| n != 3);
        config.authentication.tls_key = config.authentication.tls_key.filter(|_| n != 3);
        config
    };
    for config in [config("acme", "google", 1), bare(2, "github"), bare(3, "slack")] {
        stores.configs.insert_provider_config(config).await.unwrap();
    }
}

async fn pages_hold_every_ciphertext_with_what_it_is_bound_to(stores: Stores) {
    for table in SealedTable::ALL {
        assert!(rows(&stores, table).await.is_empty(), "{table:?}");
    }
    populated(&stores).await;
    let credentials = rows(&stores, SealedTable::Credentials).await;
    assert_eq!(users(&credentials), ["alice", "bob"], "by id; what is revoked has none");
    let alice = &credentials[0];
    assert_eq!((alice.id, &alice.key), (*credential_id(1).as_bytes(), &key("alice")));
    let row = stores.row(&key("alice")).await;
    assert_eq!(alice.grant_id, row.grant_id);
    let texts = |row: &SealedRow| {
        let text = |(field, sealed): &(Field, Sealed)| (*field, String::from_utf8(sealed.0.clone()).unwrap());
        row.fields.iter().map(text).collect::<Vec<_>>()
    };
    let named = |fields: &[(Field, &str)]| {
        fields.iter().map(|(field, text)| (*field, (*text).to_owned())).collect::<Vec<_>>()
    };
    let all =
        [(Field::AccessToken, "access 1"), (Field::RefreshToken, "refresh 1"), (Field::Profile, "profile 1")];
    assert_eq!(texts(alice), named(&all));
    let without = [(Field::AccessToken, "access 2"), (Field::Profile, "profile 2")];
    assert_eq!(texts(&credentials[1]), named(&without));
    let flows = rows(&stores, SealedTable::Flows).await;
    assert_eq!(users(&flows), ["alice", "bob"]);
    assert_eq!(texts(&flows[1]), named(&[(Field::FlowSecrets, "secrets 2")]));
    let revocations = rows(&stores, SealedTable::Revocations).await;
    assert_eq!(revocations.len(), 2, "what is done has none");
    assert_eq!(texts(&revocations[0]), named(&all[..2]));
    assert_eq!(texts(&revocations[1]), named(&[(Field::AccessToken, "access 2")]));
    let configs = rows(&stores, SealedTable::ProviderConfigs).await;
    assert_eq!(configs.len(), 2, "one without secrets has none");
    for (row, n) in configs.iter().zip([1, 2]) {
        let name = if n == 1 { "google" } else { "github" };
        let found = stores.configs.load_provider_config(&tenant("acme"), &provider(name)).await;
        let config = found.unwrap().unwrap();
        assert_eq!((row.id, (row.key.clone(), row.grant_id)), ([n; 16], config.binding().unwrap()));
        let of = config.authentication;
        let secrets = [of.client_secret, of.private_key, of.tls_key];
        let expected = CONFIG_FIELDS.into_iter().zip(secrets);
        let expected: Vec<_> = expected.filter_map(|(field, sealed)| Some((field, sealed?))).collect();
        assert_eq!(row.fields, expected);
    }
    for (n, name) in [(1, "alice"), (2, "bob")] {
        assert!(stores.data_keys.user_key_or_insert(user_key(n, &key(name))).await.unwrap().is_some());
    }
    for table in SealedTable::ALL {
        let page = async |after, limit| stores.reencryption.sealed_rows(table, after, limit).await.unwrap();
        let (first, second) = (page(None, 1).await, page(None, 2).await);
        assert_eq!(first[..], second[..1], "{table:?}");
        assert_eq!(page(Some(first[0].id), 9).await[..], second[1..], "{table:?}");
        assert!(page(Some(second[1].id), 9).await.is_empty(), "{table:?}");
    }
}

async fn ciphertexts_are_replaced_and_nothing_else(stores: Stores) {
    populated(&stores).await;
    let claimed = key("alice");
    let before = stores.row(&claimed).await;
    let epoch = stores.claimed(&before, 7, at(20)).await;
    let before = stores.row(&claimed).await;
    let events = told(&stores).await;
    for table in SealedTable::ALL {
        let changed: Vec<_> = rows(&stores, table).await.into_iter().map(renewed).collect();
        let mut replaced = stores.reencryption.replace_sealed(table, &changed).await.unwrap();
        replaced.sort_unstable();
        assert_eq!(replaced, changed.iter().map(|row| row.was.id).collect::<Vec<_>>(), "{table:?}");
        let now: Vec<_> = changed.iter().map(|row| row.is.clone()).collect();
        assert_eq!(rows(&stores, table).await, now, "{table:?}");
        assert!(stores.reencryption.replace_sealed(table, &[]).await.unwrap().is_empty());
    }
    let after = stores.row(&claimed).await;
    let mut expected = before.clone();
    if let token_broker::domain::credential::CredentialState::Refreshing { tokens, .. } = &mut expected.state
    {
        let anew = |sealed: &mut Sealed| sealed.0.splice(0..0, *b"new ").for_each(drop);
        anew(&mut tokens.access_sealed);
        anew(&mut tokens.profile_sealed);
        anew(&mut tokens.refresh.as_mut().unwrap().sealed);
    }
    assert_eq!(after, expected);
    assert_eq!(told(&stores).await, events, "nobody is told");
    // The refresh that was under way ends as if nothing had been.
    stores.credentials.persist_lineage(lineage(&before, epoch, 8, at(21))).await.unwrap();
    assert_eq!(stores.row(&claimed).await.generation, before.generation + 1);
    // And so does a revocation.
    let taken = stores.outbox.take_revocation(outbox_id(1), at(30), at(60)).await.unwrap().unwrap();
    assert_eq!(taken.access_sealed.0, b"new access 1");
}

async fn what_has_changed_since_it_was_read_is_left_alone(stores: Stores) {
    populated(&stores).await;
    let read = rows(&stores, SealedTable::Credentials).await;
    let row = stores.row(&key("alice")).await;
    let epoch = stores.claimed(&row, 7, at(20)).await;
    stores.credentials.persist_lineage(lineage(&row, epoch, 8, at(21))).await.unwrap();
    stores.credentials.revoke_with_outbox(revoke_write(&key("bob"), None, at(22))).await.unwrap();
    let changed: Vec<_> = read.into_iter().map(renewed).collect();
    let before = async |user: &CredentialKey| stores.row(user).await;
    let (alice, bob) = (before(&key("alice")).await, before(&key("bob")).await);
    let replaced = stores.reencryption.replace_sealed(SealedTable::Credentials, &changed).await.unwrap();
    assert!(replaced.is_empty(), "{replaced:?}");
    assert_eq!((before(&key("alice")).await, before(&key("bob")).await), (alice, bob));
    // One ciphertext that is another one is enough, and holds up no other row.
    let mut read: Vec<_> = rows(&stores, SealedTable::Revocations).await.into_iter().map(renewed).collect();
    read[0].was.fields[1].1 = Sealed(b"another".to_vec());
    let replaced = stores.reencryption.replace_sealed(SealedTable::Revocations, &read).await.unwrap();
    assert_eq!(replaced, [read[1].was.id]);
}

fn step(state: Reencryption, rows: &[(u8, SealedTable, u64)]) -> PassStep {
    let rows: RowsPerKey = rows.iter().map(|(key, table, rows)| (([*key; 16], *table), *rows)).collect();
    PassStep { state, done_until: None, rows }
}

async fn one_worker_at_a_time_and_the_next_goes_on_where_it_stopped(stores: Stores) {
    let work = stores.reencryption;
    work.request_reencryption(at(1)).await.unwrap();
    let taken = work.take_reencryption(owner(1), at(2), LEASE).await.unwrap().unwrap();
    assert_eq!((taken.requested_at, taken.pass, taken.place), (Some(at(1)), 0, None));
    assert_eq!(work.take_reencryption(owner(2), at(31), LEASE).await.unwrap(), None);
    assert!(work.take_reencryption(owner(1), at(3), LEASE).await.unwrap().is_some(), "its own is prolonged");
    let mut state = Reencryption {
        pass: 1,
        began_at: Some(at(3)),
        place: Some(PassPlace { table: SealedTable::Credentials, after: None }),
        ..taken
    };
    assert!(work.save_reencryption(owner(1), &step(state, &[]), at(4), LEASE).await.unwrap());
    state.place = Some(PassPlace { table: SealedTable::Flows, after: Some([8; 16]) });
    state.counts = PassCounts { expected: 50, looked_at: 40, renewed: 30, skipped: 2, unreadable: 1 };
    let rows = [(1, SealedTable::Credentials, 5), (2, SealedTable::Credentials, 7)];
    assert!(work.save_reencryption(owner(1), &step(state, &rows), at(5), LEASE).await.unwrap());
    let rows = [(1, SealedTable::Credentials, 1), (1, SealedTable::Flows, 2)];
    assert!(work.save_reencryption(owner(1), &step(state, &rows), at(5), LEASE).await.unwrap());
    assert!(!work.save_reencryption(owner(2), &step(state, &rows), at(6), LEASE).await.unwrap());
    // It dies, and its time is up.
    assert_eq!(work.take_reencryption(owner(2), at(34), LEASE).await.unwrap(), None);
    let taken = work.take_reencryption(owner(2), at(35), LEASE).await.unwrap().unwrap();
    assert_eq!((taken.pass, taken.began_at), (1, Some(at(3))));
    assert_eq!((taken.place, taken.counts), (state.place, state.counts));
    assert!(!work.save_reencryption(owner(1), &step(state, &rows), at(36), LEASE).await.unwrap(), "late");
    let counted: RowsPerKey = [
        (([1; 16], SealedTable::Credentials), 6),
        (([1; 16], SealedTable::Flows), 2),
        (([2; 16], SealedTable::Credentials), 7),
    ]
    .into();
    assert_eq!(work.rows_per_key(1).await.unwrap(), counted, "what was not saved is not counted");
    // Given back, it is anybody's at once.
    state.place = None;
    state.ended_at = Some(at(36));
    assert!(work.save_reencryption(owner(2), &step(state, &[]), at(36), Duration::ZERO).await.unwrap());
    assert!(!work.save_reencryption(owner(2), &step(state, &[]), at(36), LEASE).await.unwrap());
    let taken = work.take_reencryption(owner(3), at(36), LEASE).await.unwrap().unwrap();
    assert_eq!((taken.place, taken.ended_at), (None, Some(at(36))));
    work.forget_passes(1).await.unwrap();
    assert_eq!(work.rows_per_key(1).await.unwrap(), counted);
    work.forget_passes(2).await.unwrap();
    assert!(work.rows_per_key(1).await.unwrap().is_empty());
}

async fn nobody_works_on_what_nobody_asked_for(stores: Stores) {
    let work = stores.reencryption;
    assert_eq!(work.reencryption().await.unwrap(), Reencryption::default());
    assert_eq!(work.take_reencryption(owner(1), at(1), LEASE).await.unwrap(), None);
    assert!(!work.save_reencryption(owner(1), &PassStep::default(), at(1), LEASE).await.unwrap());
}

async fn what_is_asked_for_meanwhile_stays_asked_for(stores: Stores) {
    let work = stores.reencryption;
    work.request_reencryption(at(5)).await.unwrap();
    work.request_reencryption(at(3)).await.unwrap();
    assert_eq!(work.reencryption().await.unwrap().requested_at, Some(at(5)), "the latest counts");
    let taken = work.take_reencryption(owner(1), at(6), LEASE).await.unwrap().unwrap();
    work.request_reencryption(at(7)).await.unwrap();
    let done = PassStep { state: taken, done_until: Some(at(5)), ..PassStep::default() };
    assert!(work.save_reencryption(owner(1), &done, at(8), LEASE).await.unwrap());
    assert_eq!(work.reencryption().await.unwrap().requested_at, Some(at(7)));
    let done = PassStep { done_until: Some(at(7)), ..done };
    assert!(work.save_reencryption(owner(1), &done, at(8), Duration::ZERO).await.unwrap());
    assert_eq!(work.reencryption().await.unwrap().requested_at, None);
    assert_eq!(work.take_reencryption(owner(1), at(9), LEASE).await.unwrap(), None);
}
