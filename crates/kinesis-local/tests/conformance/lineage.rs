//! Shards, their parents and their children.

use aws_sdk_kinesis::{
    Client,
    operation::get_records::GetRecordsOutput,
    primitives::Blob,
    types::{ScalingType, Shard, ShardIteratorType},
};

use crate::common::{code, create, iterator, read, shards, wait_until_active};

fn id(index: u32) -> String {
    format!("shardId-{index:012}")
}

fn range(shard: &Shard) -> (u128, u128) {
    let range = shard.hash_key_range().unwrap();
    (
        range.starting_hash_key().parse().unwrap(),
        range.ending_hash_key().parse().unwrap(),
    )
}

fn ending(shard: &Shard) -> Option<&str> {
    shard
        .sequence_number_range()
        .unwrap()
        .ending_sequence_number()
}

fn open(shards: &[Shard]) -> Vec<(u128, u128)> {
    let mut ranges: Vec<_> = shards
        .iter()
        .filter(|shard| ending(shard).is_none())
        .map(range)
        .collect();
    ranges.sort_unstable();
    ranges
}

fn check_cover(ranges: &[(u128, u128)]) {
    assert_eq!((ranges[0].0, ranges[ranges.len() - 1].1), (0, u128::MAX));
    assert!(
        ranges.windows(2).all(|pair| pair[0].1 + 1 == pair[1].0),
        "{ranges:?}"
    );
}

async fn put_at(client: &Client, stream: &str, hash_key: u128, data: &str) -> (String, String) {
    let request = client
        .put_record()
        .stream_name(stream)
        .partition_key("k")
        .data(Blob::new(data));
    let answer = request
        .explicit_hash_key(hash_key.to_string())
        .send()
        .await
        .unwrap();
    (
        answer.shard_id().to_owned(),
        answer.sequence_number().to_owned(),
    )
}

/// Reads a shard from its beginning to its end; the last page, and how many records there were.
async fn read_to_end(client: &Client, stream: &str, shard: &str) -> (GetRecordsOutput, usize) {
    let mut next = iterator(client, stream, shard, ShardIteratorType::TrimHorizon).await;
    let mut records = 0;
    for _ in 0..10 {
        let page = read(client, &next).await;
        records += page.records().len();
        match page.next_shard_iterator.clone() {
            None => return (page, records),
            Some(following) => next = following,
        }
    }
    panic!("`{shard}` of `{stream}` does not end");
}

pub async fn a_stream_divides_the_hash_space(client: Client) {
    for count in [1, 3, 4] {
        let stream = format!("divided-{count}");
        create(&client, &stream, count).await;
        let shards = shards(&client, &stream).await;
        assert_eq!(shards.len(), count as usize);
        let ids: Vec<_> = shards
            .iter()
            .map(|shard| shard.shard_id().to_owned())
            .collect();
        assert_eq!(ids, (0..count as u32).map(id).collect::<Vec<_>>());
        check_cover(&open(&shards));
        let step = u128::MAX / count as u128;
        assert!(
            open(&shards)
                .iter()
                .all(|(start, end)| (end - start).abs_diff(step) <= count as u128)
        );
        assert!(shards.iter().all(|shard| shard.parent_shard_id().is_none()));
    }
}

