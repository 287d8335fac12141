//! The HTTP doors.
//!
//! | file | does |
//! |---|---|
//! | `public.rs` | the public listener: the callback, and pages for everything else |
//! | `client.rs` | whose browser it is, behind which proxies, and how many pages it may have |
//! | `callback.rs` | reads what the browser brings from a provider |
//! | `page.rs`, `templates/` | what people see |
//! | `headers.rs` | what goes with every page |
//! | `serve.rs` | connections, and their limits |
//! | `operations.rs` | the operations listener: `/livez`, `/readyz`, `/metrics` |

pub(crate) mod callback;
mod client;
mod headers;
mod operations;
mod page;
mod public;
mod serve;

pub use client::{ForwardedBy, Proxies};
pub use operations::{OperationsState, operations_router};
pub use public::{limited_public_router, public_router};
pub use serve::{Limits, serve};
