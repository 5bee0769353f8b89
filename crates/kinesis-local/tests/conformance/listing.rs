//! Streams and what is known about them.

use aws_sdk_kinesis::{
    Client,
    error::ProvideErrorMetadata,
    types::{ShardFilter, ShardFilterType, StreamMode, StreamModeDetails},
};

use crate::common::{code, create, entry, until, wait_until_active};

pub async fn streams_are_created_and_deleted(client: Client) {
    let stream = "life";
    create(&client, stream, 2).await;
    let answer = client
        .describe_stream_summary()
        .stream_name(stream)
        .send()
        .await
        .unwrap();
    let summary = answer.stream_description_summary().unwrap();
    assert_eq!(summary.stream_name(), stream);
    assert_eq!(
        (summary.open_shard_count(), summary.retention_period_hours()),
        (2, 24)
    );
    assert_eq!(
        summary
            .stream_mode_details()
            .map(StreamModeDetails::stream_mode),
        Some(&StreamMode::Provisioned)
    );
    assert!(summary.stream_creation_timestamp().as_secs_f64() > 1.6e9);
    let again = client
        .create_stream()
        .stream_name(stream)
        .shard_count(1)
        .send()
        .await;
    assert_eq!(code(again), "ResourceInUseException");
    client
        .delete_stream()
        .stream_name(stream)
        .send()
        .await
        .unwrap();
    until("the stream is gone", async || {
        let describe = client.describe_stream_summary().stream_name(stream);
        let Err(error) = describe.send().await else {
            return false;
        };
        assert_eq!(error.code(), Some("ResourceNotFoundException"));
        true
    })
    .await;
}

pub async fn shards_come_in_pages(client: Client) {
    create(&client, "shard-pages", 5).await;
    let mut page = client
        .list_shards()
        .stream_name("shard-pages")
        .max_results(2)
        .send()
        .await
        .unwrap();
    let mut seen = vec![page.shards().len()];
    let mut ids: Vec<_> = page
        .shards()
        .iter()
        .map(|shard| shard.shard_id().to_owned())
        .collect();
    while let Some(token) = page.next_token() {
        page = client
            .list_shards()
            .next_token(token)
            .max_results(2)
            .send()
            .await
            .unwrap();
        seen.push(page.shards().len());
        ids.extend(
            page.shards()
                .iter()
                .map(|shard| shard.shard_id().to_owned()),
        );
    }
    assert_eq!(seen, [2, 2, 1]);
    assert_eq!(
        ids,
        (0..5)
            .map(|n| format!("shardId-{n:012}"))
            .collect::<Vec<_>>()
    );
    let request = client
        .list_shards()
        .stream_name("shard-pages")
        .exclusive_start_shard_id(&ids[2]);
    assert_eq!(request.send().await.unwrap().shards().len(), 2);
}

pub async fn shard_filters_tell_open_from_closed(client: Client) {
    let stream = "filters";
    create(&client, stream, 1).await;
    let split = client
        .split_shard()
        .stream_name(stream)
        .shard_to_split("shardId-000000000000");
    split
        .new_starting_hash_key((1u128 << 127).to_string())
        .send()
        .await
        .unwrap();
    wait_until_active(&client, stream).await;
    let listed = |filter: ShardFilter| {
        let request = client
            .list_shards()
            .stream_name(stream)
            .shard_filter(filter)
            .send();
        async {
            let answer = request.await.unwrap();
            answer
                .shards()
                .iter()
                .map(|shard| shard.shard_id()[19..].to_owned())
                .collect::<Vec<_>>()
        }
    };
    let of_type = |kind| ShardFilter::builder().r#type(kind);
    assert_eq!(
        listed(of_type(ShardFilterType::AtLatest).build().unwrap()).await,
        ["1", "2"]
    );
    assert_eq!(
        listed(of_type(ShardFilterType::FromTrimHorizon).build().unwrap()).await,
        ["0", "1", "2"]
    );
    let after = of_type(ShardFilterType::AfterShardId)
        .shard_id("shardId-000000000001")
        .build()
        .unwrap();
    assert_eq!(listed(after).await, ["2"]);
}

