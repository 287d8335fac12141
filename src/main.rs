//! The `token-broker` binary: arguments, configuration, telemetry, run, exit code.

fn main() {}
