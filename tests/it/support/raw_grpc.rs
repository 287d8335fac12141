//! Calls by path and bytes, so that a test can go through all RPCs there are.

use http::uri::PathAndQuery;
use tonic::codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Messages as bytes.
#[derive(Clone, Copy, Default)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        prost::bytes::BufMut::put_slice(buffer, &item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let length = prost::bytes::Buf::remaining(buffer);
        Ok(Some(prost::bytes::Buf::copy_to_bytes(buffer, length).to_vec()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::default()
    }
}

/// The first message of the answer, with these `authorization` entries.
pub(crate) async fn call(
    channel: &Channel,
    path: &str,
    authorization: &[String],
    body: &[u8],
) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.unwrap();
    let mut request = Request::new(futures_util::stream::iter([body.to_vec()]));
    for entry in authorization {
        request.metadata_mut().append("authorization", MetadataValue::try_from(entry).unwrap());
    }
    let path = PathAndQuery::try_from(path.to_owned()).unwrap();
    // Answers with one message look like streams of one.
    let mut answer = client.streaming(request, path, Bytes).await?.into_inner();
    Ok(answer.message().await?.expect("an answer has a message"))
}

/// Everything of a refusal that a caller can see, but for the request's id and the date.
pub(crate) fn seen(status: &Status) -> String {
    let mut metadata: Vec<_> = status.metadata().clone().into_headers().into_iter().collect();
    metadata.retain(|(name, _)| name.as_ref().is_none_or(|name| name != "date" && name != "x-request-id"));
    format!("{:?} {:?} {:?} {metadata:?}", status.code(), status.message(), status.details())
}
