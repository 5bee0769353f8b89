//! Reading one partition: a task that keeps a stream open and hands on what it brings.
//!
//! The task is ahead by one answer; the next is asked for once the one before was taken over. The
//! reader's own position moves only with what it hands out, so that after an error, or a dropped
//! `next`, a new task starts exactly where the caller is.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use fluvio_spu_schema::server::smartmodule::SmartModuleInvocation;
use millpond_connector::topic::{
    Chunk, Offset, PartitionId, PartitionReader, TopicError, Transform,
};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::answer::{Meaning, Position};
use crate::limits::{LARGEST_ANSWER, MODULE_PATIENCE, MODULE_QUIET_MAX};
use crate::retry::Retry;
use crate::smart_module::invocation;
use crate::stream::{End, Stream, Terms};
use crate::topic::Shared;

/// What a reader asks for.
pub(crate) struct Plan {
    pub shared: Arc<Shared>,
    pub partition: PartitionId,
    pub invocations: Vec<SmartModuleInvocation>,
    /// `uses` of each step, for messages.
    pub uses: Vec<String>,
}

/// Reads one partition of a topic on a cluster.
pub(crate) struct Reader {
    plan: Arc<Plan>,
    next: Offset,
    task: Option<Task>,
}

struct Task {
    chunks: mpsc::Receiver<Result<Chunk, TopicError>>,
    abort: AbortHandle,
}

impl Drop for Task {
    fn drop(&mut self) {
        self.abort.abort();
    }
}

/// Opens a reader once the SPU has taken its SmartModules.
pub(crate) async fn open(
    shared: Arc<Shared>,
    partition: PartitionId,
    from: Offset,
    transforms: &[Transform],
) -> Result<Reader, TopicError> {
    let mut invocations = Vec::with_capacity(transforms.len());
    for transform in transforms {
        let source = shared.options.modules.get(&transform.uses);
        let invocation = invocation(transform, source).map_err(|error| TopicError::Transform {
            uses: transform.uses.clone(),
            offset: None,
            reason: error.to_string(),
        })?;
        invocations.push(invocation);
    }
    let plan = Arc::new(Plan {
        shared,
        partition,
        invocations,
        uses: transforms.iter().map(|step| step.uses.clone()).collect(),
    });
    if !transforms.is_empty() {
        let mut compiling = plan.shared.compiling.lock().await;
        if !compiling.taken.iter().any(|chain| chain == transforms) {
            let begun = Instant::now();
            plan.prove(from).await?;
            compiling.takes = begun.elapsed();
            compiling.taken.push(transforms.to_vec());
        }
    }
    Ok(Reader {
        plan,
        next: from,
        task: None,
    })
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(&mut self, wait: Duration) -> Result<Option<Chunk>, TopicError> {
        let task = self.task.get_or_insert_with(|| {
            let (sender, chunks) = mpsc::channel(1);
            let pump = pump(Arc::clone(&self.plan), self.next, sender);
            let abort = tokio::spawn(pump).abort_handle();
            Task { chunks, abort }
        });
        let Ok(delivery) = timeout(wait, task.chunks.recv()).await else {
            return Ok(None);
        };
        match delivery {
            Some(Ok(chunk)) => {
                self.next = chunk.offsets.end;
                Ok(Some(chunk))
            }
            Some(Err(error)) => {
                self.task = None;
                Err(error)
            }
            None => {
                self.task = None;
                Err(TopicError::Storage {
                    topic: self.plan.shared.name.clone(),
                    context: format!("the stream of partition {} ended", self.plan.partition),
                    retryable: true,
                })
            }
        }
    }
}

impl Plan {
    /// The error for a SmartModule that is missing or failed.
    pub(crate) fn module_error(
        &self,
        offset: Option<Offset>,
        missing: Option<&str>,
        reason: String,
    ) -> TopicError {
        let at = self.invocations.iter().position(
            |step| matches!((&step.name, missing), (Some(name), Some(gone)) if name == gone),
        );
        let uses = match at.and_then(|at| self.uses.get(at)) {
            Some(uses) => uses.clone(),
            None => self.uses.join(" | "),
        };
        TopicError::Transform {
            uses,
            offset,
            reason,
        }
    }

