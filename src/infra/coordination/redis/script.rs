//! Scripts by their hash, and in full when the server does not know the hash (any more).

use redis::Cmd;

/// A script of `scripts/`.
pub(super) struct Script {
    code: &'static str,
    hash: String,
}

impl Script {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, hash: redis::Script::new(code).get_hash().to_owned() }
    }

    /// A call with these keys and arguments.
    pub(super) fn call(&self, keys: &[String], arguments: &[&[u8]]) -> ScriptCall {
        let command = |how: &str, script: &str| {
            let mut command = redis::cmd(how);
            command.arg(script).arg(keys.len()).arg(keys).arg(arguments);
            command
        };
        ScriptCall { by_hash: command("EVALSHA", &self.hash), in_full: command("EVAL", self.code) }
    }
}

/// A call of a script, both ways. `EVAL` leaves the script with the server. `SCRIPT LOAD` would not do: in a cluster it goes to
/// all nodes and fails with any of them.
pub(super) struct ScriptCall {
    pub(super) by_hash: Cmd,
    pub(super) in_full: Cmd,
}
