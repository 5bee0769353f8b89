//! The topic on a real cluster; announced as skipped where `fluvio-run` is not to be had.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use millpond_connector::meta::TopicSettings;
use millpond_connector::topic::{Topic, Transform};
use millpond_embedded_topic::conformance;
use millpond_fluvio_topic::testing::LocalCluster;
use millpond_fluvio_topic::{Cluster, FluvioTopic, TopicOptions, smartmodule_name};

/// A new topic of two partitions.
async fn fresh(local: &LocalCluster, client: &Cluster, options: TopicOptions) -> FluvioTopic {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let mut settings =
        TopicSettings::named(format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed)));
    settings.partitions = Some(2);
    client.create_topic(&settings).await.expect("created");
    local.until_served(client, &settings.name, 2).await;
    client.open_topic(&settings.name, options).await.expect("opens")
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_a_topic_like_the_embedded_one() {
    let Some(local) = LocalCluster::start().await else {
        return;
    };
    let client = local.connect().await;
    conformance::all(|| async {
        Arc::new(fresh(&local, &client, TopicOptions::default()).await) as Arc<dyn Topic>
    })
    .await;
}

/// Fluvio's own consumer loses 45% of such a backlog (1 MB batches, small `max_bytes`).
#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_read_whole_with_answers_smaller_than_a_batch() {
    let Some(local) = LocalCluster::start().await else {
        return;
    };
    let client = local.connect().await;
    let options = TopicOptions {
        max_bytes: 20_000,
        ..TopicOptions::default()
    };
    let topic = fresh(&local, &client, options).await;
    let mut first = 0;
    for count in [100, 1_000, 50, 2_000, 1, 700] {
        topic
            .append(0, conformance::batch(0, first, count))
            .await
            .expect("stored");
        first += u64::from(count);
    }
    let mut reader = topic.reader(0, 0, &[]).await.expect("opens");
    conformance::read_to(&mut *reader, 0, 0, first).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_spu_that_is_killed_costs_nothing_but_time() {
    let Some(mut local) = LocalCluster::start().await else {
        return;
    };
    let client = local.connect().await;
    let topic = fresh(&local, &client, TopicOptions::default()).await;
    let mut reader = topic.reader(1, 0, &[]).await.expect("opens");
    let mut end = 0;
    for _ in 0..3 {
        let range = topic
            .append(1, conformance::batch(1, end, 10))
            .await
            .expect("stored");
        assert_eq!(range, end..end + 10);
        conformance::read_to(&mut *reader, 1, end, end + 10).await;
        end += 10;
        local.kill_spu();
        let refused = topic.append(1, conformance::batch(1, end, 10)).await;
        assert!(refused.is_err(), "stored by nobody");
        assert!(reader.next(Duration::from_millis(100)).await.expect("waits").is_none());
        local.start_spu();
        local.until_served(&client, topic.name(), 2).await;
        while topic.bounds(1).await.is_err() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_chain_names_must_be_there_and_what_it_answers_is_packed() {
    let Some(local) = LocalCluster::start().await else {
        return;
    };
    let client = local.connect().await;
    let options = TopicOptions {
        always_give: vec![millpond_pack::NAME.to_owned()],
        ..TopicOptions::default()
    };
    let topic = fresh(&local, &client, options).await;
    let pack = Transform {
        uses: millpond_pack::NAME.to_owned(),
        with: [("group-by".to_owned(), "constant:all".to_owned())].into(),
    };
    let Err(missing) = topic.reader(0, 0, std::slice::from_ref(&pack)).await else {
        panic!("a module that is not there was found");
    };
    assert!(missing.to_string().contains("millpond deploy"), "{missing}");

    let name = smartmodule_name(millpond_pack::NAME);
    for _ in 0..2 {
        client
            .upload_smartmodule(&name, millpond_pack::WASM)
            .await
            .expect("stored");
        let stored = client.smartmodule(&name).await.expect("listed").expect("there");
        assert_eq!(stored.digest, millpond_fluvio_topic::digest(millpond_pack::WASM));
    }
    for n in 0..5 {
        topic
            .append(0, conformance::batch(0, n * 100, 100))
            .await
            .expect("stored");
    }
    let mut reader = topic.reader(0, 0, &[pack]).await.expect("opens");
    let mut covered = 0;
    while covered < 500 {
        let chunk = reader.next(Duration::from_secs(20)).await.expect("reads").expect("in time");
        assert_eq!(chunk.offsets.start, covered);
        assert!(!chunk.records.is_empty());
        for record in &chunk.records {
            let (header, _) = millpond_format::header::Header::decode(&record.value).expect("an envelope");
            assert!(chunk.offsets.contains(&header.base_offset));
        }
        covered = chunk.offsets.end;
    }
    assert_eq!(covered, 500);
}
