use proptest::prelude::*;

use super::*;

fn info(id: &str, parents: &[&str]) -> ShardInfo {
    ShardInfo {
        id: id.into(),
        parents: parents.iter().map(|id| ShardId::from(*id)).collect(),
        hash_keys: None,
    }
}

fn list(lineage: &mut Lineage, shards: &[ShardInfo]) -> ListingOutcome {
    let ticket = lineage.begin_listing();
    lineage.listed(ticket, shards, 1)
}

fn names(ids: &[ShardId]) -> Vec<&str> {
    ids.iter().map(ShardId::as_str).collect()
}

#[test]
fn children_wait_for_every_parent() {
    let mut lineage = Lineage::default();
    let all = [
        info("0", &[]),
        info("1", &[]),
        info("2", &["0", "1"]),
        info("3", &["2"]),
        info("4", &["2"]),
    ];
    list(&mut lineage, &all);
    assert_eq!(names(&lineage.startable()), ["0", "1"]);
    lineage.start(&"0".into());
    lineage.start(&"1".into());
    lineage.finish(&"0".into());
    assert_eq!(names(&lineage.startable()), [""; 0]);
    lineage.finish(&"1".into());
    assert_eq!(names(&lineage.startable()), ["2"]);
    lineage.start(&"2".into());
    lineage.finish(&"2".into());
    assert_eq!(names(&lineage.startable()), ["3", "4"]);
}

#[test]
fn expired_parents_are_no_hindrance() {
    let mut lineage = Lineage::default();
    list(&mut lineage, &[info("3", &["1", "2"]), info("4", &["3"])]);
    assert_eq!(names(&lineage.startable()), ["3"]);
}

#[test]
fn a_child_named_before_its_other_parent_is_known_waits_for_a_listing() {
    let mut lineage = Lineage::default();
    list(&mut lineage, &[info("0", &[]), info("1", &[])]);
    lineage.start(&"0".into());
    lineage.finish(&"0".into());
    // `2` is a child of `1` that nobody has told us of yet.
    let ticket = lineage.begin_listing();
    lineage.children(&[info("3", &["0", "2"])]);
    assert!(lineage.needs_listing());
    // A listing that was begun before says nothing about `2`.
    lineage.listed(ticket, &[info("0", &[]), info("1", &[])], 1);
    assert_eq!(names(&lineage.startable()), ["1"]);
    list(
        &mut lineage,
        &[
            info("0", &[]),
            info("1", &[]),
            info("2", &["1"]),
            info("3", &["0", "2"]),
        ],
    );
    assert_eq!(names(&lineage.startable()), ["1"]);
    assert!(!lineage.needs_listing());
    for id in ["1", "2"] {
        lineage.start(&id.into());
        lineage.finish(&id.into());
    }
    assert_eq!(names(&lineage.startable()), ["3"]);
}

#[test]
fn a_listing_of_several_pages_settles_nothing_new() {
    let mut lineage = Lineage::default();
    let shards = [info("3", &["1"])];
    let ticket = lineage.begin_listing();
    lineage.listed(ticket, &shards, 2);
    assert_eq!(names(&lineage.startable()), [""; 0]);
    assert!(lineage.needs_listing());
    let ticket = lineage.begin_listing();
    lineage.listed(ticket, &shards, 2);
    assert_eq!(names(&lineage.startable()), ["3"]);
}

#[test]
fn what_is_not_listed_any_more_is_forgotten_or_reported() {
    let mut lineage = Lineage::default();
    lineage.resume(info("0", &[]), true);
    lineage.resume(info("1", &[]), false);
    lineage.resume(info("2", &["0"]), false);
    let outcome = list(&mut lineage, &[info("2", &["0"])]);
    assert_eq!(names(&outcome.forgotten), ["0"]);
    assert_eq!(names(&outcome.vanished), ["1"]);
    assert_eq!(names(&lineage.startable()), ["1", "2"]);
}

