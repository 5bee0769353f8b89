//! `SubscribeToShard`: an answer that goes on until its subscription ends.
//!
//! A frame is made when the connection can take one: a client that does not read on holds back its
//! own subscription, and costs one frame of memory.

use std::{
    io::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use axum::{
    body::Body,
    http::{HeaderValue, header::CONTENT_TYPE},
    response::Response,
};
use bytes::Bytes;
use futures_util::stream;

use super::{State, event_stream, fault::Fault, read, request, response};
use crate::model::{Push, PushedEvent, Subscription};

const EVENT_STREAM: HeaderValue = HeaderValue::from_static("application/vnd.amazon.eventstream");

/// The server's clock may be a test's, which tells nobody when it moves: it is looked at so often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(crate) fn subscribe(state: &Arc<State>, body: &[u8]) -> Result<Response, Fault> {
    let request: request::SubscribeToShard<'_> = serde_json::from_slice(body)?;
    let position = &request.starting_position;
    let start = read::start(
        &position.r#type,
        position.sequence_number.as_deref(),
        position.timestamp,
    )?;
    let shard_id = request::shard_id(&request.shard_id)?;
    let now_ms = state.now_ms();
    let subscription = state
        .kinesis()
        .subscribe(now_ms, &request.consumer_arn, shard_id, start)?;
    let pushing = Pushing {
        state: state.clone(),
        subscription,
        is_begun: false,
    };
    let frames = stream::unfold(pushing, |mut pushing| async move {
        let frame = pushing.next().await?;
        Some((Ok::<_, std::convert::Infallible>(frame), pushing))
    });
    let mut answer = response::json(axum::http::StatusCode::OK, Bytes::new());
    *answer.body_mut() = Body::from_stream(frames);
    answer.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
    Ok(answer)
}

struct Pushing {
    state: Arc<State>,
    subscription: Subscription,
    is_begun: bool,
}

impl Pushing {
    /// The next frame; `None` closes the connection.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.is_begun {
            self.is_begun = true;
            return Some(event_stream::initial_response());
        }
        loop {
            // Before the look, so that nothing comes unnoticed between it and the wait.
            let changed = self.state.changed.notified();
            if self.state.is_stopping.load(Ordering::Acquire) {
                return None;
            }
            let now_ms = self.state.now_ms();
            let push = self.state.kinesis().push(now_ms, &mut self.subscription);
            let refused = match push {
                Push::Nothing => {
                    // Either way it is looked again.
                    let _ = tokio::time::timeout(LOOK_EVERY, changed).await;
                    continue;
                }
                Push::Closed => return None,
                Push::Refused(error) => Fault::from(error),
                Push::Event(event) => match encode(event) {
                    Ok(payload) => return Some(event_stream::event(&payload)),
                    Err(fault) => fault,
                },
            };
            return Some(event_stream::exception(refused.name(), refused.message()));
        }
    }
}

fn encode(event: PushedEvent<Bytes>) -> Result<Bytes, Fault> {
    let mut body = read::records(&event.records)?;
    if let Some(continuation) = &event.continuation {
        write!(body, r#","ContinuationSequenceNumber":"{continuation}""#)
            .map_err(|error| Fault::new("InternalFailure", error.to_string()))?;
    }
    read::tail(body, event.millis_behind_latest, event.child_shards)
}
