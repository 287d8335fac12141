//! `token-broker demo`: a whole consent, refresh and revoke, played through the broker's own doors.

pub mod browser;
pub mod html;
pub mod server;
