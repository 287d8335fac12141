//! The callback by a real browser's means: who may spend a link, and what a failure leaves behind.

mod failures;
mod forgery;
mod issuer;
