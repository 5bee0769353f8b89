//! One stream: answers pushed to a consumer, the next one when it has acknowledged the last.

use std::sync::Arc;

use fluvio_protocol::Encoder;
use fluvio_protocol::api::{RequestHeader, ResponseMessage};
use fluvio_protocol::link::ErrorCode;
use fluvio_protocol::record::{Batch, MemoryRecords, Offset, RawRecords, RecordSet};
use fluvio_socket::ExclusiveFlvSink;
use fluvio_spu_schema::fetch::FetchablePartitionResponse;
use fluvio_spu_schema::server::stream_fetch::{FileStreamFetchRequest, StreamFetchResponse};
use tokio::sync::watch;

use super::chain::{Chain, Output};
use super::fault::Fault;
use super::slice::LogSlice;
use super::state::State;

/// What a stream answers with.
pub(super) struct Stream {
    pub(super) state: Arc<State>,
    pub(super) sink: ExclusiveFlvSink,
    pub(super) header: RequestHeader,
    pub(super) id: u32,
    pub(super) acknowledgements: watch::Receiver<Offset>,
}

/// Why a stream ends.
enum End {
    /// Its consumer is told.
    Code(ErrorCode),
    /// Its consumer is gone.
    Gone,
}

/// What is read, and from where on.
struct Reading {
    topic: String,
    partition: u32,
    max_bytes: usize,
    chain: Option<Chain>,
}

/// Where a stream is after an attempt to answer.
struct Progress {
    next: Offset,
    /// Something was sent: the consumer says when it wants more.
    is_waiting: bool,
}

impl Progress {
    /// The position of a consumer that need not be waited for.
    fn known(&self) -> Option<Offset> {
        (!self.is_waiting).then_some(self.next)
    }
}

impl Stream {
    pub(super) async fn run(mut self, request: FileStreamFetchRequest) {
        let (topic, partition) = (request.topic.clone(), request.partition);
        if let Err(End::Code(code)) = self.answer_all(request).await {
            let response = FetchablePartitionResponse::<LogSlice> {
                partition_index: partition,
                error_code: code,
                ..FetchablePartitionResponse::default()
            };
            // A consumer that has gone meanwhile needs no telling.
            let _ = self.send(topic, response).await;
        }
    }

    async fn answer_all(&mut self, request: FileStreamFetchRequest) -> Result<(), End> {
        let mut growth = self.state.growth();
        let version = self.header.api_version();
        let state = Arc::clone(&self.state);
        let has_modules = !request.smartmodules.is_empty();
        let at_work = has_modules.then(|| state.begin_work());
        let chain = Chain::build(&self.state, request.smartmodules, version).map_err(End::Code)?;
        if chain.is_some() {
            let slow = self.state.lock().script.take(|fault| match fault {
                Fault::SlowModules(time) => Some(*time),
                _ => None,
            });
            tokio::time::sleep(slow.unwrap_or_default()).await;
        }
        drop(at_work);
        let mut reading = Reading {
            topic: request.topic,
            partition: request.partition,
            max_bytes: usize::try_from(request.max_bytes).unwrap_or(0),
            chain,
        };
        let mut progress = self.answer(&mut reading, request.fetch_offset).await?;
        let mut known = progress.known();
        loop {
            let from = tokio::select! {
                changed = self.acknowledgements.changed() => {
                    changed.map_err(|_| End::Gone)?;
                    let acknowledged = *self.acknowledgements.borrow_and_update();
                    if acknowledged >= progress.next {
                        known = Some(acknowledged);
                        continue;
                    }
                    acknowledged
                }
                changed = growth.changed() => {
                    changed.map_err(|_| End::Gone)?;
                    let end = self.log_end(&reading)?;
                    match known {
                        Some(known) if known < end => known,
                        _ => {
                            progress.next = end;
                            continue;
                        }
                    }
                }
            };
            progress = self.answer(&mut reading, from).await?;
            known = progress.known();
        }
    }

    fn log_end(&self, reading: &Reading) -> Result<Offset, End> {
        let mut contents = self.state.lock();
        let log = contents.log(&reading.topic, reading.partition);
        Ok(log.ok_or(End::Code(ErrorCode::TopicDeleted))?.end())
    }

