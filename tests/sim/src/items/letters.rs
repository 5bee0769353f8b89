//! Dead letters: each for its own reason, once, as it was put (I10, I12).

use millpond_dynamodb_sink::row::{Row, names};
use millpond_format::origin::Origin;
use millpond_sink::letters::{AFTER_GAP, AFTER_GAP_IN_DOUBT};

use super::Items;
use crate::oracle::{Fate, Oracle, broken};
use crate::world::Violation;

impl Items {
    pub(crate) fn letter_put(
        &mut self,
        oracle: &Oracle,
        old: Option<&Row>,
        new: &Row,
    ) -> Result<(), Violation> {
        if !new.key.pk.starts_with("millpond:dead-letters/") {
            return broken("I10", format!("{:?} is no dead letter", new.key));
        }
        if let Some(old) = old {
            return match old == new {
                true => Ok(()),
                false => broken(
                    "I11",
                    format!("dead letter {:?} was replaced by another", new.key),
                ),
            };
        }
        let origin = new.string(names::ORIGIN).unwrap_or_default();
        let Ok(origin) = Origin::parse(origin.as_bytes()) else {
            return broken("I10", format!("dead letter {:?} has no origin", new.key));
        };
        let index = oracle.event_of(&origin)?;
        let event = &oracle.events[index];
        let value = new.binary(names::VALUE).map(|pieces| pieces.concat());
        if value.as_deref() != Some(&*event.value) {
            return broken(
                "I12",
                format!("event {index} was changed on its way to the dead letters"),
            );
        }
        let reason = new.string(names::REASON).unwrap_or_default();
        if [AFTER_GAP, AFTER_GAP_IN_DOUBT].contains(&reason) {
            let sk = new.key.sk.clone();
            return self.late_put(oracle, index, &origin, reason == AFTER_GAP, sk);
        }
        let is_expected = |fate: &Fate| matches!(fate, Fate::Rejected(why) if *why == reason);
        if !event.fates.iter().any(is_expected) {
            return broken(
                "I10",
                format!(
                    "event {index} is a dead letter: {:?}",
                    new.string(names::REASON)
                ),
            );
        }
        match self.dead.insert(index, new.key.sk.clone()) {
            // A dead letter has no place in the table that could be taken back, nor a reader that it would confuse.
            Some(_) if self.taken_back.contains(&index) => Ok(()),
            Some(other) => broken(
                "I10",
                format!(
                    "event {index} is two dead letters, {other} and {}",
                    new.key.sk
                ),
            ),
            None => Ok(()),
        }
    }

    /// An event that came too late went with a gap; `is_missing` says that it is not in the table.
    fn late_put(
        &mut self,
        oracle: &Oracle,
        index: usize,
        origin: &Origin<'_>,
        is_missing: bool,
        sk: String,
    ) -> Result<(), Violation> {
        let partition = oracle.partition_of(index);
        let (epoch, ordinal) = (origin.chain.epoch, origin.chain.ordinal);
        let link = (partition, origin.shard.to_owned(), epoch, ordinal);
        let is_doubted = oracle.filters_ever && self.gaps.has_offsets(partition) && !is_missing;
        if !self.gaps.has_link(&link) && !is_doubted {
            return broken("I10", format!("event {index} is no late one, in no gap"));
        }
        if is_missing && (self.place.contains_key(&index) || self.dead.contains_key(&index)) {
            return broken("I2", format!("event {index} is there, and said not to be"));
        }
        match self.late.insert(index, sk.clone()) {
            Some(other) => broken(
                "I10",
                format!("late event {index} is two dead letters, {other} and {sk}"),
            ),
            None => Ok(()),
        }
    }
}
