//! `[vault.keys.<id>]` of a key that a service holds.

use std::path::PathBuf;

use url::Url;

use super::reader::{Key, Section};
use super::values::web_url;
use crate::domain::secret::SecretString;

/// `aws_kms = "arn:…"`.
#[derive(Debug, Clone)]
pub struct AwsKms {
    /// The ARN of a key or alias.
    pub key: String,
    /// From the ARN.
    pub region: String,
    /// Instead of the public one.
    pub endpoint: Option<Url>,
    /// Credentials, as AWS's own tools name them in the environment.
    pub environment: AwsEnvironment,
}

/// The environment's variables of AWS's own tools: see the settings of the same names in AWS's documentation.
#[derive(Debug, Clone, Default)]
#[expect(missing_docs, reason = "each is the variable of that name")]
pub struct AwsEnvironment {
    pub access_key_id: Option<String>,
    pub secret_access_key: Option<SecretString>,
    pub session_token: Option<SecretString>,
    pub web_identity_token_file: Option<PathBuf>,
    pub role_arn: Option<String>,
    pub role_session_name: Option<String>,
    pub sts_endpoint: Option<Url>,
    pub container_uri: Option<Url>,
    pub container_token: Option<SecretString>,
    pub container_token_file: Option<PathBuf>,
    pub metadata: Option<Url>,
}

/// `gcp_kms = "projects/…"`.
#[derive(Debug, Clone)]
pub struct GcpKms {
    /// The key's name.
    pub key: String,
    /// Instead of the public one.
    pub endpoint: Option<Url>,
    /// The content of the file with credentials; `None`: the metadata service.
    pub credentials: Option<SecretString>,
    /// `GCE_METADATA_HOST`.
    pub metadata_host: Option<String>,
}

/// `transit = "https://…"`.
#[derive(Debug, Clone)]
pub struct Transit {
    /// Where the service is, without path.
    pub address: Url,
    /// Where the engine is mounted.
    pub mount: String,
    /// The key's name.
    pub key: String,
    /// `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// The key derives a key for each context.
    pub derived: bool,
    /// PEM.
    pub authorities: Option<Vec<u8>>,
    /// Who the broker is.
    pub auth: TransitAuth,
}

/// How the broker logs in.
#[derive(Debug, Clone)]
pub enum TransitAuth {
    /// A token in a file.
    TokenFile(PathBuf),
    /// The Kubernetes auth method.
    Kubernetes {
        /// Where it is mounted.
        mount: String,
        /// The role there.
        role: String,
        /// The pod's token.
        token_file: PathBuf,
    },
    /// The `AppRole` auth method.
    AppRole {
        /// Where it is mounted.
        mount: String,
        /// The role's id.
        role_id: String,
        /// The file with the secret id.
        secret_id_file: PathBuf,
    },
}

/// Where a pod's token is.
const POD_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

