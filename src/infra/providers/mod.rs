//! Providers as data: the strict loader and the built-in catalogue.
//!
//! | file | holds |
//! |---|---|
//! | `catalogue/*.toml` | the built-in definitions, one provider each, embedded |
//! | `catalogue.rs` | all definitions: the built-in ones and the operator's |
//! | `client.rs` | who the broker is there, by secret or by key |
//! | `definition.rs` | a definition: everything about a provider but the broker's client there |
//! | `own.rs` | the operator's providers and tenants' own, put together |
//! | `own_mistakes.rs` | what is wrong with a tenant's own, as its operators are told |
//! | `parse/` | TOML to definition, one file per section |
//! | `reader.rs` | typed reads from TOML that collect mistakes with their places |
//! | `registration.rs` | definition and client become a [`crate::domain::provider::Provider`] |
//! | `template.rs` | URLs with `{variables}` |
//!
//! The format is described in `docs/PROVIDERS.md`.

mod catalogue;
mod client;
mod definition;
mod error;
mod own;
mod own_mistakes;
pub(crate) mod parse;
mod reader;
mod registration;
mod template;

pub use catalogue::Catalogue;
pub use client::{ClientKeys, PrivateKey};
pub use definition::{
    Definition, EndpointTemplates, RevocationTemplate, SecretRule, Source, Variable, VariableKind,
};
pub use error::{DefinitionError, RegistrationError, RegistrationMistake};
pub use own::{ClientCheck, TenantProviders};
pub(crate) use own_mistakes::told;
pub use registration::{ConfiguredProviders, Registration};