pub async fn describe_stream_comes_in_pages(client: Client) {
    create(&client, "described", 3).await;
    let first = client
        .describe_stream()
        .stream_name("described")
        .limit(2)
        .send()
        .await
        .unwrap();
    let first = first.stream_description().unwrap();
    assert_eq!((first.shards().len(), first.has_more_shards()), (2, true));
    let rest = client
        .describe_stream()
        .stream_name("described")
        .exclusive_start_shard_id(first.shards()[1].shard_id());
    let rest = rest.send().await.unwrap();
    let rest = rest.stream_description().unwrap();
    assert_eq!((rest.shards().len(), rest.has_more_shards()), (1, false));
    assert_eq!(rest.shards()[0].shard_id(), "shardId-000000000002");
}

pub async fn streams_come_in_pages(client: Client) {
    for name in ["zz-3", "zz-1", "zz-0", "zz-2"] {
        create(&client, name, 1).await;
    }
    let first = client
        .list_streams()
        .exclusive_start_stream_name("zz-0")
        .limit(2)
        .send()
        .await
        .unwrap();
    assert_eq!(
        (first.stream_names(), first.has_more_streams()),
        (&["zz-1".to_owned(), "zz-2".to_owned()][..], true)
    );
    let rest = client
        .list_streams()
        .exclusive_start_stream_name("zz-2")
        .send()
        .await
        .unwrap();
    assert_eq!(
        (rest.stream_names(), rest.has_more_streams()),
        (&["zz-3".to_owned()][..], false)
    );
}

pub async fn streams_are_found_by_arn(client: Client) {
    create(&client, "by-arn", 1).await;
    let answer = client
        .describe_stream_summary()
        .stream_name("by-arn")
        .send()
        .await
        .unwrap();
    let arn = answer
        .stream_description_summary()
        .unwrap()
        .stream_arn()
        .to_owned();
    assert!(
        arn.starts_with("arn:aws:kinesis:us-east-1:") && arn.ends_with(":stream/by-arn"),
        "{arn}"
    );
    let put = client
        .put_records()
        .stream_arn(&arn)
        .records(entry("k", b"x"))
        .send()
        .await
        .unwrap();
    assert_eq!(put.failed_record_count(), Some(0));
    assert_eq!(
        client
            .list_shards()
            .stream_arn(&arn)
            .send()
            .await
            .unwrap()
            .shards()
            .len(),
        1
    );
}

pub async fn retention_is_changed_within_bounds(client: Client) {
    let stream = "retention";
    create(&client, stream, 1).await;
    client
        .increase_stream_retention_period()
        .stream_name(stream)
        .retention_period_hours(48)
        .send()
        .await
        .unwrap();
    let hours = || async {
        let answer = client
            .describe_stream_summary()
            .stream_name(stream)
            .send()
            .await
            .unwrap();
        answer
            .stream_description_summary()
            .unwrap()
            .retention_period_hours()
    };
    assert_eq!(hours().await, 48);
    for hours in [23, 47, 8_761] {
        let refused = client
            .increase_stream_retention_period()
            .stream_name(stream)
            .retention_period_hours(hours)
            .send()
            .await;
        let refused = code(refused);
        assert!(
            refused == "InvalidArgumentException" || refused == "ValidationException",
            "{hours}: {refused}"
        );
    }
    let refused = client
        .decrease_stream_retention_period()
        .stream_name(stream)
        .retention_period_hours(49)
        .send()
        .await;
    assert_eq!(code(refused), "InvalidArgumentException");
    client
        .decrease_stream_retention_period()
        .stream_name(stream)
        .retention_period_hours(24)
        .send()
        .await
        .unwrap();
    assert_eq!(hours().await, 24);
}

pub async fn on_demand_streams_have_shards(client: Client) {
    let details = StreamModeDetails::builder()
        .stream_mode(StreamMode::OnDemand)
        .build()
        .unwrap();
    client
        .create_stream()
        .stream_name("on-demand")
        .stream_mode_details(details.clone())
        .send()
        .await
        .unwrap();
    wait_until_active(&client, "on-demand").await;
    let answer = client
        .describe_stream_summary()
        .stream_name("on-demand")
        .send()
        .await
        .unwrap();
    let summary = answer.stream_description_summary().unwrap();
    assert_eq!(summary.open_shard_count(), 4);
    assert_eq!(summary.stream_mode_details(), Some(&details));
}
