//! Permits, wake-ups and leases of a single process, in memory. They end with it; the row's claim, the journal and the
//! settling time cover that.

mod expiring;
mod leases;
mod permits;
mod wakeups;

pub use leases::LocalLeases;
pub use permits::LocalPermits;
pub use wakeups::LocalWakeups;
