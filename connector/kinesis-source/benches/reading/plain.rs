//! The floor: loops over the SDK that throw away what they read, and one that first takes aggregated records apart
//! by the least means.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::{
    ConsumerStatus, Record, ShardIteratorType, StartingPosition, SubscribeToShardEventStream,
};
use bytes::Bytes;
use md5::{Digest as _, Md5};
use millpond_kinesis_source::aggregate::MAGIC;
use prost::Message as _;

use crate::SHARDS;

#[derive(Clone, PartialEq, prost::Message)]
struct Aggregated {
    #[prost(string, repeated, tag = "1")]
    partition_keys: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    explicit_hash_keys: Vec<String>,
    #[prost(message, repeated, tag = "3")]
    events: Vec<Event>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Event {
    #[prost(uint64, tag = "1")]
    partition_key_index: u64,
    #[prost(uint64, optional, tag = "2")]
    explicit_hash_key_index: Option<u64>,
    #[prost(bytes = "bytes", tag = "3")]
    data: Bytes,
}

/// Magic, MD5, protobuf, and a look at each event.
fn take_apart(data: Vec<u8>) {
    let data = Bytes::from(data);
    assert!(data.starts_with(&MAGIC), "an aggregated record");
    let message = data.slice(MAGIC.len()..data.len() - 16);
    assert_eq!(
        Md5::digest(&message)[..],
        data[data.len() - 16..],
        "a whole one"
    );
    let message = Aggregated::decode(message).expect("a message");
    for event in &message.events {
        let key = &message.partition_keys[event.partition_key_index as usize];
        std::hint::black_box((key, &event.data));
    }
}

fn see(records: Vec<Record>, takes_apart: bool) {
    if takes_apart {
        for record in records {
            take_apart(record.data.into_inner());
        }
    } else {
        std::hint::black_box(&records);
    }
}

/// The name of a shard.
pub fn shard(number: usize) -> String {
    format!("shardId-{number:012}")
}

/// Reads every shard to its newest record.
pub async fn polling(client: &Client, limit: u32, takes_apart: bool) {
    let mut shards = tokio::task::JoinSet::new();
    for number in 0..SHARDS {
        let client = client.clone();
        shards.spawn(async move {
            let call = client.get_shard_iterator().stream_name("events");
            let call = call.shard_id(shard(number));
            let call = call.shard_iterator_type(ShardIteratorType::TrimHorizon);
            let mut iterator = call.send().await.expect("an iterator").shard_iterator;
            loop {
                let call = client.get_records().set_shard_iterator(iterator);
                let answer = call.limit(limit as i32).send().await.expect("records");
                see(answer.records, takes_apart);
                if answer.millis_behind_latest == Some(0) {
                    return;
                }
                iterator = answer.next_shard_iterator;
            }
        });
    }
    while let Some(done) = shards.join_next().await {
        done.expect("read");
    }
}

/// The same by a consumer of its own, which it removes.
pub async fn fan_out(client: &Client, takes_apart: bool) {
    let summary = client.describe_stream_summary().stream_name("events");
    let summary = summary.send().await.expect("described");
    let arn = summary
        .stream_description_summary
        .expect("summary")
        .stream_arn;
    let register = client.register_stream_consumer().stream_arn(&arn);
    let made = register
        .consumer_name("plain")
        .send()
        .await
        .expect("registered");
    let consumer = made.consumer.expect("a consumer").consumer_arn;
    loop {
        let call = client.describe_stream_consumer().consumer_arn(&consumer);
        let found = call.send().await.expect("described").consumer_description;
        if found.expect("a consumer").consumer_status == ConsumerStatus::Active {
            break;
        }
    }
    let mut shards = tokio::task::JoinSet::new();
    for number in 0..SHARDS {
        let (client, consumer) = (client.clone(), consumer.clone());
        shards.spawn(async move {
            let position = StartingPosition::builder().r#type(ShardIteratorType::TrimHorizon);
            let call = client.subscribe_to_shard().consumer_arn(consumer);
            let call = call.shard_id(shard(number));
            let call = call.starting_position(position.build().expect("a position"));
            let mut events = call.send().await.expect("subscribed").event_stream;
            loop {
                match events.recv().await.expect("an event") {
                    Some(SubscribeToShardEventStream::SubscribeToShardEvent(event)) => {
                        see(event.records, takes_apart);
                        if event.millis_behind_latest == 0 {
                            return;
                        }
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
    }
    while let Some(done) = shards.join_next().await {
        done.expect("read");
    }
    let remove = client.deregister_stream_consumer().consumer_arn(&consumer);
    remove.send().await.expect("removed");
}
