//! The audit log: rows are added at the head and nowhere else, come back as they were, and go only from the beginning, after
//! the chain has said so.

use token_broker::domain::audit::{
    Actor, AuditQuery, Entry, GAP, Hash, Head, Mark, Outcome, PRUNE, Row, Seal, Subject, Target, TokenMark,
    link,
};
use token_broker::domain::key::{Account, CallerId, TenantId, UserId};

use super::samples::{at, fingerprint, flow_id, provider, service, tenant};
use super::{Stores, contract};

contract!(
    rows_come_back_as_they_were_written,
    rows_are_added_at_the_head_and_nowhere_else,
    an_append_whose_answer_was_lost_is_done_once,
    chains_of_tenants_are_apart,
    queries_ask_about_everything_and_page_backwards,
    rows_go_only_where_the_chain_says_so,
    age_is_counted_from_the_first_row_that_is_kept,
    writers_that_race_make_one_chain,
);

fn entry(tenant: &TenantId, n: i64) -> Entry {
    Entry::new(at(n), tenant.clone(), "GetCredential", Outcome::Allowed)
}

fn full(tenant: &TenantId, n: i64) -> Entry {
    let mut entry = entry(tenant, n);
    entry.actor =
        Actor { caller: Some(CallerId::new("agents").unwrap()), identified_by: Some("api_key".into()) };
    entry.subject = Subject {
        user: Some(UserId::new("alice|O'Neil; \"é\" %_\\").unwrap()),
        provider: Some(provider("google")),
        services: [service("gmail"), service("calendar")].into(),
        account: Some(Account::new("work").unwrap()),
        flow: Some(flow_id(3)),
        target: Some(Target::default().and("tenant", &"globex").and("key", &"k-1")),
    };
    entry.reason = Some("REASON".into());
    entry.token = Some(TokenMark { generation: 7, fingerprint: fingerprint(5) });
    entry.purpose = Some("summarise ~ the inbox".to_owned());
    entry.request_id = Some("run-7/3".to_owned());
    entry
}

/// Rows for entries behind a head.
pub(crate) fn rows(over: Head, entries: Vec<Entry>) -> Vec<Row> {
    let mut at = over;
    let place = |entry: Entry| {
        at = link(&at, &entry);
        Row { sequence: at.sequence, entry, hash: at.hash, seal: Seal([at.sequence.to_le_bytes()[0]; 32]) }
    };
    entries.into_iter().map(place).collect()
}

async fn add(stores: &Stores, tenant: &TenantId, entries: Vec<Entry>) -> Vec<Row> {
    let over = stores.audit.audit_head(tenant).await.unwrap();
    let rows = rows(over, entries);
    assert!(stores.audit.append_audit(tenant, over, &rows).await.unwrap());
    rows
}

async fn all(stores: &Stores, tenant: &TenantId) -> Vec<Row> {
    stores.audit.audit_after(tenant, 0, 1_000).await.unwrap()
}

async fn rows_come_back_as_they_were_written(stores: Stores) {
    let acme = tenant("acme");
    let mut gap = entry(&acme, 3);
    (gap.action, gap.mark) = (GAP.into(), Some(Mark::Gap(12)));
    let mut prune = entry(&acme, 4);
    (prune.action, prune.mark) =
        (PRUNE.into(), Some(Mark::Pruned(Head { sequence: 1, hash: Hash([9; 32]) })));
    let mut denied = entry(&acme, 5);
    denied.outcome = Outcome::Denied;
    let written = add(&stores, &acme, vec![full(&acme, 1), entry(&acme, 2), gap, prune, denied]).await;
    assert_eq!(all(&stores, &acme).await, written);
    assert_eq!(stores.audit.audit_head(&acme).await.unwrap(), written[4].head());
    assert_eq!(stores.audit.audit_after(&acme, 1, 2).await.unwrap(), written[1..3]);
    assert_eq!(stores.audit.last_audit_prune(&acme).await.unwrap().as_ref(), Some(&written[3]));
    assert_eq!(stores.audit.audit_after(&acme, 5, 2).await.unwrap(), []);
}

