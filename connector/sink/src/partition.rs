//! The loop over one topic partition: reads ahead while a plan is being written.

use std::future::pending;
use std::sync::Arc;

use millpond_connector::topic::{Offset, PartitionId};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, debug_span, info, warn};

use crate::buffer::Buffer;
use crate::error::SinkError;
use crate::flush::{Core, Shared};
use crate::limits::READ_WAIT;
use crate::next_step::{Next, Situation, next};
use crate::standing::Standing;
use crate::tenure::Tenure;

type Flight = std::pin::Pin<Box<dyn Future<Output = (Core, Result<(), SinkError>)> + Send>>;

/// Consumes one topic partition until `drain` is cancelled and all up to the topic's end as of
/// then is committed.
///
/// # Errors
/// [`SinkError`] when the partition cannot go on; its ledger says where it stands.
pub async fn run(
    shared: Arc<Shared>,
    partition: PartitionId,
    drain: CancellationToken,
) -> Result<(), SinkError> {
    run_for(shared, partition, Tenure::until(drain)).await
}

/// Consumes one topic partition for as long as it is ours: until it is drained as by [`run`],
/// handed over, or found to be lost. The last two leave to the next owner what is not committed.
///
/// # Errors
/// As [`run`].
pub async fn run_for(
    shared: Arc<Shared>,
    partition: PartitionId,
    tenure: Tenure,
) -> Result<(), SinkError> {
    let mut standing = Standing::new(shared.metrics.clone(), partition);
    loop {
        let ended = consume(shared.clone(), partition, tenure.clone(), &mut standing).await;
        match &ended {
            // It was made anew, or its last records are lost: the ledger decides what that means.
            Err(error) if error.is_of_a_shorter_topic() => {
                warn!(partition, %error, "the topic became shorter, takes the partition again");
            }
            _ => {
                standing.ended(ended.is_ok());
                return ended;
            }
        }
    }
}

async fn consume(
    shared: Arc<Shared>,
    partition: PartitionId,
    tenure: Tenure,
    standing: &mut Standing,
) -> Result<(), SinkError> {
    let claim = Core::claim(shared.clone(), partition);
    let core = tokio::select! {
        biased;
        core = claim.instrument(debug_span!("take over", partition)) => core?,
        // A plan that is being written again is written again by the next owner.
        () = tenure.hand_over.cancelled() => return Ok(()),
    };
    let drain = &tenure.drain;
    let mut is_leaving = false;
    let mut reading = core.reading(core.next_offset());
    reading.on_gap = shared.on_gap;
    let mut buffer = Buffer::new(core.next_offset());
    standing.written(core.next_in_topic(), None);
    let mut open_since = Instant::now();
    let mut idle = Some(core);
    let mut flight: Option<Flight> = None;
    let mut drain_end: Option<Offset> = None;
    let mut is_first = true;
    loop {
        let at_end = drain_end.is_some_and(|end| reading.position() >= end);
        let mut wake = None;
        if let Some(mut core) = idle.take() {
            let step = next(Situation {
                now: Instant::now(),
                oldest: buffer.oldest,
                bytes: buffer.bytes,
                records: buffer.input.entries.len(),
                is_cut: buffer.is_cut(),
                max_age: shared.max_age,
                is_first,
                plan_bytes: shared.plan_bytes,
                open_since: core.is_open().then_some(open_since),
                at_end,
                is_leaving,
            });
            match step {
                Next::Flush if !tenure.holds() => {
                    info!(partition, offset = core.next_offset(), "lease is lost");
                    return Ok(());
                }
                Next::Flush => {
                    standing.writes(buffer.oldest_event_ms);
                    let input = buffer.take();
                    is_first = false;
                    let span = debug_span!("flush", partition, from = input.from, to = input.to);
                    let flush = async move {
                        let result = core.flush(input, false).await;
                        (core, result)
                    };
                    flight = Some(Box::pin(flush.instrument(span)));
                }
                Next::Commit => {
                    flight = Some(Box::pin(async move {
                        let result = core.commit().await;
                        (core, result)
                    }));
                }
                Next::End => {
                    let how = if is_leaving { "handed over" } else { "drained" };
                    info!(partition, offset = core.next_offset(), "{how}");
                    return Ok(());
                }
                Next::Wait(until) => {
                    wake = until;
                    idle = Some(core);
                }
            }
        }
        let room = buffer.has_room(shared.plan_bytes);
        tokio::select! {
            // In this order, so that a run can be repeated; the drain first, because a backlog
            // may always have something to read.
            biased;
            () = drain.cancelled(), if drain_end.is_none() => match reading.end().await {
                Ok(end) => drain_end = Some(end),
                Err(error) => return finish(idle, flight, error).await,
            },
            () = tenure.hand_over.cancelled(), if !is_leaving => is_leaving = true,
            (core, result) = landed(&mut flight) => {
                result?;
                standing.written(core.next_in_topic(), buffer.oldest_event_ms);
                flight = None;
                open_since = Instant::now();
                idle = Some(core);
            }
            chunk = reading.next(READ_WAIT), if room && !at_end && !is_leaving => {
                match chunk {
                    Ok(None) => {}
                    Ok(Some(read)) => {
                        buffer.push(read, Instant::now());
                        standing.waits(buffer.oldest_event_ms);
                    }
                    Err(error) => return finish(idle, flight, error).await,
                }
            }
            () = woken(wake) => {}
        }
    }
}

/// Ends with what reading said. If the topic is lost, the plan that is being written is finished first, and
/// committed: what is committed need not be taken back.
async fn finish(
    idle: Option<Core>,
    mut flight: Option<Flight>,
    error: SinkError,
) -> Result<(), SinkError> {
    if error.is_of_a_shorter_topic() {
        let core = match idle {
            Some(core) => Some(core),
            None if flight.is_some() => {
                let (core, result) = landed(&mut flight).await;
                result?;
                Some(core)
            }
            None => None,
        };
        if let Some(mut core) = core {
            core.commit_of_a_lost_topic().await?;
        }
    }
    Err(error)
}

async fn landed(flight: &mut Option<Flight>) -> (Core, Result<(), SinkError>) {
    match flight {
        Some(flight) => flight.await,
        None => pending().await,
    }
}

async fn woken(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => pending().await,
    }
}
