//! What tests share: real servers they start for themselves, and hands to work them.

pub(crate) mod browser;
<<<<<<< HEAD
pub(crate) mod cargo_toml;
=======
pub(crate) mod clock;
pub(crate) mod faulty_store;
>>>>>>> e1243e0 (Tests of the use cases on the real store and vault)
pub(crate) mod hostile;
pub(crate) mod oidc;
pub(crate) mod provider;
pub(crate) mod rig;
pub(crate) mod strict_provider;
