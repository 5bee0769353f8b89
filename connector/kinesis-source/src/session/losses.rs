//! The part of a session that deals with events that the stream removed before they were read.
//!
//! ```text
//! reader: lost ──► what was read before is durable ──► topic told ──► numbered anew, saved ──► reader goes on
//! reader: shard gone ──► a listing begun since does not name it ──► lost, to its end ──► topic told ──► finished
//! ```
//!
//! Died before the topic was told: nothing moved, the loss is found again. Died after: it is told a second
//! time, under the same key or with bounds that hold more; whoever counts gaps counts them by key.

use std::collections::BTreeMap;

use millpond_connector::topic::TopicError;
use millpond_format::stream_gap::{StreamGap, StreamGapKind};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{Done, Session};
use crate::delivery::ShardIndex;
use crate::error::SourceError;
use crate::listing::Listing;
use crate::loss::{Lost, OnLoss, tell};
use crate::shard::ShardId;

/// How a reader goes on behind a loss.
pub(crate) struct Noted {
    /// Its shard's handle from now on.
    pub(crate) index: ShardIndex,
    /// Heard once that is saved.
    pub(crate) saved: oneshot::Receiver<()>,
}

struct Open {
    index: ShardIndex,
    lost: Lost,
    /// The reader that waits; `None` where the shard has ended with the loss.
    reader: Option<oneshot::Sender<Noted>>,
    is_told: bool,
}

#[derive(Default)]
pub(super) struct Losses {
    open: BTreeMap<ShardId, Open>,
    /// Shards that the service does not know any more, by one answer; true once a listing was begun since.
    suspected: BTreeMap<ShardId, bool>,
    /// Shards without a row that the topic is being told of: the rows of their children wait for that.
    unseen: usize,
}

impl Losses {
    pub(super) fn forget(&mut self, id: &ShardId) {
        self.open.remove(id);
        self.suspected.remove(id);
    }

    /// True while nothing may be saved.
    pub(super) fn hold_saves(&self) -> bool {
        self.unseen > 0
    }

    pub(super) fn listing_begins(&mut self) {
        self.suspected.values_mut().for_each(|asked| *asked = true);
    }
}

impl Session {
    /// A reader found that something is missing, and waits.
    pub(super) fn lost(&mut self, index: ShardIndex, lost: Lost, reader: oneshot::Sender<Noted>) {
        let id = self.delivery.shard_id(index).clone();
        let open = Open {
            index,
            lost,
            reader: Some(reader),
            is_told: false,
        };
        self.losses.open.insert(id, open);
    }

    /// The service does not know the shard. That is believed once a listing says the same: one
    /// answer alone may be stale.
    pub(super) fn suspect(&mut self, id: ShardId) {
        self.losses.suspected.insert(id, false);
        self.listing_wanted = true;
    }

    pub(super) fn judge_suspected(&mut self, listing: &Listing) {
        let suspected = std::mem::take(&mut self.losses.suspected);
        for (id, asked) in suspected {
            if !asked {
                self.losses.suspected.insert(id, false);
                self.listing_wanted = true;
            } else if listing.shards.iter().any(|shard| shard.id == id) {
                tracing::warn!(shard = %id, "shard was not found and is listed: tried again");
                // Its events may be numbered from the checkpoint again: not in a batch with those on their way.
                self.delivery.seal_all();
                self.forget(&id);
            } else {
                self.gone(id);
            }
        }
    }

    fn gone(&mut self, id: ShardId) {
        let Some(index) = self.active.get(&id).map(|active| active.index) else {
            return;
        };
        if self.parts.on_loss == OnLoss::Fail {
            let target = Box::new(self.parts.api.target().clone());
            self.fail(SourceError::ShardGone { shard: id, target });
            return;
        }
        let from_ms = self.delivery.durable(index).unread_since_ms;
        let lost = Lost {
            kind: StreamGapKind::Gone,
            from_ms,
            to_ms: self.parts.retention.horizon_ms(),
            first: None,
            unread_since_ms: from_ms,
        };
        let open = Open {
            index,
            lost,
            reader: None,
            is_told: false,
        };
        self.losses.open.insert(id, open);
    }

