//! Consumers: registered, described, listed, removed.

use bytes::Bytes;

use super::{
    State,
    fault::Fault,
    request::{self, Stream, unsigned},
    response,
};
use crate::model::{ConsumerName, Kinesis};

pub(crate) fn register(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::Consumer<'_> = serde_json::from_slice(body)?;
    let name = request.consumer_name.as_deref();
    let name = name.ok_or_else(|| missing("ConsumerName"))?;
    let stream = Stream::new(None, request.stream_arn.clone());
    let mut kinesis = state.kinesis();
    let stream_name = stream.name(&kinesis)?;
    let consumer = kinesis.register_consumer(state.now_ms(), stream_name, name)?;
    response::encode(&response::RegisterStreamConsumer {
        consumer: consumer.into(),
    })
}

pub(crate) fn deregister(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::Consumer<'_> = serde_json::from_slice(body)?;
    let mut kinesis = state.kinesis();
    let stream = Stream::new(None, request.stream_arn.clone());
    let name = name(&request, &stream, &kinesis)?;
    kinesis.deregister_consumer(state.now_ms(), name)?;
    Ok(response::empty())
}

pub(crate) fn describe(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::Consumer<'_> = serde_json::from_slice(body)?;
    let mut kinesis = state.kinesis();
    let stream = Stream::new(None, request.stream_arn.clone());
    let name = name(&request, &stream, &kinesis)?;
    let consumer = kinesis.describe_consumer(state.now_ms(), name)?;
    let stream_arn = consumer.arn.split("/consumer/").next().map(str::to_owned);
    let mut consumer_description = response::Consumer::from(consumer);
    consumer_description.stream_arn = stream_arn;
    response::encode(&response::DescribeStreamConsumer {
        consumer_description,
    })
}

pub(crate) fn list(state: &State, body: &[u8]) -> Result<Bytes, Fault> {
    let request: request::ListStreamConsumers<'_> = serde_json::from_slice(body)?;
    let limit = request
        .max_results
        .map(|limit| unsigned("MaxResults", limit))
        .transpose()?;
    let mut kinesis = state.kinesis();
    let name = request.stream.name(&kinesis)?;
    let page =
        kinesis.list_consumers(state.now_ms(), name, request.next_token.as_deref(), limit)?;
    response::encode(&response::ListStreamConsumers {
        consumers: page.consumers.into_iter().map(Into::into).collect(),
        next_token: page.next_token,
    })
}

/// A consumer by its ARN, or else by its stream and name.
fn name<'a, P>(
    request: &'a request::Consumer<'_>,
    stream: &'a Stream<'_>,
    kinesis: &Kinesis<P>,
) -> Result<ConsumerName<'a>, Fault> {
    if let Some(arn) = request.consumer_arn.as_deref() {
        return Ok(ConsumerName::Arn(arn));
    }
    let name = request.consumer_name.as_deref();
    Ok(ConsumerName::InStream {
        stream_name: stream.name(kinesis)?,
        name: name.ok_or_else(|| missing("ConsumerName"))?,
    })
}

fn missing(member: &str) -> Fault {
    Fault::invalid(format!("the request has no `{member}`"))
}
