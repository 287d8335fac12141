//! `make cluster`: the product as it runs in production, on one machine: three replicas of the real binary over a private
//! Postgres and Redis, a provider to play with, a client that asks each in turn. Ends in order after half a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use crate::backing::Backing;
use crate::clients::{self, Load};
use crate::deeds::{Clerk, Desk, Way};
use crate::fleet::{Build, Fleet};
use crate::history::{Answer, CredentialNo, Outcome, Question};
use crate::provider::{Provider, Settings};
use crate::record::Record;
use crate::site::{Site, Times};

const REPLICAS: usize = 3;
const USERS: CredentialNo = 3;
/// How long an access token lives: short, so that there are refreshes to see.
const LIFE: Duration = Duration::from_secs(6);
const LASTS: Duration = Duration::from_secs(15);
/// Callers who report one refused token at the same time.
const REPORTS: usize = 30;

/// Whether it all went as it says.
pub(crate) async fn run() -> bool {
    println!("A provider, Postgres and Redis are started…");
    let times = Times {
        http_deadline: Duration::from_secs(5),
        strict_settle: Duration::from_secs(30),
        refresh_ahead: Duration::from_mins(5),
    };
    let provider = Provider::start(Settings {
        seed: 0,
        life: (LIFE, LIFE),
        grace: Duration::from_secs(30),
        deadline: times.http_deadline,
        latency: Duration::ZERO,
    })
    .await;
    let backing = Arc::new(Backing::servers("").await);
    let site = Arc::new(Site::write(REPLICAS, times, &backing, &provider));
    println!("  provider  http://{}\n{}", provider.address, backing.addresses());
    let record = Arc::new(Record::default());
    let fleet = Fleet::new(Arc::clone(&site), Arc::clone(&record), Build::Product);
    let keepers = fleet.start().await;
    println!("Three replicas of `token-broker serve` run:");
    for (number, replica) in site.replicas.iter().enumerate() {
        println!(
            "  replica {number}  gRPC 127.0.0.1:{}  callbacks http://127.0.0.1:{}  metrics http://127.0.0.1:{}",
            replica.grpc, replica.public, replica.operations
        );
    }
    let load = Arc::new(Load {
        site: Arc::clone(&site),
        record: Arc::clone(&record),
        desk: Desk::default(),
        credentials: USERS,
        seed: 0,
        pace: Duration::from_millis(100),
        stop: CancellationToken::new(),
    });
    let mut clerk = Clerk::new(&load, &provider.book, 0);
    let mut good = true;
    for user in 0..USERS {
        good &= clerk.connect(user, Way::Consent).await;
        println!("user-{user} has consented: begun at one replica, called back to another");
    }
    good &= in_turn(&site, &provider).await;
    good &= reports(&site, &provider).await;
    println!("SIGTERM to all replicas…");
    for (number, end) in fleet.stop(keepers).await.into_iter().enumerate() {
        let in_order = end.is_some_and(|status| status.success());
        println!(
            "  replica {number}: {}",
            end.map_or("it did not end".to_owned(), |status| status.to_string())
        );
        good &= in_order;
    }
    good &= record.incidents().is_empty();
    println!("cluster: {}", if good { "ok" } else { "FAILED" });
    good
}

/// A client that asks one replica after the other, over several lives of the tokens.
async fn in_turn(site: &Site, provider: &Provider) -> bool {
    println!("For {} s a client asks one replica after the other:", LASTS.as_secs());
    let mut clients = clients::clients(site);
    let mut served = [0_u32; REPLICAS];
    let mut failed = 0_u32;
    let mut generations: BTreeMap<CredentialNo, i64> = BTreeMap::new();
    let until = Instant::now() + LASTS;
    let mut ticks = interval(Duration::from_millis(50));
    let mut turn = 0;
    while Instant::now() < until {
        ticks.tick().await;
        let (replica, user) = (turn % REPLICAS, CredentialNo::try_from(turn / REPLICAS).unwrap() % USERS);
        turn += 1;
        match clients::ask(&mut clients[replica], user, Question::Read).await {
            Answer::Token { generation, .. } => {
                served[replica] += 1;
                if generations.insert(user, generation).is_some_and(|before| before != generation) {
                    println!("  user-{user} has generation {generation}, first seen at replica {replica}");
                }
            }
            other => {
                failed += 1;
                println!("  user-{user} at replica {replica}: {other:?}");
            }
        }
    }
    let presentations = provider.book.presentations();
    let tokens: BTreeSet<_> = presentations.iter().map(|p| (p.grant, p.issue)).collect();
    println!("Tokens served by each replica: {served:?}; calls without one: {failed}");
    println!("Refresh tokens presented: {}, different ones: {}", presentations.len(), tokens.len());
    failed == 0 && served.iter().all(|count| *count > 0) && presentations.len() == tokens.len()
}

/// Many callers whose token the provider's API has refused, at all replicas at once.
async fn reports(site: &Site, provider: &Provider) -> bool {
    let clients = clients::clients(site);
    let now = clients::ask(&mut clients[0].clone(), 0, Question::Read).await;
    let Answer::Token { grant, generation, .. } = now else { return false };
    println!("{REPORTS} callers at all replicas report generation {generation} of user-0 as refused:");
    let mut callers = JoinSet::new();
    for number in 0..REPORTS {
        let mut client = clients[number % REPLICAS].clone();
        callers.spawn(async move { clients::ask(&mut client, 0, Question::Refresh(generation)).await });
    }
    let answers: BTreeSet<String> = callers.join_all().await.iter().map(|a| format!("{a:?}")).collect();
    let issued =
        |p: &&crate::history::Presentation| p.grant == grant && matches!(p.outcome, Outcome::Issued(_));
    let presentations = provider.book.presentations();
    let after = presentations.iter().filter(issued).count();
    let different: BTreeSet<_> = presentations.iter().filter(issued).map(|p| p.issue).collect();
    println!(
        "  different answers: {}, requests to the provider beyond one a token: {}",
        answers.len(),
        after - different.len()
    );
    answers.len() == 1 && after == different.len()
}
