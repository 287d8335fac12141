//! What is wrong with a tenant's own registration, in the words of the request. No value is repeated: it may be a secret in the
//! wrong field.

use super::error::RegistrationMistake as Mistake;
use crate::domain::ports::ConfigMistake;

/// A key of the operator's file, as requests name it.
fn field_of(key: &str) -> String {
    match key {
        "private_key_file" => "authentication.private_key".to_owned(),
        "tls_certificate_file" => "authentication.tls_certificate".to_owned(),
        "client_secret" => "authentication.client_secret".to_owned(),
        "client_auth" => "authentication.method".to_owned(),
        other => other.to_owned(),
    }
}

/// A mistake, as the operator who made it is told.
pub(crate) fn told(mistake: &Mistake) -> ConfigMistake {
    let field = mistake.key().map_or_else(|| "provider".to_owned(), |key| field_of(&key));
    let description = match mistake {
        Mistake::DuplicateId => "There is one of this id already.".to_owned(),
        Mistake::UnknownDefinition { known, .. } => {
            format!("There is no such definition; there are: {}.", known.join(", "))
        }
        Mistake::BadClientId => {
            "Must be 1 to 512 printable ASCII characters without space at either end.".to_owned()
        }
        Mistake::MissingSecret { .. } => "Needed: the definition describes a confidential client.".to_owned(),
        Mistake::UnexpectedSecret { .. } => {
            "Must not be given: the definition describes a public client.".to_owned()
        }
        Mistake::MissingClientKey { method, .. } => format!("Needed: the client authenticates by {method}."),
        Mistake::UnusedClientKey { method, .. } => format!(
            "Is not used, since the client authenticates by {method}: leave it out, or choose by `method`."
        ),
        Mistake::NoIssuer { .. } => {
            "Client assertions name the issuer, and the definition has none: choose another method."
                .to_owned()
        }
        Mistake::BadPrivateKey => {
            "Can't sign: must be an RSA (2048 bits or more), P-256 or Ed25519 key as PKCS#8 in PEM, not \
             encrypted, and `private_key_algorithm` of its kind."
                .to_owned()
        }
        Mistake::BadCertificate => {
            "Certificate and key do not make a TLS client: both in PEM, the key not encrypted, and of the certificate."
                .to_owned()
        }
        Mistake::MissingVariable { description, .. } => format!("Needed: {description}."),
        Mistake::UnknownVariable { known, .. } if known.is_empty() => {
            "The definition has no variables.".to_owned()
        }
        Mistake::UnknownVariable { known, .. } => {
            format!("Is no variable of the definition, which has: {}.", known.join(", "))
        }
        Mistake::BadVariable { problem, .. } => format!("It {problem}."),
        Mistake::BadUrl { field, problem } => format!("With these, {field} {problem}."),
    };
    ConfigMistake { field, description }
}
