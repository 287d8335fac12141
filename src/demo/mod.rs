//! The demo and its small local authorization server.
