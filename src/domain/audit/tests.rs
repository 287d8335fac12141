//! Chains, walks and lines, by table.

use proptest::prelude::*;

use super::*;
use crate::domain::key::TenantId;

fn text(name: &'static str) -> Name {
    name.into()
}

/// One entry with everything in it.
fn full(n: i64) -> Entry {
    let mut entry = Entry::new(
        Timestamp::from_microsecond(1_700_000_000_000_000 + n).unwrap(),
        TenantId::new("acme").unwrap(),
        "GetCredential",
        Outcome::Allowed,
    );
    entry.actor =
        Actor { caller: Some(CallerId::new("agents").unwrap()), identified_by: Some(text("api_key")) };
    entry.subject = Subject {
        user: Some(UserId::new("alice").unwrap()),
        provider: Some(ProviderId::new("google").unwrap()),
        services: ["gmail", "calendar"].into_iter().map(|id| ServiceId::new(id).unwrap()).collect(),
        account: Some(Account::default()),
        flow: Some(FlowId::from_bytes([7; 16])),
        target: Some(Target::default().and("tenant", &"globex").and("caller", &"agents")),
    };
    entry.reason = Some(text("REASON"));
    entry.token = Some(TokenMark { generation: 3, fingerprint: Fingerprint([9; 32]) });
    entry.purpose = Some("summarise".to_owned());
    entry.request_id = Some("run-7".to_owned());
    entry
}

/// A chain, sealed with nothing.
pub(super) fn chain(entries: Vec<Entry>, over: Head) -> Vec<Row> {
    let mut at = over;
    let place = |entry: Entry| {
        at = link(&at, &entry);
        Row { sequence: at.sequence, entry, hash: at.hash, seal: Seal([0; 32]) }
    };
    entries.into_iter().map(place).collect()
}

fn walk(rows: &[Row], base: Head) -> Result<Head, Flaw> {
    let mut walk = Walk::from(base);
    rows.iter().try_for_each(|row| walk.step(row))?;
    Ok(walk.head())
}

/// A change of one field.
type Change = fn(&mut Entry);

/// Each field, changed.
fn changes() -> Vec<(&'static str, Change)> {
    vec![
        ("at", |e| e.at = Timestamp::from_microsecond(e.at.as_microsecond() + 1).unwrap()),
        ("tenant", |e| e.tenant = TenantId::new("other").unwrap()),
        ("target", |e| e.subject.target = Some(Target::default().and("tenant", &"globex"))),
        ("no target", |e| e.subject.target = None),
        ("caller", |e| e.actor.caller = Some(CallerId::new("agents2").unwrap())),
        ("no caller", |e| e.actor.caller = None),
        ("identified_by", |e| e.actor.identified_by = Some("jwt".into())),
        ("action", |e| e.action = "Refresh".into()),
        ("user", |e| e.subject.user = Some(UserId::new("bob").unwrap())),
        ("no user", |e| e.subject.user = None),
        ("provider", |e| e.subject.provider = Some(ProviderId::new("github").unwrap())),
        ("service gone", |e| {
            e.subject.services.pop_first();
        }),
        ("service more", |e| {
            e.subject.services.insert(ServiceId::new("drive").unwrap());
        }),
        ("account", |e| e.subject.account = Some(Account::new("work").unwrap())),
        ("flow", |e| e.subject.flow = None),
        ("outcome", |e| e.outcome = Outcome::Denied),
        ("reason", |e| e.reason = None),
        ("generation", |e| {
            if let Some(token) = &mut e.token {
                token.generation += 1;
            }
        }),
        ("fingerprint", |e| {
            if let Some(token) = &mut e.token {
                token.fingerprint.0[31] ^= 1;
            }
        }),
        ("no token", |e| e.token = None),
        ("purpose", |e| e.purpose = Some("summarise!".to_owned())),
        ("request_id", |e| e.request_id = None),
        ("mark", |e| e.mark = Some(Mark::Gap(1))),
    ]
}

#[test]
fn a_chain_is_in_order_and_every_changed_field_is_found_at_its_row() {
    let rows = chain((0..5).map(full).collect(), Head::default());
    assert_eq!(walk(&rows, Head::default()).unwrap(), rows[4].head());
    for (field, change) in changes() {
        let mut changed = rows.clone();
        change(&mut changed[2].entry);
        let flaw = walk(&changed, Head::default()).unwrap_err();
        assert_eq!(flaw, Flaw { sequence: 3, kind: FlawKind::Changed }, "{field}");
    }
}

