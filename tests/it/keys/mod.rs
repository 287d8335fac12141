//! The life of keys: rotation, the passes that move rows, retirement, deletion; and the services that hold
//! key-encryption keys.

mod aws;
mod cli;
mod gcp;
mod lifecycle;
mod passes;
mod stand_in;
mod startup;
mod transit;
mod users;
mod world;
