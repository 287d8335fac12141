//! New files, and new secrets to put in them.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::error::CliError;
use super::exit::Exit;
use crate::domain::access_policy::API_KEY_PREFIX;
use crate::domain::ports::Entropy as _;
use crate::domain::secret::SecretString;
use crate::infra::system::SystemEntropy;

/// Writes a new file that only its owner can read. Never replaces one.
pub(super) fn private_file(path: &Path, content: &str) -> Result<(), CliError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let written = options.open(path).and_then(|mut file| {
        file.write_all(content.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => exists(path),
        _ => CliError::new(Exit::Failed, format!("{} cannot be written: {error}", path.display())),
    })
}

/// Says that a file is in the way.
pub(super) fn exists(path: &Path) -> CliError {
    CliError::new(Exit::Failed, format!("{} is there already, and is left as it is", path.display()))
}

fn random_bytes() -> zeroize::Zeroizing<[u8; 32]> {
    let mut bytes = zeroize::Zeroizing::new([0; 32]);
    SystemEntropy.fill(&mut *bytes);
    bytes
}

/// A new API key.
pub(super) fn new_api_key() -> SecretString {
    SecretString::new(format!("{API_KEY_PREFIX}{}", URL_SAFE_NO_PAD.encode(*random_bytes())))
}

/// A new key-encryption key, as the configuration reads it.
pub(super) fn new_vault_key() -> SecretString {
    SecretString::new(STANDARD.encode(*random_bytes()))
}
