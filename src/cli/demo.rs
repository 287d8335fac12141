//! `demo`: a whole consent, refresh and revoke on this machine.

use std::io::IsTerminal as _;

use super::error::CliError;
use super::exit::Exit;
use crate::config::Environment;
use crate::demo::{self, DemoError, Options};

const HELP: &str = "\
Plays on free loopback ports with a database in a temporary folder; nothing is left behind. Exit code 0: every step went as
expected.

Examples:
  token-broker demo            about a quarter of a minute
  token-broker demo --stay     then stays up and prints commands to try";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub(super) struct Args {
    /// Stay up at the end, until Ctrl-C
    #[arg(long)]
    stay: bool,
}

pub(super) async fn run(args: &Args) -> Result<Exit, CliError> {
    let plain = Environment::of_process().get("NO_COLOR").is_some_and(|value| !value.is_empty());
    let mut out = std::io::stdout();
    let options = Options { stay: args.stay, colour: out.is_terminal() && !plain };
    demo::run(options, &mut out).await?;
    Ok(Exit::Done)
}

impl From<DemoError> for CliError {
    fn from(error: DemoError) -> Self {
        match error {
            DemoError::Start(error) => error.into(),
            DemoError::Config(error) => error.into(),
            other => Self::new(Exit::Failed, format!("the demo ended early: {other}")),
        }
    }
}
