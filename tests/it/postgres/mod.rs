//! What is `PostgreSQL`'s alone. What every store must do is in the contract.

mod asked;
mod clock;
mod opening;
mod outages;
mod plans;

use token_broker::domain::credential::Credential;
use token_broker::domain::ports::{CredentialStore as _, StoredGrant};
use token_broker::infra::storage::postgres::{PgStore, RowClock};

use crate::contract::samples::{key, new_grant};
use crate::engines::postgres::{self, Postgres};

/// A database on the shared server, with a store.
struct Place {
    server: &'static Postgres,
    database: String,
    store: PgStore,
}

impl Place {
    async fn new() -> Self {
        Self::with(RowClock::Caller).await
    }

    async fn with(row_clock: RowClock) -> Self {
        let server = postgres::shared();
        let database = server.migrated_database().await;
        let store = postgres::open(&postgres::settings(&server.url(&database)), row_clock).await;
        Self { server, database, store }
    }
}

async fn connected(store: &PgStore, user: &str, n: u32) -> Credential {
    match store.store_grant(new_grant(key(user), n)).await.unwrap() {
        StoredGrant::Stored(row) => *row,
        other => panic!("{other:?}"),
    }
}
