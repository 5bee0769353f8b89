use super::*;
use crate::checkpoint::Aggregated;

const NOW: i64 = 1_763_886_000_000;

fn info(id: &str, parents: &[&str]) -> ShardInfo {
    ShardInfo {
        id: id.into(),
        parents: parents.iter().map(|id| ShardId::from(*id)).collect(),
        hash_keys: None,
    }
}

fn list(roster: &mut Roster, shards: &[ShardInfo]) -> Vec<ShardId> {
    let ticket = roster.begin_listing();
    roster.listed(ticket, shards, 1)
}

fn durable(sequence: Option<&str>, ordinals: &[u64], unread_since_ms: i64) -> Durable {
    Durable {
        position: sequence
            .and_then(SequenceNumber::parse)
            .map(|sequence| Position::new(sequence, 0)),
        chain: ChainState {
            epoch: 5,
            next_ordinals: ordinals.to_vec(),
        },
        unread_since_ms: Some(unread_since_ms),
        caught_up: false,
        finished: false,
    }
}

fn restart(roster: &Roster, partitions: u32) -> Roster {
    Roster::resume(
        roster.checkpoint().clone(),
        Aggregated::Auto,
        partitions,
        NOW + 1,
    )
}

#[test]
fn each_kind_of_start_begins_where_it_says() {
    for (start, root, child) in [
        (PinnedStart::TrimHorizon, ReadFrom::TrimHorizon, None),
        (
            PinnedStart::Timestamp { ms: 77 },
            ReadFrom::Timestamp(77),
            Some(77),
        ),
    ] {
        let mut roster = Roster::fresh("events", 1, start, Aggregated::Auto, 2);
        list(&mut roster, &[info("0", &["expired"]), info("1", &["0"])]);
        let order = roster.begin(&"0".into(), NOW);
        assert_eq!((order.from, order.unread_since_ms), (root, child));
        assert!(order.unpinned);
        assert_eq!(order.chain.next_ordinals, [0, 0]);
        assert_eq!(order.chain.epoch, NOW as u64);
        roster.finished(&"0".into(), &[], &durable(None, &[0, 0], 500));
        // A child holds nothing from before its parent's end: it is read from its beginning.
        let order = roster.begin(&"1".into(), NOW);
        assert_eq!(order.from, ReadFrom::TrimHorizon);
        assert_eq!(order.unread_since_ms, Some(500));
    }
}

#[test]
fn a_restart_goes_on_where_the_checkpoint_is() {
    let mut roster = Roster::fresh("events", 1, PinnedStart::TrimHorizon, Aggregated::Auto, 2);
    list(&mut roster, &[info("0", &[]), info("1", &[])]);
    let zero = ShardId::from("0");
    let chain = roster.begin(&zero, NOW).chain;
    roster.first_read(&zero, "10".to_owned(), Some(9_000), chain.clone());
    let order = restart(&roster, 2).begin(&zero, NOW + 1);
    assert_eq!(order.from, ReadFrom::At("10".to_owned()));
    assert!(!order.unpinned);
    assert_eq!(order.chain, chain);
    assert_eq!(order.unread_since_ms, Some(9_000));
    roster.delivered(&zero, &durable(Some("12"), &[3, 4], 9_500));
    let order = restart(&roster, 2).begin(&zero, NOW + 1);
    assert_eq!(order.from, ReadFrom::After("12".to_owned()));
    assert_eq!(order.chain.next_ordinals, [3, 4]);
    assert_eq!(order.chain.epoch, 5);
    assert_eq!(order.position.map(|p| p.sequence), Some("12".into()));
}

#[test]
fn another_partition_count_begins_a_new_numbering() {
    let mut roster = Roster::fresh("events", 1, PinnedStart::TrimHorizon, Aggregated::Auto, 2);
    list(&mut roster, &[info("0", &[])]);
    let zero = ShardId::from("0");
    roster.begin(&zero, NOW);
    roster.delivered(&zero, &durable(Some("12"), &[3, 4], 9_500));
    let mut other = restart(&roster, 3);
    assert!(other.is_dirty());
    let order = other.begin(&zero, NOW + 2);
    assert_eq!(order.chain.epoch, NOW as u64 + 1);
    assert_eq!(order.chain.next_ordinals, [0, 0, 0]);
    // A clock that went back does not reuse a numbering.
    let order = Roster::resume(roster.checkpoint().clone(), Aggregated::Auto, 3, 2).begin(&zero, 2);
    assert_eq!(order.chain.epoch, 6);
}

#[test]
fn parent_and_children_change_in_one_checkpoint() {
    let mut roster = Roster::fresh("events", 1, PinnedStart::TrimHorizon, Aggregated::Auto, 1);
    list(&mut roster, &[info("0", &[])]);
    roster.begin(&"0".into(), NOW);
    let children = [info("1", &["0"]), info("2", &["0"])];
    roster.finished(&"0".into(), &children, &durable(Some("5"), &[1], 700));
    let saved = &roster.checkpoint().shards;
    assert_eq!(saved[&ShardId::from("0")].progress, Progress::Finished);
    assert_eq!(saved[&ShardId::from("1")].progress, Progress::NotBegun);
    assert_eq!(saved[&ShardId::from("2")].unread_since_ms, Some(700));
    // The children have expired while nobody was there: that is seen.
    let vanished = list(
        &mut restart(&roster, 1),
        &[info("3", &["1"]), info("4", &["2"])],
    );
    assert_eq!(vanished, [ShardId::from("1"), ShardId::from("2")]);
}

#[test]
fn a_child_of_two_is_as_old_as_the_older() {
    let mut roster = Roster::fresh("events", 1, PinnedStart::TrimHorizon, Aggregated::Auto, 1);
    list(&mut roster, &[info("0", &[]), info("1", &[])]);
    let child = [info("2", &["0", "1"])];
    for (id, since) in [("0", 700), ("1", 600)] {
        roster.begin(&id.into(), NOW);
        roster.finished(&id.into(), &child, &durable(None, &[0], since));
    }
    assert_eq!(roster.startable(), [ShardId::from("2")]);
    assert_eq!(roster.begin(&"2".into(), NOW).unread_since_ms, Some(600));
}

#[test]
fn an_idle_shard_is_saved_once_a_minute() {
    let mut roster = Roster::fresh("events", 1, PinnedStart::TrimHorizon, Aggregated::Auto, 1);
    list(&mut roster, &[info("0", &[])]);
    roster.begin(&"0".into(), NOW);
    roster.take_writes(|_| Some(0));
    let mut saves = 0;
    for second in 0..600 {
        roster.delivered(&"0".into(), &durable(None, &[0], NOW + second * 1_000));
        saves += u32::from(!roster.take_writes(|_| Some(0)).is_empty());
    }
    assert_eq!(saves, 10);
}