#[test]
fn removed_swapped_inserted_and_rehashed_rows_are_found() {
    let rows = chain((0..5).map(full).collect(), Head::default());
    let broken = |change: &dyn Fn(&mut Vec<Row>)| {
        let mut rows = rows.clone();
        change(&mut rows);
        walk(&rows, Head::default()).unwrap_err()
    };
    let flaw = |sequence, kind| Flaw { sequence, kind };
    assert_eq!(broken(&|rows| drop(rows.remove(2))), flaw(3, FlawKind::Missing));
    assert_eq!(broken(&|rows| drop(rows.remove(0))), flaw(1, FlawKind::Missing));
    assert_eq!(broken(&|rows| rows.swap(1, 2)), flaw(2, FlawKind::Missing));
    assert_eq!(broken(&|rows| rows.insert(2, rows[1].clone())), flaw(2, FlawKind::OutOfOrder));
    // Numbers set right, hashes not.
    let renumber = |rows: &mut Vec<Row>| {
        rows.remove(2);
        for (row, number) in rows.iter_mut().zip(1..) {
            row.sequence = number;
        }
    };
    assert_eq!(broken(&renumber), flaw(3, FlawKind::Changed));
    // One row changed with a hash of its own: the next one does not follow.
    let rehash = |rows: &mut Vec<Row>| {
        rows[2].entry.subject.user = None;
        rows[2].hash = link(&rows[1].head(), &rows[2].entry).hash;
    };
    assert_eq!(broken(&rehash), flaw(4, FlawKind::Changed));
}

#[test]
fn a_shortened_chain_goes_on_from_where_it_says() {
    let rows = chain((0..5).map(full).collect(), Head::default());
    let mut said = full(9);
    said.action = PRUNE.into();
    said.mark = Some(Mark::Pruned(rows[2].head()));
    let mut left = rows[3..].to_vec();
    left.extend(chain(vec![said.clone()], rows[4].head()));
    assert_eq!(walk(&left, rows[2].head()).unwrap(), left[2].head());
    // Not from elsewhere, and not by another word.
    assert_eq!(walk(&left, rows[1].head()).unwrap_err().kind, FlawKind::Missing);
    said.mark = Some(Mark::Pruned(Head { hash: Hash([1; 32]), ..rows[2].head() }));
    let mut forged = rows[3..].to_vec();
    forged.extend(chain(vec![said], rows[4].head()));
    let flaw = walk(&forged, rows[2].head()).unwrap_err();
    assert_eq!(flaw, Flaw { sequence: 6, kind: FlawKind::WrongPrune });
}

#[test]
fn a_line_is_its_row() {
    let mut gap = full(1);
    gap.mark = Some(Mark::Gap(12));
    let mut prune = full(2);
    prune.mark = Some(Mark::Pruned(Head { sequence: 4, hash: Hash([3; 32]) }));
    let bare = Entry::new(Timestamp::UNIX_EPOCH, TenantId::new("acme").unwrap(), "Consent", Outcome::Failed);
    let mut over = Head::default();
    for row in chain(vec![full(0), gap, prune, bare], Head::default()) {
        let json = serde_json::to_string(&Line::new(over, &row)).unwrap();
        let read: Line = serde_json::from_str(&json).unwrap();
        assert_eq!(read.read().unwrap(), (over, row.clone()), "{json}");
        over = row.head();
    }
}

#[test]
fn what_is_no_line_is_refused() {
    let row = &chain(vec![full(0)], Head::default())[0];
    let line = Line::new(Head::default(), row);
    let bad = |change: &dyn Fn(&mut Line)| {
        let mut line = line.clone();
        change(&mut line);
        line.read().unwrap_err().to_string()
    };
    assert!(bad(&|l| l.version = 2).contains("version"));
    assert!(bad(&|l| l.sequence = 0).contains("sequence"));
    assert!(bad(&|l| "yesterday".clone_into(&mut l.time)).contains("time"));
    assert!(bad(&|l| l.hash = l.hash.to_uppercase()).contains("hash"));
    assert!(bad(&|l| l.seal.truncate(62)).contains("seal"));
    assert!(bad(&|l| l.token_fingerprint = None).contains("generation"));
    assert!(bad(&|l| "maybe".clone_into(&mut l.outcome)).contains("outcome"));
    assert!(bad(&|l| l.user = Some(" ".to_owned())).contains("user"));
    assert!(bad(&|l| l.pruned_through = Some(1)).contains("pruned_through"));
    assert!(serde_json::from_str::<Line>("{\"version\":1}").is_err());
}

#[test]
fn purposes_are_short_and_printable() {
    assert!(is_purpose(b"a") && is_purpose(&[b'~'; 128]));
    for bad in [&b""[..], &[b'a'; 129], b"a\n", b"\x7f", b"\xc3\xa9"] {
        assert!(!is_purpose(bad), "{bad:?}");
    }
}

proptest! {
    /// Parts that look alike when they are put together are different rows.
    #[test]
    fn different_entries_have_different_hashes(
        a in "[ab:]{0,3}", b in "[ab:]{0,3}", c in "[ab:]{0,3}", d in "[ab:]{0,3}",
    ) {
        let entry = |reason: &str, purpose: &str| {
            let mut entry = full(0);
            entry.reason = Some(reason.to_owned().into());
            entry.purpose = Some(purpose.to_owned());
            entry
        };
        let (one, two) = (entry(&a, &b), entry(&c, &d));
        let same = link(&Head::default(), &one) == link(&Head::default(), &two);
        prop_assert_eq!(one == two, same);
    }
}
