//! A browser without a window: it keeps cookies, follows redirects and fills in forms. The demo consents with it, and so
//! do the tests. It knows no scripts: the broker's pages need none.

use reqwest::header::{COOKIE, HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use url::Url;

use super::html::{self, Form};

/// Redirects in a row before it gives up.
const MAX_REDIRECTS: usize = 20;

/// Forms in a row before it gives up on a consent.
const MAX_FORMS: usize = 8;

/// What went wrong. Never shows a URL's query: it may hold a code or a state.
#[derive(Debug, thiserror::Error)]
pub enum BrowserError {
    /// Not an absolute http or https URL.
    #[error("not a URL that can be opened")]
    Url,
    /// No connection or no answer.
    #[error("no answer from {host}")]
    Http {
        /// Host and port.
        host: String,
        /// Why, without the URL.
        #[source]
        cause: reqwest::Error,
    },
    /// More than 20 redirects.
    #[error("too many redirects")]
    TooManyRedirects,
    /// A page without a form, or with one that leads nowhere.
    #[error("the page has no form that leads anywhere")]
    NoForm,
    /// The consent asks for more than eight forms.
    #[error("the consent does not end")]
    TooManyForms,
}

/// A page as it was received.
#[derive(Clone)]
pub struct Page {
    /// After all redirects.
    pub url: Url,
    /// The last answer's.
    pub status: StatusCode,
    /// The last answer's.
    pub headers: HeaderMap,
    /// The HTML.
    pub body: String,
}

impl Page {
    /// The text between `<title>` and `</title>`.
    #[must_use]
    pub fn title(&self) -> String {
        html::title(&self.body)
    }

    /// What a person reads: no tags, no styles, entities resolved, one space between words.
    #[must_use]
    pub fn text(&self) -> String {
        html::text(&self.body)
    }

    /// The page's first form.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        html::form(&self.body)
    }
}

/// What the user answers when asked for consent.
#[derive(Debug, Clone, Copy)]
pub enum Answer<'a> {
    /// Yes to everything.
    Allow,
    /// Yes, but only to these scopes.
    AllowOnly(&'a [&'a str]),
    /// No.
    Deny,
}

struct Cookie {
    host: String,
    path: String,
    name: String,
    value: String,
}

/// One person's browser.
pub struct Browser {
    http: Client,
    cookies: Vec<Cookie>,
}

