//! One chain, read from the table and walked; many at once.

use std::sync::Arc;

use millpond_format::frame::FrameDecoder;

use super::census::Thresholds;
use super::walk::{self, Walk, WalkRules, Walked};
use crate::directory::{ChainRow, Pipeline};
use crate::error::ReadError;
use crate::events::ReadStats;
use crate::gather::Gather;
use crate::item::codec_of;
use crate::table::{PageRequest, Table};

/// One chain to walk.
pub(super) struct Errand {
    pub(super) table: Arc<Table>,
    pub(super) pipeline: Arc<Pipeline>,
    pub(super) group: Arc<str>,
    pub(super) chain: ChainRow,
    pub(super) committed: u64,
    pub(super) deep: bool,
    pub(super) thresholds: Arc<Thresholds>,
    /// Last chain of its group.
    pub(super) is_last: bool,
}

/// One chain, walked.
pub(super) struct Outcome {
    pub(super) walked: Walked,
    pub(super) group: Arc<str>,
    pub(super) topic_partition: u32,
    pub(super) is_last: bool,
    pub(super) read_units: f64,
}

impl Errand {
    /// Reads it and walks it.
    ///
    /// # Errors
    /// A [`ReadError`] when the table cannot be read.
    pub(super) async fn run(self) -> Result<Outcome, ReadError> {
        let topic_partition = self.chain.topic_partition;
        let mut decoder = FrameDecoder::new().map_err(|e| ReadError::Decoder(e.to_string()))?;
        let mut walk = Walk::new(
            WalkRules {
                group: &self.group,
                topic_partition,
                committed: self.committed,
                late_ms: self.chain.late_ms,
                is_deep: self.deep,
                thresholds: &self.thresholds,
            },
            &mut decoder,
        );
        let request = PageRequest {
            attributes: Some(walk::attributes(self.deep)),
            consistent: self.table.consistent,
            ..PageRequest::all(String::new())
        };
        let of = (self.pipeline.name.as_str(), &*self.group);
        let mut gather = Gather::new(Arc::clone(&self.table), of, self.chain, request);
        let mut stats = ReadStats::default();
        while let Some(item) = gather.next(&mut stats).await? {
            if self.deep {
                let (table, pipeline) = (&self.table, &self.pipeline.name);
                let codec = codec_of(&item);
                let decoder = walk.decoder();
                let prepared = table.dictionaries.prepare(table, pipeline, codec, decoder);
                // Without it its frames are found to be unreadable, and it is told of at the end.
                let _ = prepared.await?;
            }
            walk.take(self.table.key_of(&item), &item);
        }
        let walked = walk.finish();
        Ok(Outcome {
            walked,
            group: self.group,
            topic_partition,
            is_last: self.is_last,
            read_units: stats.read_units,
        })
    }
}