fn out_of_place(keys: &[&Key<'_>], kind: &str) {
    for key in keys.iter().filter(|key| key.is_set()) {
        key.problem(format!("is of use beside {kind} only"));
    }
}

pub(super) fn read_aws_kms(section: &Section<'_>, aws: &Key<'_>) -> Option<AwsKms> {
    let endpoint = section.optional("aws_endpoint");
    if !aws.is_set() {
        out_of_place(&[&endpoint], "aws_kms");
        return None;
    }
    let url = endpoint.is_set().then(|| endpoint.parsed(web_url));
    let (key, region) = aws.parsed(|text| {
        let region = region_of(text).ok_or(
            "must be the ARN of a key or an alias, as \"arn:aws:kms:eu-central-1:111122223333:key/…\"",
        )?;
        Ok::<_, &str>((text.to_owned(), region.to_owned()))
    })?;
    let endpoint = match url {
        Some(url) => Some(url?),
        None => None,
    };
    Some(AwsKms { key, region, endpoint, environment: aws_environment(section, aws)? })
}

/// `arn:partition:kms:region:account:key/…` or `…:alias/…`.
fn region_of(arn: &str) -> Option<&str> {
    let parts: Vec<&str> = arn.split(':').collect();
    let [first, partition, "kms", region, account, resource] = parts[..] else { return None };
    let slug = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    let kind = resource.strip_prefix("key/").or_else(|| resource.strip_prefix("alias/"));
    let fits = first == "arn"
        && partition.starts_with("aws")
        && slug(region)
        && account.bytes().all(|b| b.is_ascii_digit())
        && kind.is_some_and(|name| !name.is_empty());
    fits.then_some(region)
}

fn aws_environment(section: &Section<'_>, aws: &Key<'_>) -> Option<AwsEnvironment> {
    let get = |name: &str| section.environment().get(name).map(str::trim).filter(|value| !value.is_empty());
    let text = |name| get(name).map(str::to_owned);
    let secret = |name| get(name).map(SecretString::from);
    let path = |name| get(name).map(PathBuf::from);
    let url = |name: &str| match get(name) {
        None => Some(None),
        Some(text) => {
            if let Ok(url) = Url::parse(text) {
                Some(Some(url))
            } else {
                aws.problem(format!("the environment variable {name} must be a URL"));
                None
            }
        }
    };
    let full = url("AWS_CONTAINER_CREDENTIALS_FULL_URI")?;
    let relative = get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        .and_then(|path| Url::parse("http://169.254.170.2/").ok()?.join(path).ok());
    let metadata = match url("AWS_EC2_METADATA_SERVICE_ENDPOINT")? {
        _ if get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) => None,
        Some(url) => Some(url),
        None => Url::parse("http://169.254.169.254/").ok(),
    };
    Some(AwsEnvironment {
        access_key_id: text("AWS_ACCESS_KEY_ID"),
        secret_access_key: secret("AWS_SECRET_ACCESS_KEY"),
        session_token: secret("AWS_SESSION_TOKEN"),
        web_identity_token_file: path("AWS_WEB_IDENTITY_TOKEN_FILE"),
        role_arn: text("AWS_ROLE_ARN"),
        role_session_name: text("AWS_ROLE_SESSION_NAME"),
        sts_endpoint: url("AWS_ENDPOINT_URL_STS")?,
        container_uri: relative.or(full),
        container_token: secret("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        container_token_file: path("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
        metadata,
    })
}

pub(super) fn read_gcp_kms(section: &Section<'_>, gcp: &Key<'_>) -> Option<GcpKms> {
    let endpoint = section.optional("gcp_endpoint");
    let file = section.optional("gcp_credentials_file");
    if !gcp.is_set() {
        out_of_place(&[&endpoint, &file], "gcp_kms");
        return None;
    }
    let url = endpoint.is_set().then(|| endpoint.parsed(web_url));
    let key = gcp.parsed(|text| {
        if is_gcp_key(text) {
            Ok(text.to_owned())
        } else {
            Err("must be a key's name: \"projects/…/locations/…/keyRings/…/cryptoKeys/…\"")
        }
    });
    let get = |name: &str| section.environment().get(name).filter(|value| !value.is_empty());
    let credentials = if file.is_set() {
        Some(SecretString::new(file.file_content()?))
    } else if let Some(path) = get("GOOGLE_APPLICATION_CREDENTIALS") {
        match std::fs::read_to_string(path) {
            Ok(text) => Some(SecretString::new(text)),
            Err(error) => {
                gcp.problem(format!(
                    "the file that GOOGLE_APPLICATION_CREDENTIALS names cannot be read: {error}"
                ));
                return None;
            }
        }
    } else {
        // What `gcloud auth application-default login` leaves.
        let home = get("HOME").map(PathBuf::from);
        let file = home.map(|home| home.join(".config/gcloud/application_default_credentials.json"));
        file.and_then(|file| std::fs::read_to_string(file).ok()).map(SecretString::new)
    };
    let metadata_host = get("GCE_METADATA_HOST").map(str::to_owned);
    let endpoint = match url {
        Some(url) => Some(url?),
        None => None,
    };
    Some(GcpKms { key: key?, endpoint, credentials, metadata_host })
}

fn is_gcp_key(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    let ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key] = parts[..] else {
        return false;
    };
    let fine = |part: &&str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.:".contains(&b))
    };
    [project, location, ring, key].iter().all(fine)
}

