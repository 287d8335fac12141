//! Panics go to the log, without texts that were made at run time.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Replaces the standard hook, which prints every panic's text as it is.
pub fn install() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let backtrace = Backtrace::capture();
        let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(location, text = safe_text(panic), backtrace, "panic");
    }));
}

/// The text if it is a literal of the program. A formatted one may hold a value, and the value may be a secret.
fn safe_text(panic: &PanicHookInfo<'_>) -> &'static str {
    panic.payload().downcast_ref::<&'static str>().copied().unwrap_or("[withheld: made at run time]")
}
