//! What a count proves, and what it does not hide.

use super::*;
use millpond_format::gap::ChainGap;
use millpond_format::marks::Mark;
use millpond_format::origin::Origin;
use millpond_format::sequence::SequenceNumber;

fn position(ordinal: u64) -> Position {
    let text = (100 + ordinal).to_string();
    Position::new(SequenceNumber::parse(&text).expect("canonical"), 0)
}

fn key(shard: &str, epoch: u64) -> ShardKey {
    ShardKey {
        topic_partition: 0,
        stream: "s".into(),
        shard: shard.into(),
        epoch,
    }
}

/// A table of whole numberings, to be spoilt by a test.
struct Table {
    census: Census,
    ledger: Ledger,
    gaps: Vec<(u32, Gap)>,
    held: BTreeMap<(u32, Box<str>, Box<str>), Held>,
}

impl Table {
    fn new() -> Self {
        Self {
            census: Census::default(),
            ledger: Ledger::default(),
            gaps: Vec::new(),
            held: BTreeMap::new(),
        }
    }

    fn event(&mut self, shard: &str, epoch: u64, ordinal: u64) {
        let text = format!("mp1/s/{shard}/{}/0/1/{epoch}.{ordinal}/k", 100 + ordinal);
        let origin = Origin::parse(text.as_bytes()).expect("an origin");
        let ledgers = BTreeMap::from([(0, self.ledger.clone())]);
        let from = thresholds(&ledgers, &self.held);
        let value = format!("{shard} {ordinal}");
        let (is_letter, value) = (false, Some(value.as_bytes()));
        self.census.origin(0, &origin, is_letter, value, &from);
    }

    fn mark(&mut self, shard: &str, epoch: u64, ordinal: u64) {
        self.ledger.marks.set(Mark {
            stream: "s".into(),
            shard: shard.into(),
            epoch,
            ordinal,
            last: position(ordinal),
            highest: position(ordinal),
        });
    }

    fn stream(&mut self, shard: &str, ordinals: std::ops::Range<u64>, value: &str) {
        let held = self.held.entry((0, "s".into(), shard.into())).or_default();
        for ordinal in ordinals {
            held.take(
                &position(ordinal),
                format!("{value} {ordinal}").as_bytes(),
                true,
            );
        }
    }

    fn kinds(&self) -> Vec<&'static str> {
        let evidence = Evidence {
            census: &self.census,
            ledgers: &BTreeMap::from([(0, self.ledger.clone())]),
            gaps: &self.gaps,
            held: &self.held,
            is_deep: true,
        };
        evidence.judge().1.iter().map(Finding::kind).collect()
    }
}

fn whole() -> Table {
    let mut table = Table::new();
    for (shard, last) in [("a", 9), ("b", 4)] {
        table.mark(shard, 1, last);
        (0..=last).for_each(|ordinal| table.event(shard, 1, ordinal));
    }
    table
}

#[test]
fn a_whole_table_has_no_finding_and_each_change_has_its_own() {
    assert_eq!(whole().kinds(), Vec::<&str>::new());
    let mut twice = whole();
    twice.event("a", 1, 3);
    assert_eq!(twice.kinds(), ["repeated-events"]);
    let mut beyond = whole();
    beyond.event("a", 1, 10);
    assert_eq!(beyond.kinds(), ["mark-behind"]);
    let mut unknown = whole();
    unknown.event("c", 1, 0);
    assert_eq!(unknown.kinds(), ["mark-behind"]);
    let mut gone = whole();
    gone.census.shards.remove(&key("b", 1));
    assert_eq!(gone.kinds(), ["missing-events"]);
    for skipped in 0..10 {
        let mut table = Table::new();
        table.mark("a", 1, 9);
        let present = (0..10).filter(|ordinal| *ordinal != skipped);
        present.for_each(|ordinal| table.event("a", 1, ordinal));
        assert_eq!(table.kinds(), ["missing-events"], "without {skipped}");
        // As many as there must be, but one of them is another one twice.
        table.event("a", 1, (skipped + 1) % 10);
        assert_eq!(table.kinds(), ["other-ordinals"], "without {skipped}");
    }
}

#[test]
fn a_recorded_gap_accounts_for_as_much_as_it_says() {
    let mut table = Table::new();
    table.mark("a", 1, 9);
    (0..3)
        .chain(6..10)
        .for_each(|ordinal| table.event("a", 1, ordinal));
    assert_eq!(table.kinds(), ["missing-events"]);
    let gap = |missing| ChainGap {
        stream: "s".into(),
        shard: "a".into(),
        epoch: 1,
        first: 3,
        last: 5,
        missing,
        before: Some(position(2)),
        after: position(6),
        offset: 3,
    };
    table.gaps = vec![(0, Gap::Chain(Box::new(gap(3))))];
    assert_eq!(table.kinds(), Vec::<&str>::new());
    table.gaps = vec![(0, Gap::Chain(Box::new(gap(2))))];
    assert_eq!(table.kinds(), ["missing-events"]);
    // Of another topic partition it says nothing here.
    table.gaps = vec![(1, Gap::Chain(Box::new(gap(3))))];
    assert_eq!(table.kinds(), ["missing-events"]);
}

#[test]
fn removed_records_account_for_no_more_than_were_removed() {
    let mut table = Table::new();
    table.mark("a", 1, 9);
    (0..8).for_each(|ordinal| table.event("a", 1, ordinal));
    table.ledger.marks.remove(2);
    assert_eq!(table.kinds(), Vec::<&str>::new());
    table.mark("a", 1, 10);
    assert_eq!(table.kinds(), ["missing-events"]);
}

#[test]
fn a_new_numbering_begins_where_repetition_ends() {
    let mut table = Table::new();
    // Ordinals 0 to 4 of the second numbering repeated the first.
    (0..5).for_each(|ordinal| table.event("a", 1, ordinal));
    (5..9).for_each(|ordinal| table.event("a", 2, ordinal));
    table.mark("a", 2, 8);
    assert_eq!(table.kinds(), Vec::<&str>::new());
    table.mark("a", 2, 9);
    assert_eq!(table.kinds(), ["missing-events"]);
    // Nothing but repetitions so far.
    let mut table = Table::new();
    (0..5).for_each(|ordinal| table.event("a", 1, ordinal));
    table.mark("a", 2, 3);
    assert_eq!(table.kinds(), Vec::<&str>::new());
}

#[test]
fn the_stream_is_held_against_the_table() {
    let with = |stream: std::ops::Range<u64>, value: &str| {
        let mut table = Table::new();
        table.mark("a", 1, 9);
        table.stream("a", stream, value);
        (0..10).for_each(|ordinal| table.event("a", 1, ordinal));
        table.kinds()
    };
    // Whole, and with its oldest records trimmed.
    assert_eq!(with(0..10, "a"), Vec::<&str>::new());
    assert_eq!(with(7..10, "a"), Vec::<&str>::new());
    assert_eq!(with(0..10, "x"), ["stream-differs"]);
    assert_eq!(with(7..10, "x"), ["stream-differs"]);
    // One fewer than the table has, though nothing was trimmed; one more.
    assert_eq!(with(0..9, "a"), ["stream-count"]);
    assert_eq!(with(0..11, "a"), ["stream-count"]);
}