    /// Tells the topic of losses before which everything is durable.
    pub(super) fn tell_losses(&mut self) {
        let now = Instant::now().into_std();
        let now_ms = (self.parts.clock)();
        for (id, open) in &mut self.losses.open {
            if let Some(active) = self.active.get_mut(id) {
                active.progress.moved(now, 0);
            }
            if open.is_told || !self.delivery.is_settled(open.index) {
                continue;
            }
            open.is_told = true;
            let durable = self.delivery.durable(open.index);
            let after = durable.position.as_ref();
            let gap = StreamGap {
                stream: self.parts.api.target().stream.clone(),
                shard: id.as_str().to_owned(),
                after: after.map(|position| position.sequence.as_ref().to_owned()),
                before: open.lost.first.as_ref().map(|first| first.sequence.clone()),
                from_ms: open.lost.from_ms,
                to_ms: Some(open.lost.to_ms),
                kind: open.lost.kind,
            };
            let topic = self.parts.topic.clone();
            let (id, index, awaits) = (id.clone(), open.index, self.parts.awaits_release);
            self.tasks.spawn(async move {
                let told = tell(topic, gap.clone(), now_ms, awaits).await;
                Done::LossTold(id, index, told.map(|()| gap))
            });
        }
    }

    pub(super) fn loss_told(
        &mut self,
        id: ShardId,
        index: ShardIndex,
        told: Result<StreamGap, TopicError>,
    ) {
        let gap = match told {
            Ok(gap) => gap,
            Err(error) => return self.fail(error.into()),
        };
        tracing::error!(%gap, "recorded as a gap, goes on behind it");
        self.parts.metrics.stream_gaps.add(1);
        if !self.is_active(index) {
            return;
        }
        let Some(Open { lost, reader, .. }) = self.losses.open.remove(&id) else {
            return;
        };
        let Some(reader) = reader else {
            self.finish(index, &[]);
            return;
        };
        let now_ms = (self.parts.clock)();
        let position = match &lost.first {
            Some(_) => None,
            None => self.delivery.durable(index).position.clone(),
        };
        let chain = self.roster.renumber(&id, &lost, now_ms);
        let hash_keys = self.roster.hash_keys(&id);
        let since_ms = lost.unread_since_ms;
        self.give_up_places();
        let index = self
            .delivery
            .add_shard(id.clone(), position, chain, since_ms, hash_keys);
        if let Some(active) = self.active.get_mut(&id) {
            active.index = index;
        }
        let (pin, saved) = oneshot::channel();
        self.pins.push((id, pin));
        // A reader that is gone needs no answer.
        let _ = reader.send(Noted { index, saved });
    }

    /// Shards that nobody heard of were closed and removed; their children are known.
    pub(super) fn tell_unseen(&mut self, unseen: Vec<ShardId>) {
        let now_ms = (self.parts.clock)();
        for id in unseen {
            if self.parts.on_loss == OnLoss::Fail {
                let target = Box::new(self.parts.api.target().clone());
                self.fail(SourceError::ShardGone { shard: id, target });
                continue;
            }
            self.losses.unseen += 1;
            let gap = unseen_gap(
                &self.parts.api.target().stream,
                &id,
                self.parts.retention.horizon_ms(),
            );
            let (topic, awaits) = (self.parts.topic.clone(), self.parts.awaits_release);
            self.tasks.spawn(async move {
                let told = tell(topic, gap.clone(), now_ms, awaits).await;
                Done::UnseenTold(told.map(|()| gap))
            });
        }
    }

    pub(super) fn unseen_told(&mut self, told: Result<StreamGap, TopicError>) {
        self.losses.unseen = self.losses.unseen.saturating_sub(1);
        match told {
            Ok(gap) => {
                tracing::error!(%gap, "recorded as a gap");
                self.parts.metrics.stream_gaps.add(1);
            }
            Err(error) => self.fail(error.into()),
        }
    }
}

/// The gap of a shard that left the stream before anybody heard of it.
pub(crate) fn unseen_gap(stream: &str, shard: &ShardId, horizon_ms: i64) -> StreamGap {
    StreamGap {
        stream: stream.to_owned(),
        shard: shard.as_str().to_owned(),
        after: None,
        before: None,
        from_ms: None,
        to_ms: Some(horizon_ms),
        kind: StreamGapKind::Unseen,
    }
}
