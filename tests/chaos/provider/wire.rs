//! HTTP/1.1 by hand, for a server that may close or reset a connection at any point.

use std::collections::BTreeMap;
use std::io;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A larger request is no OAuth request.
const MAX_BYTES: usize = 64 * 1024;

/// A request, as far as it matters here.
pub(super) struct Request {
    pub(super) path: String,
    query: BTreeMap<String, String>,
    form: BTreeMap<String, String>,
}

impl Request {
    pub(super) fn query(&self, name: &str) -> Option<String> {
        self.query.get(name).cloned()
    }

    pub(super) fn form(&self, name: &str) -> Option<String> {
        self.form.get(name).cloned()
    }
}

/// What the client gets.
pub(super) enum Reply {
    /// A head and a body.
    Bytes(String),
    /// 429 with Retry-After.
    TooMany,
    /// The end of the connection.
    Close,
    /// The end of the connection, by RST.
    Reset,
}

impl Reply {
    pub(super) fn json(status: u16, body: &serde_json::Value) -> Self {
        let body = body.to_string();
        Self::Bytes(format!(
            "HTTP/1.1 {status} -\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    pub(super) fn redirect(to: &str) -> Self {
        Self::Bytes(format!("HTTP/1.1 302 -\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"))
    }
}

/// Serves one connection until either side ends it. Errors are the client hanging up.
pub(super) async fn serve<F: Future<Output = Reply>>(mut stream: TcpStream, answer: impl Fn(Request) -> F) {
    let mut unread = Vec::new();
    while let Ok(Some(request)) = read(&mut stream, &mut unread).await {
        let text = match answer(request).await {
            Reply::Bytes(text) => text,
            Reply::TooMany => "HTTP/1.1 429 -\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Reply::Close => return,
            Reply::Reset => {
                let _ = stream.set_zero_linger();
                return;
            }
        };
        if stream.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// `None`: the client has closed the connection between requests.
async fn read(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Request>> {
    let bad = || io::Error::from(io::ErrorKind::InvalidData);
    let head_end = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if unread.len() > MAX_BYTES {
            return Err(bad());
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
    };
    let head = String::from_utf8(unread[..head_end].to_vec()).map_err(|_| bad())?;
    let mut lines = head.trim_end().split("\r\n");
    let target = lines.next().and_then(|line| line.split(' ').nth(1)).ok_or_else(bad)?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .map_or(Ok(0), |(_, value)| value.trim().parse::<usize>().map_err(|_| bad()))?;
    if length > MAX_BYTES {
        return Err(bad());
    }
    while unread.len() < head_end + length {
        if stream.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let pairs = |bytes: &[u8]| url::form_urlencoded::parse(bytes).into_owned().collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        path: path.to_owned(),
        query: pairs(query.as_bytes()),
        form: pairs(&unread[head_end..head_end + length]),
    };
    unread.drain(..head_end + length);
    Ok(Some(request))
}
