//! A user's browser that fails the test when something can't be opened.

pub(crate) use token_broker::demo::browser::{Answer, Page};

/// See [`token_broker::demo::browser::Browser`].
pub(crate) struct Browser(token_broker::demo::browser::Browser);

impl Browser {
    /// Without cookies.
    pub(crate) fn new() -> Self {
        Self(token_broker::demo::browser::Browser::new().unwrap())
    }

    /// Opens a URL and follows redirects.
    pub(crate) async fn open(&mut self, url: &str) -> Page {
        self.0.open(url).await.unwrap()
    }

    /// Confirms on the broker's page; answers where the provider's is, with its `state`.
    pub(crate) async fn confirm(&mut self, link: &str) -> url::Url {
        self.0.first_stop(link).await.unwrap()
    }

    /// Goes through a consent up to the page at its end.
    pub(crate) async fn consent(&mut self, link: &str, user: &str, answer: Answer<'_>) -> Page {
        self.0.consent(link, user, answer).await.unwrap()
    }
}
