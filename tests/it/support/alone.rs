//! What a broker of one process is put together of, where a test does not care.

use std::sync::Arc;
use std::time::Duration;

use token_broker::application::{LeaseSettings, Settings, WatchSettings};
use token_broker::domain::coordination::{LeaseStore, Wakeups};
use token_broker::domain::flow::{ConsentBinding, FLOW_LIFETIME};
use token_broker::domain::ports::Clock;
use token_broker::domain::provider::TimingLimits;
use token_broker::infra::coordination::local::{LocalLeases, LocalWakeups};

/// The usual settings.
pub(crate) fn settings(public_base_url: &str) -> Settings {
    Settings {
        public_base_url: public_base_url.parse().unwrap(),
        return_urls: vec!["https://app.example/chat".parse().unwrap()],
        refresh_ahead: Duration::from_secs(300),
        active_window: Duration::from_hours(24 * 7),
        provider_concurrency: 32,
        timings: TimingLimits::default(),
        flow_lifetime: FLOW_LIFETIME,
        max_wait: Duration::from_secs(5),
        leases: LeaseSettings::default(),
        watches: WatchSettings::default(),
        configured_callers: Vec::new(),
        bindings: vec![ConsentBinding::Confirm, ConsentBinding::App],
        login: None,
    }
}

pub(crate) fn wakeups() -> Arc<dyn Wakeups> {
    Arc::new(LocalWakeups::default())
}

pub(crate) fn leases(clock: Arc<dyn Clock>) -> Arc<dyn LeaseStore> {
    Arc::new(LocalLeases::new(clock))
}
