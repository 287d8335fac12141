//! `token-broker demo`: a whole consent, refresh and revoke, played through the broker's own doors.
//!
//! | file | holds |
//! |---|---|
//! | `story.rs` | what happens, step by step, and what is expected of each step |
//! | `stage.rs` | the broker, its database and configuration in a temporary folder, the authorization server |
//! | `server/` | the demo's authorization server |
//! | `agent.rs` | a gRPC client as any agent has one |
//! | `browser.rs`, `html.rs` | a scripted browser for the users |
//! | `report.rs` | what is printed |

mod agent;
pub mod browser;
mod error;
pub mod html;
mod report;
pub mod server;
mod stage;
mod story;

use std::io::Write;

pub use error::DemoError;
use report::Report;
use stage::Stage;

use crate::lifecycle;

/// How the demo is played.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Stay up at the end, until SIGINT or SIGTERM.
    pub stay: bool,
    /// Use colours.
    pub colour: bool,
}

/// Plays the demo. An error: an expectation did not hold, or something could not be set up.
pub async fn run(options: Options, out: &mut (dyn Write + Send)) -> Result<(), DemoError> {
    let mut report = Report::new(out, options.colour);
    report.line("token-broker demo: a consent, a refresh, two users and a revoke, on this machine alone.")?;
    let stage = Stage::set_up().await?;
    let outcome = play(&stage, options, &mut report).await;
    stage.take_down().await;
    outcome
}

async fn play(stage: &Stage, options: Options, report: &mut Report<'_>) -> Result<(), DemoError> {
    stage.introduce(report)?;
    story::play(stage, report).await?;
    if options.stay {
        stage.show_what_to_try(report)?;
        lifecycle::stop_signal().await?;
        report.line("stopping")?;
    }
    Ok(())
}
