//! At the public listener of the whole service: by address, and not by what a browser says that its address is.

use token_broker::app::Overrides;

use crate::support::broker::{BrokerBuilder, TestBroker};

async fn open(builder: BrokerBuilder) -> TestBroker {
    builder.set("limits.pages", 1).set("limits.burst", "5s").start_in_process(Overrides::default()).await
}

/// The statuses of some requests, each with another address in the header, and the last answer that was a refusal.
async fn statuses(broker: &TestBroker) -> (Vec<u16>, Option<reqwest::Response>) {
    let browser = reqwest::Client::builder().no_proxy().build().unwrap();
    let (mut statuses, mut refused) = (Vec::new(), None);
    for n in 0..30 {
        let request = browser.get(format!("{}/nothing", broker.public_url()));
        let answer = request.header("x-forwarded-for", format!("198.51.100.{n}")).send().await.unwrap();
        statuses.push(answer.status().as_u16());
        if answer.status() == 429 {
            refused = Some(answer);
        }
    }
    (statuses, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_spoofed_address_is_not_believed() {
    let broker = open(BrokerBuilder::new()).await;
    let (statuses, refused) = statuses(&broker).await;
    assert_eq!(statuses[0], 404);
    let refused = refused.unwrap_or_else(|| panic!("{statuses:?}"));
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=6).contains(&wait), "{wait}");
    assert!(refused.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'"));
    assert!(refused.text().await.unwrap().contains("data-page=\"too-many\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_proxy_is_believed() {
    let broker = open(BrokerBuilder::new().set("public.trusted_proxies", vec!["127.0.0.0/8"])).await;
    let (statuses, refused) = statuses(&broker).await;
    assert!(refused.is_none(), "{statuses:?}");
}
