//! Start, readiness, drain, end.

use crate::support::broker::BrokerBuilder;

#[tokio::test]
async fn it_starts_again_on_the_same_folder_after_either_end() {
    let broker = BrokerBuilder::new().spawn_process().await;
    assert!(broker.terminate().await.success());
    broker.restart().await;
    broker.kill().await;
    broker.restart().await;
    assert!(broker.terminate().await.success());
    assert!(broker.logs().contains("\"stopped\""));
}