pub async fn a_split_shard_ends_with_two_children(client: Client) {
    let stream = "split";
    create(&client, stream, 1).await;
    let (_, before) = put_at(&client, stream, 5, "before").await;
    let at = 1u128 << 126;
    let split = client
        .split_shard()
        .stream_name(stream)
        .shard_to_split(id(0))
        .new_starting_hash_key(at.to_string());
    split.send().await.unwrap();
    wait_until_active(&client, stream).await;

    let shards = shards(&client, stream).await;
    assert_eq!(shards.len(), 3);
    assert!(ending(&shards[0]).is_some_and(|ending| ending >= &*before));
    assert_eq!(
        (range(&shards[1]), range(&shards[2])),
        ((0, at - 1), (at, u128::MAX))
    );
    for child in &shards[1..] {
        assert_eq!(
            (child.parent_shard_id(), child.adjacent_parent_shard_id()),
            (Some(&*id(0)), None)
        );
    }
    for (hash_key, shard) in [(0, 1), (at - 1, 1), (at, 2)] {
        let (placed, number) = put_at(&client, stream, hash_key, "after").await;
        assert_eq!(placed, id(shard));
        assert!(number > before);
    }

    let (end, records) = read_to_end(&client, stream, &id(0)).await;
    assert_eq!(records, 1);
    let mut children: Vec<_> = end
        .child_shards()
        .iter()
        .map(|child| child.shard_id().to_owned())
        .collect();
    children.sort();
    assert_eq!(children, [id(1), id(2)]);
    assert!(
        end.child_shards()
            .iter()
            .all(|child| child.parent_shards() == [id(0)])
    );
}

pub async fn a_merged_shard_ends_with_one_child(client: Client) {
    let stream = "merge";
    create(&client, stream, 3).await;
    let (_, before) = put_at(&client, stream, 0, "before").await;
    let merge = client
        .merge_shards()
        .stream_name(stream)
        .shard_to_merge(id(0))
        .adjacent_shard_to_merge(id(1));
    merge.send().await.unwrap();
    wait_until_active(&client, stream).await;

    let shards = shards(&client, stream).await;
    assert_eq!(shards.len(), 4);
    check_cover(&open(&shards));
    assert_eq!(
        range(&shards[3]),
        (range(&shards[0]).0, range(&shards[1]).1)
    );
    assert_eq!(shards[3].parent_shard_id(), Some(&*id(0)));
    assert_eq!(shards[3].adjacent_parent_shard_id(), Some(&*id(1)));
    let (placed, number) = put_at(&client, stream, 0, "after").await;
    assert_eq!(placed, id(3));
    assert!(number > before);

    for (parent, records) in [(0, 1), (1, 0)] {
        let (end, read) = read_to_end(&client, stream, &id(parent)).await;
        assert_eq!(read, records);
        assert_eq!(end.child_shards().len(), 1);
        let mut parents = end.child_shards()[0].parent_shards().to_vec();
        parents.sort();
        assert_eq!(parents, [id(0), id(1)]);
    }
}

pub async fn shard_counts_change_uniformly(client: Client) {
    let stream = "counts";
    create(&client, stream, 2).await;
    for target in [4, 2] {
        let request = client
            .update_shard_count()
            .stream_name(stream)
            .target_shard_count(target);
        let answer = request
            .scaling_type(ScalingType::UniformScaling)
            .send()
            .await
            .unwrap();
        assert_eq!(answer.target_shard_count(), Some(target));
        wait_until_active(&client, stream).await;
        let shards = shards(&client, stream).await;
        let open = open(&shards);
        assert_eq!(open.len(), target as usize);
        check_cover(&open);
        let step = u128::MAX / target as u128;
        assert!(
            open.iter()
                .all(|(start, end)| (end - start).abs_diff(step) <= target as u128),
            "{open:?}"
        );
        let known: Vec<_> = shards.iter().map(|shard| shard.shard_id()).collect();
        for parent in shards.iter().flat_map(|shard| {
            shard
                .parent_shard_id()
                .into_iter()
                .chain(shard.adjacent_parent_shard_id())
        }) {
            assert!(known.contains(&parent));
        }
    }
}

pub async fn shard_counts_change_by_at_most_a_factor_of_two(client: Client) {
    let stream = "bounds";
    create(&client, stream, 4).await;
    for target in [1, 9] {
        let request = client
            .update_shard_count()
            .stream_name(stream)
            .target_shard_count(target);
        let refused = code(
            request
                .scaling_type(ScalingType::UniformScaling)
                .send()
                .await,
        );
        assert!(
            refused == "InvalidArgumentException" || refused == "LimitExceededException",
            "{target}: {refused}"
        );
    }
}
