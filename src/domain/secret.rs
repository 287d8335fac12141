//! Secrets as a type: redacted when formatted, wiped when dropped, never compared with `==`.

use std::fmt;

use zeroize::Zeroizing;

/// A secret text: a token, an authorization code, a client secret, a PKCE verifier, an API key.
///
/// `Debug` prints a fixed mask, there is no `Display`, `PartialEq` or `Serialize`, and the memory is wiped on drop.
/// Reading it takes the deliberately loud [`SecretString::expose_secret`].
#[derive(Clone)]
pub struct SecretString(Zeroizing<String>);

impl SecretString {
    /// Takes ownership of a secret.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The secret itself. Never pass the answer to a log, an error or a format macro.
    #[must_use]
    pub fn expose_secret(&self) -> &str {
        &self.0
    }

    /// Whether there is nothing in it. Providers send `"refresh_token": ""` for "none".
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for SecretString {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl From<&str> for SecretString {
    fn from(value: &str) -> Self {
        Self::new(value.to_owned())
    }
}

/// Secret bytes: a key, or a plaintext on its way into or out of the vault.
#[derive(Clone)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes ownership of secret bytes.
    #[must_use]
    pub fn new(value: Vec<u8>) -> Self {
        Self(Zeroizing::new(value))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose_secret(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatting_never_shows_the_secret() {
        let text = SecretString::new("canary".to_owned());
        let bytes = SecretBytes::new(b"canary".to_vec());
        let shown = format!("{text:?} {text:#?} {bytes:?} {bytes:#?}");
        assert!(!shown.contains("canary") && !shown.contains("99, 97"), "{shown}");
        assert!(shown.contains("[secret]"));
    }
}
