//! Credentials for AWS, from where its own tools take them, in their order: environment variables, a web identity (a
//! Kubernetes service account's token, exchanged at STS), the container's endpoint (ECS, EKS Pod Identity), the machine's
//! metadata service (`IMDSv2`). Kept until five minutes before they end.

use std::path::PathBuf;
use std::sync::Arc;

use aws_credential_types::Credentials;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode};
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;
use url::form_urlencoded::Serializer;
use zeroize::Zeroizing;

use super::{KeyServiceSetupError, read_secret, secret_header};
use crate::domain::ports::Clock;
use crate::domain::secret::SecretString;
use crate::infra::crypto::kek::KekError;
use crate::infra::outbound::{ServiceAnswer, ServiceHttp, ServiceSetupError};

/// What the environment says about credentials, by the names of AWS's own tools.
#[derive(Debug, Clone, Default)]
pub struct AwsEnvironment {
    /// `AWS_ACCESS_KEY_ID`.
    pub access_key_id: Option<String>,
    /// `AWS_SECRET_ACCESS_KEY`.
    pub secret_access_key: Option<SecretString>,
    /// `AWS_SESSION_TOKEN`.
    pub session_token: Option<SecretString>,
    /// `AWS_WEB_IDENTITY_TOKEN_FILE`.
    pub web_identity_token_file: Option<PathBuf>,
    /// `AWS_ROLE_ARN`.
    pub role_arn: Option<String>,
    /// `AWS_ROLE_SESSION_NAME`.
    pub role_session_name: Option<String>,
    /// `AWS_ENDPOINT_URL_STS`.
    pub sts_endpoint: Option<Url>,
    /// `AWS_CONTAINER_CREDENTIALS_FULL_URI`, or what `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` makes at 169.254.170.2.
    pub container_uri: Option<Url>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN`.
    pub container_token: Option<SecretString>,
    /// `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE`.
    pub container_token_file: Option<PathBuf>,
    /// `AWS_EC2_METADATA_SERVICE_ENDPOINT`, by default 169.254.169.254; `None` if `AWS_EC2_METADATA_DISABLED` says so.
    pub metadata: Option<Url>,
}

/// Ones that end so soon are not used for another call.
const EARLY: SignedDuration = SignedDuration::from_mins(5);
/// How long a token of the metadata service is good for. Used at once.
const METADATA_TOKEN_SECONDS: &str = "60";

/// The public endpoint of a service in a region (China has a domain of its own).
pub(super) fn regional(service: &str, region: &str) -> Result<Url, KeyServiceSetupError> {
    let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
    let url = Url::parse(&format!("https://{service}.{region}.{domain}/"));
    url.map_err(|_| KeyServiceSetupError::Http(ServiceSetupError::Client))
}

/// The credentials.
pub(super) struct AwsCredentials {
    environment: AwsEnvironment,
    sts: Url,
    http: ServiceHttp,
    clock: Arc<dyn Clock>,
    kept: Mutex<Option<Kept>>,
}

struct Kept {
    credentials: Credentials,
    ends: Option<Timestamp>,
}

/// The answer of the container's endpoint and of the metadata service.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Issued {
    access_key_id: Zeroizing<String>,
    secret_access_key: Zeroizing<String>,
    token: Zeroizing<String>,
    /// RFC 3339.
    expiration: String,
}

fn none(text: &str) -> KekError {
    KekError::NoCredentials(text.to_owned())
}

impl AwsCredentials {
    pub(super) fn new(
        environment: AwsEnvironment,
        region: &str,
        http: &ServiceHttp,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, KeyServiceSetupError> {
        let sts = match &environment.sts_endpoint {
            Some(endpoint) => endpoint.clone(),
            None => regional("sts", region)?,
        };
        Ok(Self { environment, sts, http: http.for_metadata_too(), clock, kept: Mutex::default() })
    }

    /// Good for a call now.
    pub(super) async fn get(&self) -> Result<Credentials, KekError> {
        // Whoever comes while they are asked for waits for the same answer.
        let mut kept = self.kept.lock().await;
        let now = self.clock.now();
        let lasts = |kept: &Kept, margin| {
            kept.ends.is_none_or(|ends| now.checked_add(margin).is_ok_and(|until| until < ends))
        };
        if let Some(kept) = kept.as_ref().filter(|kept| lasts(kept, EARLY)) {
            return Ok(kept.credentials.clone());
        }
        match self.load().await {
            Ok(new) => Ok(kept.insert(new).credentials.clone()),
            // Those that have not ended yet are better than none.
            Err(error) => match kept.as_ref().filter(|kept| lasts(kept, SignedDuration::ZERO)) {
                Some(kept) => Ok(kept.credentials.clone()),
                None => Err(error),
            },
        }
    }

    /// They were refused.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    async fn load(&self) -> Result<Kept, KekError> {
        let environment = &self.environment;
        if let (Some(id), Some(secret)) = (&environment.access_key_id, &environment.secret_access_key) {
            let token = environment.session_token.as_ref().map(|token| token.expose_secret().to_owned());
            let credentials =
                Credentials::new(id.clone(), secret.expose_secret(), token, None, "environment");
            return Ok(Kept { credentials, ends: None });
        }
        if let (Some(file), Some(role)) = (&environment.web_identity_token_file, &environment.role_arn) {
            return self.web_identity(file, role).await;
        }
        if let Some(uri) = &environment.container_uri {
            return self.container(uri).await;
        }
        if let Some(metadata) = &environment.metadata {
            return self.metadata(metadata).await;
        }
        Err(none(
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give the pod, container or machine a role",
        ))
    }

    /// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>
    async fn web_identity(&self, file: &std::path::Path, role: &str) -> Result<Kept, KekError> {
        let token = read_secret(file, "AWS_WEB_IDENTITY_TOKEN_FILE can't be read")?;
        let session = self.environment.role_session_name.as_deref().unwrap_or("token-broker");
        let body = Serializer::new(String::new())
            .append_pair("Action", "AssumeRoleWithWebIdentity")
            .append_pair("Version", "2011-06-15")
            .append_pair("RoleArn", role)
            .append_pair("RoleSessionName", session)
            .append_pair("WebIdentityToken", token.expose_secret())
            .finish();
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        let answer = self.http.send(Method::POST, &self.sts, headers, body.into_bytes()).await?;
        check(&answer, "STS refuses the web identity")?;
        let text = std::str::from_utf8(&answer.body).map_err(|_| super::unreadable())?;
        let field = |name: &str| element(text, name).ok_or_else(super::unreadable);
        let ends = field("Expiration")?.parse().map_err(|_| super::unreadable())?;
        Ok(kept(field("AccessKeyId")?, field("SecretAccessKey")?, field("SessionToken")?, ends))
    }

    /// <https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html>
    async fn container(&self, uri: &Url) -> Result<Kept, KekError> {
        let environment = &self.environment;
        let token = match &environment.container_token_file {
            // Read each time: it is replaced while the container runs.
            Some(file) => Some(read_secret(file, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE can't be read")?),
            None => environment.container_token.clone(),
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(AUTHORIZATION, secret_header(token.expose_secret())?);
        }
        self.issued(uri, headers).await
    }

    /// <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-v2-how-it-works.html>
    async fn metadata(&self, base: &Url) -> Result<Kept, KekError> {
        let url = |path: &str| base.join(path).map_err(|_| none("the metadata service's address is none"));
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds"),
            HeaderValue::from_static(METADATA_TOKEN_SECONDS),
        );
        let answer = self.http.send(Method::PUT, &url("latest/api/token")?, headers, Vec::new()).await;
        let answer =
            answer.map_err(|_| none("there are none in the environment, and no metadata service"))?;
        check(&answer, "the metadata service gives no token")?;
        let token = std::str::from_utf8(&answer.body).map_err(|_| super::unreadable())?.trim();
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::from_static("x-aws-ec2-metadata-token"), secret_header(token)?);
        let roles = url("latest/meta-data/iam/security-credentials/")?;
        let answer = self.http.send(Method::GET, &roles, headers.clone(), Vec::new()).await?;
        check(&answer, "the machine has no role")?;
        let role = std::str::from_utf8(&answer.body).ok().and_then(|text| text.lines().next());
        let role = role.map(str::trim).filter(|role| !role.is_empty() && !role.contains('/'));
        let role = role.ok_or_else(|| none("the machine has no role"))?;
        self.issued(&roles.join(role).map_err(|_| super::unreadable())?, headers).await
    }

    async fn issued(&self, url: &Url, headers: HeaderMap) -> Result<Kept, KekError> {
        let answer = self.http.send(Method::GET, url, headers, Vec::new()).await?;
        check(&answer, "the container's or machine's role gives none")?;
        let issued: Issued = super::parsed(&answer)?;
        let ends = issued.expiration.parse().map_err(|_| super::unreadable())?;
        Ok(kept(&issued.access_key_id, &issued.secret_access_key, &issued.token, ends))
    }
}

fn kept(id: &str, secret: &str, token: &str, ends: Timestamp) -> Kept {
    let credentials = Credentials::new(id, secret, Some(token.to_owned()), None, "role");
    Kept { credentials, ends: Some(ends) }
}

fn check(answer: &ServiceAnswer, refusal: &str) -> Result<(), KekError> {
    match answer.status {
        StatusCode::OK => Ok(()),
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(super::refused(status, ""))
        }
        status => Err(none(&format!("{refusal} (HTTP {})", status.as_u16()))),
    }
}

/// The text of an element that has no others in it. The values of STS need no entities.
fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}
