//! The HTTP doors.
//!
//! | file | does |
//! |---|---|
//! | `public.rs` | the public listener: what is where |
//! | `client.rs` | whose browser it is, and how many pages it may have |
//! | `callback.rs` | reads what the browser brings from a provider |
//! | `connect.rs` | the page in front of a consent, its form, and the way back from a sign-in |
//! | `cookie.rs` | by which a browser is known again |
//! | `page.rs`, `templates/` | what people see |
//! | `headers.rs` | what goes with every page |
//! | `serve.rs` | connections, and their limits |
//! | `operations.rs` | the operations listener: `/livez`, `/readyz`, `/metrics` |

pub(crate) mod callback;
mod client;
mod connect;
mod cookie;
mod headers;
mod operations;
mod page;
mod public;
mod serve;

pub use operations::{OperationsState, operations_router};
pub use public::{limited_public_router, public_router};
pub use serve::{Limits, serve};
