//! What the hostile server may do with a request.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::watch;

/// Holds replies back until it is released, or dropped.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    /// Lets all replies that it holds go, and those to come.
    pub(crate) fn release(&self) {
        self.0.send_replace(true);
    }
}

/// One reply.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub(super) act: Act,
    held_by: Option<watch::Receiver<bool>>,
}

#[derive(Debug, Clone)]
pub(super) enum Act {
    /// A well-formed answer.
    Answer(Answer),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, then the connection is reset.
    Reset(Vec<u8>),
    /// Nothing; the connection stays open until the client closes it.
    Silence,
    /// These bytes first, then one more of the body each time the client has had time to read.
    Drip(Answer),
    /// An answer whose body does not end until the client has had enough.
    Endless,
}

#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// Its bytes, with the length of the body announced as given.
    pub(super) fn bytes(&self, length: usize) -> Vec<u8> {
        let mut bytes = format!("HTTP/1.1 {} Scripted\r\n", self.status).into_bytes();
        for (name, value) in &self.headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        bytes.extend_from_slice(format!("content-length: {length}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

impl Reply {
    fn acting(act: Act) -> Self {
        Self { act, held_by: None }
    }

    /// A status without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self::acting(Act::Answer(Answer { status, headers: Vec::new(), body: Vec::new() }))
    }

    /// A body of any content type.
    pub(crate) fn body(status: u16, content_type: &str, body: impl Into<Vec<u8>>) -> Self {
        let headers = vec![("content-type".to_owned(), content_type.to_owned())];
        Self::acting(Act::Answer(Answer { status, headers, body: body.into() }))
    }

    /// A JSON.
    pub(crate) fn json(status: u16, body: &Value) -> Self {
        Self::body(status, "application/json", body.to_string())
    }

    /// The error of RFC 6749 section 5.2.
    pub(crate) fn error(code: &str) -> Self {
        Self::json(400, &json!({ "error": code }))
    }

    /// A success as most servers give it, valid for an hour.
    pub(crate) fn tokens(access_token: &str, refresh_token: &str) -> Self {
        Self::json(
            200,
            &json!({
                "access_token": access_token,
                "refresh_token": refresh_token,
                "token_type": "Bearer",
                "expires_in": 3600,
            }),
        )
    }

    /// Adds a header to an answer.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        match &mut self.act {
            Act::Answer(answer) | Act::Drip(answer) => {
                answer.headers.push((name.to_owned(), value.to_owned()));
            }
            Act::Raw(_) | Act::Reset(_) | Act::Silence | Act::Endless => panic!("there is no head to add to"),
        }
        self
    }

    /// Sends the client elsewhere.
    pub(crate) fn redirect(status: u16, to: &url::Url) -> Self {
        Self::status(status).header("location", to.as_str())
    }

    /// Reads the request and closes the connection.
    pub(crate) fn close() -> Self {
        Self::acting(Act::Raw(Vec::new()))
    }

    /// Reads the request and resets the connection.
    pub(crate) fn reset() -> Self {
        Self::acting(Act::Reset(Vec::new()))
    }

    /// Sends bytes that need not be HTTP, and closes the connection.
    pub(crate) fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self::acting(Act::Raw(bytes.into()))
    }

    /// Announces twice the body that it sends, and closes the connection.
    pub(crate) fn cut_off(self) -> Self {
        Self { act: Act::Raw(self.truncated()), ..self }
    }

    /// Announces twice the body that it sends, and resets the connection.
    pub(crate) fn reset_in_body(self) -> Self {
        Self { act: Act::Reset(self.truncated()), ..self }
    }

    fn truncated(&self) -> Vec<u8> {
        match &self.act {
            Act::Answer(answer) => answer.bytes(answer.body.len() * 2),
            _ => panic!("only an answer can break off"),
        }
    }

    /// Says nothing until the client hangs up.
    pub(crate) fn silence() -> Self {
        Self::acting(Act::Silence)
    }

    /// Sends the head and then, byte by byte, a body that it never completes, until the client hangs up.
    pub(crate) fn drip(self) -> Self {
        match self.act {
            Act::Answer(answer) => Self { act: Act::Drip(answer), ..self },
            _ => panic!("only an answer can drip"),
        }
    }

    /// A status 200 whose body never ends.
    pub(crate) fn endless() -> Self {
        Self::acting(Act::Endless)
    }

    /// Waits for the gate before it does anything.
    pub(crate) fn held_by(mut self, gate: &Gate) -> Self {
        self.held_by = Some(gate.0.subscribe());
        self
    }

    /// Waits for the gate, if there is one.
    pub(super) async fn wait(&mut self) {
        if let Some(gate) = &mut self.held_by {
            // An error says that the gate was dropped.
            let _ = gate.wait_for(|released| *released).await;
        }
    }
}