pub(super) fn read_transit(section: &Section<'_>, transit: &Key<'_>) -> Option<Transit> {
    let namespace = section.optional("transit_namespace");
    let derived = section.optional("transit_derived");
    let ca_file = section.optional("transit_ca_file");
    let token_file = section.optional("transit_token_file");
    let kubernetes_role = section.optional("transit_kubernetes_role");
    let kubernetes_mount = section.optional("transit_kubernetes_mount");
    let kubernetes_token_file = section.optional("transit_kubernetes_token_file");
    let role_id = section.optional("transit_approle_role_id");
    let secret_id_file = section.optional("transit_approle_secret_id_file");
    let approle_mount = section.optional("transit_approle_mount");
    if !transit.is_set() {
        let all = [
            &namespace,
            &derived,
            &ca_file,
            &token_file,
            &kubernetes_role,
            &kubernetes_mount,
            &kubernetes_token_file,
            &role_id,
            &secret_id_file,
            &approle_mount,
        ];
        out_of_place(&all, "transit");
        return None;
    }
    let text_or =
        |key: &Key<'_>, default: &str| if key.is_set() { key.text() } else { Some(default.to_owned()) };
    let auth = match [&token_file, &kubernetes_role, &role_id].map(Key::is_set) {
        [true, false, false] => token_file.path().map(TransitAuth::TokenFile),
        [false, true, false] => {
            let mount = text_or(&kubernetes_mount, "kubernetes");
            let file = if kubernetes_token_file.is_set() {
                kubernetes_token_file.path()
            } else {
                Some(PathBuf::from(POD_TOKEN))
            };
            let role = kubernetes_role.text();
            mount.zip(role).zip(file).map(|((mount, role), token_file)| TransitAuth::Kubernetes {
                mount,
                role,
                token_file,
            })
        }
        [false, false, true] => {
            if !secret_id_file.is_set() {
                secret_id_file.problem("is required beside transit_approle_role_id");
            }
            let mount = text_or(&approle_mount, "approle");
            mount.zip(role_id.text()).zip(secret_id_file.path()).map(|((mount, role_id), secret_id_file)| {
                TransitAuth::AppRole { mount, role_id, secret_id_file }
            })
        }
        _ => {
            transit.problem(
                "needs exactly one of transit_token_file, transit_kubernetes_role and transit_approle_role_id beside it",
            );
            None
        }
    };
    let parts = transit.parsed(transit_url);
    let authorities = if ca_file.is_set() { Some(ca_file.file_content()?.into_bytes()) } else { None };
    let derived = if derived.is_set() { derived.boolean()? } else { false };
    let namespace = if namespace.is_set() { Some(namespace.text()?) } else { None };
    let (address, mount, key) = parts?;
    Some(Transit { address, mount, key, namespace, derived, authorities, auth: auth? })
}

/// `https://host:8200/v1/<mount>/keys/<key>`, the address of the key in the service's own API.
fn transit_url(text: &str) -> Result<(Url, String, String), &'static str> {
    let wrong = "must be the key's address in the API, as \"https://vault.example:8200/v1/transit/keys/token-broker\"";
    let mut url = web_url(text)?;
    let path = url.path().strip_prefix("/v1/").ok_or(wrong)?;
    let (mount, key) = path.rsplit_once("/keys/").ok_or(wrong)?;
    let fine = |part: &str| {
        part.split('/').all(|part| {
            !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        })
    };
    if !fine(mount) || !fine(key) || key.contains('/') {
        return Err(wrong);
    }
    let (mount, key) = (mount.to_owned(), key.to_owned());
    url.set_path("/");
    Ok((url, mount, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_services_are_named_as_the_services_name_them() {
        for (arn, region) in [
            (
                "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
                "eu-central-1",
            ),
            ("arn:aws:kms:us-east-1:111122223333:alias/token-broker", "us-east-1"),
            ("arn:aws-cn:kms:cn-north-1:111122223333:key/mrk-1", "cn-north-1"),
        ] {
            assert_eq!(region_of(arn), Some(region), "{arn}");
        }
        for bad in [
            "",
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "alias/token-broker",
            "arn:aws:kms:eu-central-1:111122223333:key/",
            "arn:aws:s3:eu-central-1:111122223333:key/x",
            "arn:aws:kms::111122223333:key/x",
            "arn:aws:kms:evil.example/:111122223333:key/x",
            "arn:aws:kms:eu-central-1:x:key/x",
        ] {
            assert_eq!(region_of(bad), None, "{bad}");
        }
        assert!(is_gcp_key("projects/p-1/locations/global/keyRings/r/cryptoKeys/k_1"));
        assert!(is_gcp_key("projects/example.com:p/locations/global/keyRings/r/cryptoKeys/k"));
        for bad in [
            "",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
            "projects//locations/global/keyRings/r/cryptoKeys/k",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k?x",
            "/projects/p/locations/global/keyRings/r/cryptoKeys/k",
        ] {
            assert!(!is_gcp_key(bad), "{bad}");
        }
    }

    #[test]
    fn the_address_of_a_transit_key_has_its_mount_and_name() {
        let parts = |text| transit_url(text).map(|(url, mount, key)| (url.to_string(), mount, key));
        let expected = |address: &str, mount: &str, key: &str| {
            Ok((address.to_owned(), mount.to_owned(), key.to_owned()))
        };
        assert_eq!(
            parts("https://v.example:8200/v1/transit/keys/tb"),
            expected("https://v.example:8200/", "transit", "tb")
        );
        assert_eq!(
            parts("http://127.0.0.1:8200/v1/team/a/transit/keys/tb"),
            expected("http://127.0.0.1:8200/", "team/a/transit", "tb")
        );
        for bad in [
            "http://v.example/v1/transit/keys/tb",
            "https://v.example/transit/keys/tb",
            "https://v.example/v1/transit/tb",
            "https://v.example/v1//keys/tb",
            "https://v.example/v1/transit/keys/",
            "https://v.example/v1/transit/keys/a/b",
            "https://u:p@v.example/v1/transit/keys/tb",
            "https://v.example/v1/transit/keys/tb?x",
        ] {
            assert!(parts(bad).is_err(), "{bad}");
        }
    }
}
