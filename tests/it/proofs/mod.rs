//! The promises of the main job, shown on the whole service: real gRPC, real HTTP, a real provider.

mod canary;
mod crash;
mod interleavings;
mod isolation;
mod storm;