    pub(crate) fn storage_error(&self, reason: &str, retryable: bool) -> TopicError {
        TopicError::Storage {
            topic: self.shared.name.clone(),
            context: format!("read partition {}: {reason}", self.partition),
            retryable,
        }
    }

    /// Has the SPU build the chain without reading anything.
    ///
    /// A module just uploaded reaches an SPU about 0.1 s later, so that a missing one is looked for
    /// again for a moment.
    async fn prove(&self, from: Offset) -> Result<(), TopicError> {
        let mut retry = Retry::new(self.shared.options.patience);
        let mut module_retry = Retry::new(MODULE_PATIENCE);
        loop {
            let bounds = self.shared.bounds(self.partition).await?;
            let at = Position {
                next: bounds.end.max(from),
                known_end: bounds.end,
                transforms: true,
            };
            let end = Stream::open(self, at, 1).await;
            let meaning = match end {
                Ok(mut stream) => stream.barrier_answer().await,
                Err(error) => Err(error),
            };
            match meaning {
                Ok(Meaning::Module {
                    offset,
                    missing,
                    reason,
                }) => {
                    if missing.is_none() || !module_retry.wait().await {
                        return Err(self.module_error(offset, missing.as_deref(), reason));
                    }
                }
                Ok(Meaning::Refused(reason)) => return Err(self.storage_error(&reason, false)),
                Ok(Meaning::Again(reason)) => {
                    if !retry.wait().await {
                        return Err(self.storage_error(&reason, true));
                    }
                }
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() && retry.wait().await => {}
                Err(error) => return Err(error.on_topic(&self.shared.name)),
            }
        }
    }
}

/// Keeps a stream going until the reader is gone or something is wrong.
async fn pump(plan: Arc<Plan>, from: Offset, chunks: mpsc::Sender<Result<Chunk, TopicError>>) {
    let mut next = from;
    let usual = plan.shared.options.max_bytes.clamp(1, LARGEST_ANSWER);
    let mut max_bytes = usual;
    let mut quiet = plan.shared.options.module_quiet;
    // A stream with more room is opened to find out, and asked at once.
    let mut asks_at_once = false;
    let mut retry = Retry::new(plan.shared.options.patience);
    loop {
        let before = next;
        let terms = Terms {
            max_bytes,
            usual,
            quiet,
            asks_at_once,
        };
        let end = Stream::run(&plan, &mut next, terms, &chunks).await;
        let asked_at_once = asks_at_once;
        asks_at_once = false;
        if next > before {
            retry = Retry::new(plan.shared.options.patience);
        }
        let (partition, topic) = (plan.partition, &plan.shared.name);
        let error = match end {
            End::Dropped => return,
            End::Again(reason) => {
                tracing::debug!(topic, partition, next, reason, "stream opened again");
                if retry.wait().await {
                    continue;
                }
                plan.storage_error(&reason, true)
            }
            End::AskedTooEarly => {
                if !asked_at_once {
                    quiet = (quiet * 2).min(MODULE_QUIET_MAX);
                }
                tracing::debug!(topic, partition, next, ?quiet, "the SPU was still at work");
                continue;
            }
            End::LookAgain => {
                asks_at_once = true;
                continue;
            }
            End::Usual => {
                max_bytes = usual;
                continue;
            }
            End::MoreRoom(bytes) => {
                tracing::debug!(topic, partition, next, bytes, "answer too small");
                asks_at_once = bytes > max_bytes;
                max_bytes = bytes;
                continue;
            }
            End::Failed(error) => error,
        };
        // A reader that is gone needs no error.
        let _ = chunks.send(Err(error)).await;
        return;
    }
}