async fn rows_are_added_at_the_head_and_nowhere_else(stores: Stores) {
    let acme = tenant("acme");
    let first = add(&stores, &acme, vec![entry(&acme, 1), entry(&acme, 2)]).await;
    let stale = rows(first[0].head(), vec![full(&acme, 9), full(&acme, 9)]);
    assert!(!stores.audit.append_audit(&acme, first[0].head(), &stale).await.unwrap());
    let another = Head { hash: Hash([1; 32]), ..first[1].head() };
    let forged = rows(another, vec![full(&acme, 9)]);
    assert!(!stores.audit.append_audit(&acme, another, &forged).await.unwrap());
    let ahead = Head { sequence: 9, hash: first[1].hash };
    assert!(!stores.audit.append_audit(&acme, ahead, &rows(ahead, vec![full(&acme, 9)])).await.unwrap());
    assert_eq!(all(&stores, &acme).await, first);
}

async fn an_append_whose_answer_was_lost_is_done_once(stores: Stores) {
    let acme = tenant("acme");
    let first = add(&stores, &acme, vec![entry(&acme, 1), entry(&acme, 2)]).await;
    assert!(stores.audit.append_audit(&acme, Head::default(), &first).await.unwrap());
    let more = add(&stores, &acme, vec![entry(&acme, 3)]).await;
    // Also behind somebody else's rows.
    assert!(stores.audit.append_audit(&acme, Head::default(), &first).await.unwrap());
    assert_eq!(all(&stores, &acme).await, [first, more].concat());
}

async fn chains_of_tenants_are_apart(stores: Stores) {
    let (acme, bolt) = (tenant("acme"), tenant("bolt"));
    let ours = add(&stores, &acme, vec![entry(&acme, 1), entry(&acme, 2)]).await;
    let theirs = add(&stores, &bolt, vec![entry(&bolt, 1)]).await;
    assert_eq!((all(&stores, &acme).await, all(&stores, &bolt).await), (ours.clone(), theirs.clone()));
    assert_eq!(stores.audit.find_audit(&AuditQuery::all(bolt.clone(), 10)).await.unwrap(), theirs);
    assert_eq!(stores.audit.audit_tenants().await.unwrap(), [acme, bolt]);
    assert_eq!(stores.audit.audit_head(&tenant("none")).await.unwrap(), Head::default());
}

async fn queries_ask_about_everything_and_page_backwards(stores: Stores) {
    let acme = tenant("acme");
    let mut entries: Vec<Entry> = (0..6).map(|n| full(&acme, n)).collect();
    entries[1].subject.user = Some(UserId::new("bob").unwrap());
    entries[2].subject.provider = Some(provider("github"));
    entries[3].subject.services = [service("drive")].into();
    entries[4].actor.caller = Some(CallerId::new("cron").unwrap());
    (entries[5].action, entries[5].outcome) = ("Refresh".into(), Outcome::Failed);
    let written = add(&stores, &acme, entries).await;
    let query = AuditQuery::all(acme.clone(), 100);
    let found = async |query: AuditQuery| {
        let rows = stores.audit.find_audit(&query).await.unwrap();
        for row in &rows {
            assert_eq!(*row, written[usize::try_from(row.sequence - 1).unwrap()]);
        }
        rows.iter().map(|row| row.sequence).collect::<Vec<_>>()
    };
    let alice = written[0].entry.subject.user.clone();
    assert_eq!(found(query.clone()).await, [6, 5, 4, 3, 2, 1]);
    assert_eq!(found(AuditQuery { user: alice.clone(), ..query.clone() }).await, [6, 5, 4, 3, 1]);
    assert_eq!(found(AuditQuery { provider: Some(provider("github")), ..query.clone() }).await, [3]);
    assert_eq!(found(AuditQuery { service: Some(service("gmail")), ..query.clone() }).await, [6, 5, 3, 2, 1]);
    assert_eq!(found(AuditQuery { service: Some(service("mail")), ..query.clone() }).await, [0; 0]);
    let cron = Some(CallerId::new("cron").unwrap());
    assert_eq!(found(AuditQuery { caller: cron, ..query.clone() }).await, [5]);
    assert_eq!(found(AuditQuery { action: Some("Refresh".into()), ..query.clone() }).await, [6]);
    assert_eq!(found(AuditQuery { outcome: Some(Outcome::Failed), ..query.clone() }).await, [6]);
    let (since, until) = (Some(at(2)), Some(at(4)));
    assert_eq!(found(AuditQuery { since, until, ..query.clone() }).await, [4, 3]);
    assert_eq!(found(AuditQuery { limit: 2, ..query.clone() }).await, [6, 5]);
    assert_eq!(found(AuditQuery { limit: 2, before: Some(5), ..query.clone() }).await, [4, 3]);
    let service = Some(service("gmail"));
    let gmail = AuditQuery { user: alice, provider: Some(provider("google")), service, ..query };
    assert_eq!(found(AuditQuery { before: Some(6), limit: 2, ..gmail }).await, [5, 1]);
}

