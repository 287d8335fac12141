//! Where commands find the configuration.

use std::path::{Path, PathBuf};

use super::error::CliError;
use crate::config::{Config, Environment};

/// The file that is read if none is named.
pub(super) const DEFAULT_PATH: &str = "token-broker.toml";

/// Which configuration.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct ConfigArgs {
    /// The configuration file [default: token-broker.toml here, if there is one]
    #[arg(long, value_name = "FILE", env = "TOKEN_BROKER_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigArgs {
    /// Reads it with the environment over it.
    pub(super) fn load(&self) -> Result<Config, CliError> {
        let default = Some(Path::new(DEFAULT_PATH)).filter(|path| path.exists());
        Ok(Config::load(self.config.as_deref().or(default), &Environment::of_process())?)
    }

    /// The operator's provider definitions; none if there is no configuration, so that the catalogue can be looked at
    /// before there is one.
    pub(super) fn definition_files(&self) -> Result<Vec<PathBuf>, CliError> {
        if self.config.is_none() && !Path::new(DEFAULT_PATH).exists() {
            return Ok(Vec::new());
        }
        Ok(self.load()?.provider_definitions)
    }
}
