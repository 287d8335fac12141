//! HTTP/1.1 by hand: reads proper requests, sends what it is told.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

use super::reply::Act;
use super::{Recorded, State};

/// Serves one connection until either side ends it. Errors are the client hanging up.
pub(super) async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let mut unread = Vec::new();
    while let Ok(Some(request)) = read_request(&mut stream, &mut unread).await {
        let path = request.path.clone();
        state.requests.send_modify(|all| all.push(request));
        let mut reply = state.next_reply(&path);
        reply.wait().await;
        match play(&mut stream, reply.act).await {
            Ok(true) => {}
            Ok(false) | Err(_) => return,
        }
    }
}

/// Whether the connection goes on.
async fn play(stream: &mut TcpStream, act: Act) -> io::Result<bool> {
    match act {
        Act::Answer(answer) => {
            stream.write_all(&answer.bytes(answer.body.len())).await?;
            return Ok(true);
        }
        Act::Raw(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await?;
        }
        Act::Reset(bytes) => {
            stream.write_all(&bytes).await?;
            stream.set_zero_linger()?;
        }
        Act::Silence => while stream.read(&mut [0; 64]).await? > 0 {},
        Act::Drip(mut answer) => {
            let body = std::mem::take(&mut answer.body);
            stream.set_nodelay(true)?;
            stream.write_all(&answer.bytes(body.len() + 1)).await?;
            for byte in body {
                stream.write_all(&[byte]).await?;
                tokio::task::yield_now().await;
            }
            while stream.read(&mut [0; 64]).await? > 0 {}
        }
        Act::Endless => {
            let head =
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"a\":\"";
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&[b'a'; 4096]).await?;
            }
        }
    }
    Ok(false)
}

/// `None`: the client has closed the connection between requests.
async fn read_request(stream: &mut TcpStream, unread: &mut Vec<u8>) -> io::Result<Option<Recorded>> {
    let head_end = loop {
        if let Some(at) = unread.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(unread).await? == 0 {
            return Ok(None);
        }
        // A TLS handshake, say, would wait for an answer for ever.
        if !unread.first().is_some_and(u8::is_ascii_uppercase) {
            return Err(io::ErrorKind::InvalidData.into());
        }
    };
    let head = String::from_utf8(unread[..head_end].to_vec()).expect("a head in UTF-8");
    let mut lines = head.trim_end().split("\r\n");
    let start: Vec<&str> = lines.next().expect("a request line").split(' ').collect();
    let [method, target, _] = start[..] else { panic!("not a request line: {start:?}") };
    let mut headers = BTreeMap::new();
    for line in lines {
        let (name, value) = line.split_once(':').expect("a header line");
        let twice = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        assert!(twice.is_none(), "header {name} is there twice");
    }
    assert!(!headers.contains_key("transfer-encoding"), "chunked requests are not read here");
    let length = headers.get("content-length").map_or(0, |text| text.parse().expect("a length"));
    while unread.len() < head_end + length {
        if stream.read_buf(unread).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let body = unread[head_end..head_end + length].to_vec();
    unread.drain(..head_end + length);
    let url = Url::parse("http://server").and_then(|base| base.join(target)).expect("a target");
    Ok(Some(Recorded {
        method: method.to_owned(),
        path: url.path().to_owned(),
        query: url.query_pairs().into_owned().collect(),
        headers,
        body,
    }))
}