    async fn answer(&self, reading: &mut Reading, from: Offset) -> Result<Progress, End> {
        let scripted = self.state.lock().script.take(|fault| match fault {
            Fault::StreamError(code) => Some(code.clone()),
            _ => None,
        });
        if let Some(code) = scripted {
            return Err(End::Code(code));
        }
        let end = self.log_end(reading)?;
        if from > end {
            return Err(End::Code(ErrorCode::OffsetOutOfRange));
        }
        if from < 0 {
            return Err(End::Code(ErrorCode::OffsetEvicted {
                next_available: 0,
                offset: from,
            }));
        }
        if from == end {
            return Ok(Progress {
                next: from,
                is_waiting: false,
            });
        }
        match &mut reading.chain {
            None => self.answer_with_slice(reading, from, end).await,
            Some(chain) => {
                let stored = {
                    let mut contents = self.state.lock();
                    let log = contents.log(&reading.topic, reading.partition);
                    log.map(|log| log.batches_from(from)).unwrap_or_default()
                };
                let is_jump = self.state.is_due(&Fault::Jump);
                let max_bytes = if is_jump { 0 } else { reading.max_bytes };
                let output = chain.process(&stored, max_bytes).map_err(|error| {
                    End::Code(ErrorCode::Other(format!("SmartModule err {error}")))
                })?;
                self.answer_with_output(reading, output, end).await
            }
        }
    }

    async fn answer_with_slice(
        &self,
        reading: &Reading,
        from: Offset,
        end: Offset,
    ) -> Result<Progress, End> {
        let slice = {
            let mut contents = self.state.lock();
            let cut = contents.script.take(|fault| match fault {
                Fault::Cut(bytes) => Some(*bytes),
                _ => None,
            });
            let max_bytes = cut.unwrap_or(reading.max_bytes);
            let log = contents.log(&reading.topic, reading.partition);
            log.map(|log| log.slice(from, max_bytes))
                .unwrap_or_default()
        };
        let response = FetchablePartitionResponse {
            partition_index: reading.partition,
            high_watermark: end,
            records: LogSlice(slice),
            ..FetchablePartitionResponse::default()
        };
        self.send(reading.topic.clone(), response).await?;
        // The end of the log, not of the slice: so does the SPU.
        Ok(Progress {
            next: end,
            is_waiting: true,
        })
    }

    async fn answer_with_output(
        &self,
        reading: &Reading,
        output: Output,
        end: Offset,
    ) -> Result<Progress, End> {
        let Output { batch, error } = output;
        let has_records = !batch.records().is_empty();
        if !has_records && error.is_none() {
            return Ok(Progress {
                next: end,
                is_waiting: false,
            });
        }
        let next_filter_offset = if has_records {
            batch.get_last_offset() + 1
        } else {
            end
        };
        let error_code = error.map_or(ErrorCode::None, |error| {
            ErrorCode::SmartModuleRuntimeError(Box::new(error))
        });
        let batch: Batch<MemoryRecords> = batch;
        let batch = Batch::<RawRecords>::try_from(batch)
            .map_err(|_| End::Code(ErrorCode::CompressionError))?;
        let response = FetchablePartitionResponse {
            partition_index: reading.partition,
            error_code,
            high_watermark: end,
            next_filter_offset,
            records: RecordSet::default().add(batch),
            ..FetchablePartitionResponse::default()
        };
        self.send(reading.topic.clone(), response).await?;
        Ok(Progress {
            next: end,
            is_waiting: true,
        })
    }

    async fn send<R>(
        &self,
        topic: String,
        partition: FetchablePartitionResponse<R>,
    ) -> Result<(), End>
    where
        R: Encoder + Default + std::fmt::Debug,
        StreamFetchResponse<R>: Encoder + Default,
    {
        let response = StreamFetchResponse {
            topic,
            stream_id: self.id,
            partition,
        };
        let message = ResponseMessage::from_header(&self.header, response);
        let mut sink = self.sink.lock().await;
        let sent = sink.send_response(&message, self.header.api_version());
        sent.await.map_err(|_| End::Gone)
    }
}
