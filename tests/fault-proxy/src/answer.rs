//! Answers that stop, stall or dribble.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::{Sleep, sleep};

/// Pieces of a slow answer.
const PIECES: usize = 16;

/// What happens next in an answer's body.
#[derive(Debug)]
pub(crate) enum Step {
    Bytes(Bytes),
    Wait(Duration),
    /// The connection is closed.
    Close,
    /// The connection is reset.
    Reset(Arc<Notify>),
    /// Nothing, on an open connection.
    Hang,
}

/// A body that follows a script.
#[derive(Debug)]
pub(crate) struct Script {
    steps: VecDeque<Step>,
    waiting: Option<Pin<Box<Sleep>>>,
    /// Known when the script only gives bytes.
    length: Option<u64>,
}

impl Script {
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self {
            length: Some(bytes.len() as u64),
            ..Self::new([Step::Bytes(bytes)])
        }
    }

    pub(crate) fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self {
            steps: steps.into_iter().collect(),
            waiting: None,
            length: None,
        }
    }

    /// Small pieces that take about `time` together.
    pub(crate) fn slow(bytes: &Bytes, time: Duration) -> Self {
        let size = bytes.len().div_ceil(PIECES).max(1);
        let pause = time / PIECES as u32;
        Self::new((0..bytes.len()).step_by(size).flat_map(|from| {
            let piece = bytes.slice(from..bytes.len().min(from + size));
            [Step::Wait(pause), Step::Bytes(piece)]
        }))
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                if waiting.as_mut().poll(context).is_pending() {
                    return Poll::Pending;
                }
                self.waiting = None;
            }
            match self.steps.pop_front() {
                None => return Poll::Ready(None),
                Some(Step::Bytes(bytes)) => return Poll::Ready(Some(Ok(Frame::data(bytes)))),
                Some(Step::Wait(pause)) => self.waiting = Some(Box::pin(sleep(pause))),
                Some(Step::Close) => {
                    return Poll::Ready(Some(Err(io::Error::other("the answer is cut"))));
                }
                Some(Step::Reset(reset)) => {
                    reset.notify_one();
                    self.steps.push_front(Step::Hang);
                }
                // Nobody wakes this: the connection ends when its other end gives up.
                Some(Step::Hang) => {
                    self.steps.push_front(Step::Hang);
                    return Poll::Pending;
                }
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        self.length
            .map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
