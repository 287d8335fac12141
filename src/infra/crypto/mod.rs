//! The vault: AES-256-GCM under wrapped data keys.
