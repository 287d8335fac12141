//! The way out: the one hardened HTTP client. Everything that leaves the broker by HTTP leaves here, so TLS, limits and the
//! rule of sending once stand in one place. The one part of `infra` that other parts may use.
//!
//! | file | holds |
//! |---|---|
//! | `http` | TLS or loopback, no redirects, no retries, limits; was it sent or not |

mod http;

pub(crate) use http::{Answer, Request, SendError, is_allowed};
pub use http::{Http, HttpSettings, HttpSetupError};