async fn rows_go_only_where_the_chain_says_so(stores: Stores) {
    let acme = tenant("acme");
    let written = add(&stores, &acme, (1..=5).map(|n| entry(&acme, n)).collect()).await;
    assert!(stores.audit.delete_audit_through(&acme, 2, 100).await.is_err());
    let mut said = entry(&acme, 6);
    (said.action, said.mark) = (PRUNE.into(), Some(Mark::Pruned(written[2].head())));
    let said = add(&stores, &acme, vec![said]).await;
    assert_eq!(stores.audit.delete_audit_through(&acme, 3, 2).await.unwrap(), 2);
    assert_eq!(stores.audit.delete_audit_through(&acme, 3, 2).await.unwrap(), 1);
    assert!(stores.audit.delete_audit_through(&acme, 4, 100).await.is_err());
    // Another tenant's word is no word.
    let bolt = tenant("bolt");
    add(&stores, &bolt, vec![entry(&bolt, 1)]).await;
    assert!(stores.audit.delete_audit_through(&bolt, 1, 100).await.is_err());
    assert_eq!(all(&stores, &acme).await, [&written[3..], &said[..]].concat());
}

async fn age_is_counted_from_the_first_row_that_is_kept(stores: Stores) {
    let acme = tenant("acme");
    assert_eq!(stores.audit.last_audit_before(&acme, at(9)).await.unwrap(), None);
    let written = add(&stores, &acme, (1..=4).map(|n| entry(&acme, n)).collect()).await;
    let before = async |n| stores.audit.last_audit_before(&acme, at(n)).await.unwrap();
    assert_eq!(before(1).await, None);
    assert_eq!(before(2).await, Some(written[0].head()));
    assert_eq!(before(4).await, Some(written[2].head()));
    assert_eq!(before(5).await, Some(written[3].head()));
}

async fn writers_that_race_make_one_chain(stores: Stores) {
    let acme = tenant("acme");
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let (audit, acme) = (stores.audit.clone(), acme.clone());
            tokio::spawn(async move {
                for n in 0..10 {
                    let mut mine = entry(&acme, n);
                    mine.request_id = Some(format!("{writer}-{n}"));
                    loop {
                        let over = audit.audit_head(&acme).await.unwrap();
                        let rows = rows(over, vec![mine.clone()]);
                        if audit.append_audit(&acme, over, &rows).await.unwrap() {
                            break;
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    let written = all(&stores, &acme).await;
    let again = rows(Head::default(), written.iter().map(|row| row.entry.clone()).collect());
    assert_eq!(written, again);
    let mut ids: Vec<_> = written.iter().filter_map(|row| row.entry.request_id.clone()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 80);
}