/// A random history of splits and merges: `parents[n]` are the parents of shard `n`.
fn histories() -> impl Strategy<Value = (Vec<Vec<usize>>, usize)> {
    let steps = prop::collection::vec((any::<bool>(), any::<u16>(), any::<u16>()), 0..12);
    (1usize..4, steps, 0usize..6).prop_map(|(roots, steps, expired)| {
        let mut parents: Vec<Vec<usize>> = vec![Vec::new(); roots];
        let mut open: Vec<usize> = (0..roots).collect();
        let mut closed = Vec::new();
        for (split, a, b) in steps {
            let first = open.remove(usize::from(a) % open.len());
            closed.push(first);
            if split || open.is_empty() {
                for _ in 0..2 {
                    open.push(parents.len());
                    parents.push(vec![first]);
                }
            } else {
                let second = open.remove(usize::from(b) % open.len());
                closed.push(second);
                open.push(parents.len());
                parents.push(vec![first, second]);
            }
        }
        // Shards expire in the order in which they were closed.
        let expired = expired.min(closed.len());
        (parents, expired)
    })
}

fn closing_order(parents: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    for child in parents {
        for parent in child {
            if !order.contains(parent) {
                order.push(*parent);
            }
        }
    }
    order
}

fn id(shard: usize) -> ShardId {
    format!("shardId-{shard:012}").into()
}

proptest! {
    #[test]
    fn a_child_never_starts_before_its_parents_and_every_shard_starts(
        (parents, expired) in histories(),
        choices in prop::collection::vec((0u8..4, any::<u16>()), 400),
    ) {
        let gone: Vec<usize> = closing_order(&parents).into_iter().take(expired).collect();
        let kept: Vec<usize> = (0..parents.len()).filter(|s| !gone.contains(s)).collect();
        let describe = |shard: usize| ShardInfo {
            id: id(shard),
            parents: parents[shard].iter().map(|parent| id(*parent)).collect(),
            hash_keys: None,
        };
        let mut lineage = Lineage::default();
        // How much of the history has happened: only that much can be listed or named.
        let mut made = kept.len().min(1);
        list(&mut lineage, &kept[..made].iter().map(|s| describe(*s)).collect::<Vec<_>>());
        let mut reading = Vec::new();
        let mut finished = Vec::new();
        for (choice, pick) in choices {
            let pick = usize::from(pick);
            match choice {
                0 => made = (made + 1).min(kept.len()),
                1 => {
                    let shards: Vec<_> = kept[..made].iter().map(|s| describe(*s)).collect();
                    let outcome = list(&mut lineage, &shards);
                    prop_assert!(outcome.vanished.is_empty());
                }
                2 => {
                    let startable = lineage.startable();
                    if startable.is_empty() { continue; }
                    let started = &startable[pick % startable.len()];
                    let shard = (0..parents.len()).find(|s| id(*s) == *started).expect("known");
                    for parent in &parents[shard] {
                        prop_assert!(
                            gone.contains(parent) || finished.contains(parent),
                            "{shard} before its parent {parent}"
                        );
                    }
                    lineage.start(started);
                    reading.push(shard);
                }
                _ => {
                    if reading.is_empty() { continue; }
                    let shard = reading[pick % reading.len()];
                    let children: Vec<usize> =
                        (0..parents.len()).filter(|c| parents[*c].contains(&shard)).collect();
                    // A shard ends when its children are made; an open one does not end.
                    if children.is_empty() || !children.iter().all(|c| kept[..made].contains(c)) {
                        continue;
                    }
                    reading.retain(|s| *s != shard);
                    finished.push(shard);
                    let named: Vec<_> = children.into_iter().map(describe).collect();
                    lineage.children(&named);
                    lineage.finish(&id(shard));
                }
            }
        }
        // Let it run out: everything kept is read.
        made = kept.len();
        for _ in 0..=kept.len() {
            list(&mut lineage, &kept[..made].iter().map(|s| describe(*s)).collect::<Vec<_>>());
            for started in lineage.startable() {
                lineage.start(&started);
            }
            for shard in &kept {
                if lineage.stage(&id(*shard)) == Some(Stage::Reading) {
                    lineage.finish(&id(*shard));
                }
            }
        }
        for shard in &kept {
            prop_assert_eq!(lineage.stage(&id(*shard)), Some(Stage::Finished));
        }
    }
}
