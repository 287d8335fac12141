//! The HTTP doors.
//!
//! | file | does |
//! |---|---|
//! | `public.rs` | the public listener: the callback, and pages for everything else |
//! | `callback.rs` | reads what the browser brings from a provider |
//! | `page.rs`, `templates/` | what people see |
//! | `headers.rs` | what goes with every page |
//! | `operations.rs` | the operations listener: `/livez`, `/readyz`, `/metrics` |

mod callback;
mod headers;
mod operations;
mod page;
mod public;

pub use operations::{OperationsState, operations_router};
pub use public::public_router;