impl Browser {
    /// Without cookies. Fails only if no HTTP client can be made.
    pub fn new() -> Result<Self, BrowserError> {
        let http = Client::builder()
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|cause| BrowserError::Http { host: String::new(), cause })?;
        Ok(Self { http, cookies: Vec::new() })
    }

    /// Opens a URL and follows redirects to the page behind it.
    pub async fn open(&mut self, url: &str) -> Result<Page, BrowserError> {
        let url = Url::parse(url).map_err(|_| BrowserError::Url)?;
        self.request(Method::GET, url, None).await
    }

    /// Calls an API with a bearer token, as an agent does.
    pub async fn call_api(&self, url: &str, token: &str) -> Result<Page, BrowserError> {
        let url = Url::parse(url).map_err(|_| BrowserError::Url)?;
        let answer = self.http.get(url.clone()).bearer_auth(token).send().await;
        read(url.clone(), answer.map_err(|cause| failed(&url, cause))?).await
    }

    /// Submits a page's form with these fields.
    pub async fn submit(
        &mut self,
        page: &Page,
        form: &Form,
        fields: &[(String, String)],
    ) -> Result<Page, BrowserError> {
        let mut url = page.url.join(&form.action).map_err(|_| BrowserError::Url)?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        if form.post {
            return self.request(Method::POST, url, Some(body)).await;
        }
        url.set_query(Some(&body));
        self.request(Method::GET, url, None).await
    }

    /// Goes through a consent: opens the link, signs in as `user` where a page asks (a field named `user`), answers where
    /// a page asks (a button named `answer`, boxes named `scope`), and returns the page without a form at the end.
    pub async fn consent(
        &mut self,
        link: &str,
        user: &str,
        answer: Answer<'_>,
    ) -> Result<Page, BrowserError> {
        let mut page = self.open(link).await?;
        for _ in 0..MAX_FORMS {
            let Some(form) = page.form() else { return Ok(page) };
            let fields = filled_in(&form, user, answer);
            page = self.submit(&page, &form, &fields).await?;
        }
        Err(BrowserError::TooManyForms)
    }

    /// Opens a page, submits its form, and answers where that leads to, without going there.
    pub async fn first_stop(&mut self, url: &str) -> Result<Url, BrowserError> {
        let page = self.open(url).await?;
        let form = page.form().ok_or(BrowserError::NoForm)?;
        let target = page.url.join(&form.action).map_err(|_| BrowserError::Url)?;
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&form.fields).finish();
        let response = self.send(Method::POST, &target, Some(body)).await?;
        redirect_target(&target, &response)?.ok_or(BrowserError::NoForm)
    }

    async fn request(
        &mut self,
        mut method: Method,
        mut url: Url,
        mut body: Option<String>,
    ) -> Result<Page, BrowserError> {
        for _ in 0..MAX_REDIRECTS {
            let response = self.send(method, &url, body.take()).await?;
            method = Method::GET;
            match redirect_target(&url, &response)? {
                Some(next) => url = next,
                None => return read(url, response).await,
            }
        }
        Err(BrowserError::TooManyRedirects)
    }

    async fn send(
        &mut self,
        method: Method,
        url: &Url,
        body: Option<String>,
    ) -> Result<Response, BrowserError> {
        let mut request = self.http.request(method, url.clone());
        if let Some(cookies) = self.cookies_for(url) {
            request = request.header(COOKIE, cookies);
        }
        if let Some(body) = body {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        let response = request.send().await.map_err(|cause| failed(url, cause))?;
        for header in response.headers().get_all(SET_COOKIE) {
            if let Ok(line) = header.to_str() {
                self.keep(url, line);
            }
        }
        Ok(response)
    }

    fn cookies_for(&self, url: &Url) -> Option<String> {
        let host = url.host_str().unwrap_or_default();
        let sent: Vec<String> = self
            .cookies
            .iter()
            .filter(|cookie| cookie.host == host && path_matches(&cookie.path, url.path()))
            .map(|cookie| format!("{}={}", cookie.name, cookie.value))
            .collect();
        (!sent.is_empty()).then(|| sent.join("; "))
    }

    /// RFC 6265 as far as a test server goes: an empty value deletes, a missing path is the request's folder.
    fn keep(&mut self, url: &Url, line: &str) {
        let mut parts = line.split(';').map(str::trim);
        let Some((name, value)) = parts.next().and_then(|pair| pair.split_once('=')) else { return };
        let folder = url.path().rsplit_once('/').map_or("/", |(folder, _)| folder);
        let path = parts
            .filter_map(|attribute| attribute.split_once('='))
            .find(|(key, _)| key.eq_ignore_ascii_case("path"))
            .map_or(folder, |(_, path)| path);
        let host = url.host_str().unwrap_or_default();
        self.cookies.retain(|cookie| !(cookie.host == host && cookie.path == path && cookie.name == name));
        if !value.is_empty() {
            self.cookies.push(Cookie {
                host: host.to_owned(),
                path: path.to_owned(),
                name: name.to_owned(),
                value: value.to_owned(),
            });
        }
    }
}

/// RFC 6265 section 5.1.4.
fn path_matches(cookie: &str, request: &str) -> bool {
    let Some(rest) = request.strip_prefix(cookie) else { return false };
    rest.is_empty() || rest.starts_with('/') || cookie.ends_with('/')
}

fn filled_in(form: &Form, user: &str, answer: Answer<'_>) -> Vec<(String, String)> {
    let mut fields: Vec<(String, String)> = form
        .fields
        .iter()
        .filter(|(name, value)| match (name.as_str(), answer) {
            ("user", _) => false,
            ("scope", Answer::AllowOnly(scopes)) => scopes.contains(&value.as_str()),
            _ => true,
        })
        .cloned()
        .collect();
    if form.fields.iter().any(|(name, _)| name == "user") {
        fields.push(("user".to_owned(), user.to_owned()));
    }
    let wanted = if matches!(answer, Answer::Deny) { "deny" } else { "allow" };
    fields.extend(form.buttons.iter().find(|(name, value)| name == "answer" && value == wanted).cloned());
    fields
}

fn redirect_target(from: &Url, response: &Response) -> Result<Option<Url>, BrowserError> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    location.map(|target| from.join(target).map_err(|_| BrowserError::Url)).transpose()
}

async fn read(url: Url, response: Response) -> Result<Page, BrowserError> {
    let (status, headers) = (response.status(), response.headers().clone());
    let body = response.text().await.map_err(|cause| failed(&url, cause))?;
    Ok(Page { url, status, headers, body })
}

fn failed(url: &Url, cause: reqwest::Error) -> BrowserError {
    BrowserError::Http { host: url.authority().to_owned(), cause: cause.without_url() }
}
