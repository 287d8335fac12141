//! The way out: the one hardened HTTP client. Everything that leaves the broker by HTTP leaves here, so TLS, limits, the guard
//! against being pointed into this network and the rule of sending once stand in one place. The one part of `infra` that other
//! parts may use.
//!
//! | file | holds |
//! |---|---|
//! | `http` | TLS or loopback, limits; was it sent or not |
//! | `clients` | no redirects, no retries, no proxies; a client for each way out |
//! | `guard` | where what a document from outside names may lead |
//! | `resolve` | from names to addresses, checked and pinned |
//! | `address` | which addresses are public |
//! | `settings` | the limits |
//! | `service` | the same for key services and the machine's metadata service |

mod address;
mod clients;
mod guard;
mod http;
mod resolve;
mod service;
mod settings;

pub(crate) use clients::check_certificate;
pub use guard::{Guard, Reach};
pub use http::Http;
pub(crate) use http::{Answer, Request, Route, SendError, is_allowed};
pub use resolve::{Lookup, SystemLookup};
pub use service::ServiceSetupError;
pub(crate) use service::{ServiceAnswer, ServiceError, ServiceHttp};
pub use settings::{HttpSettings, HttpSetupError};
