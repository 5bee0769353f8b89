//! The same cases on this server and on one that was written by others, the npm
//! package `kinesis-local` (kinesis-mock): what both answer alike is likely what AWS does.

#[path = "../common/mod.rs"]
mod common;
mod errors;
mod kinesis_mock;
mod lineage;
mod listing;
mod records;

use std::{future::Future, io::Write as _, pin::Pin, sync::Arc, time::Instant};

use aws_sdk_kinesis::Client;
use kinesis_mock::{KinesisMock, Unavailable};
use millpond_kinesis_local::{Server, ServerConfig};
use tokio::sync::Semaphore;

type Case = fn(Client) -> Pin<Box<dyn Future<Output = ()> + Send>>;

/// Boxes the cases of a module, with their names.
macro_rules! cases {
    ($($module:ident :: $case:ident),* $(,)?) => {
        vec![$((concat!(stringify!($module), "::", stringify!($case)), (|client| Box::pin($module::$case(client))) as Case)),*]
    };
}

fn cases() -> Vec<(&'static str, Case)> {
    cases![
        records::what_is_put_is_read,
        records::partition_keys_route_by_md5,
        records::explicit_hash_keys_override,
        records::every_iterator_type_starts_where_it_says,
        records::pages_follow_each_other,
        records::millis_behind_latest_is_zero_at_the_tip,
        records::sequence_numbers_order_records,
        records::streams_may_take_records_of_10_mib,
        lineage::a_stream_divides_the_hash_space,
        lineage::a_split_shard_ends_with_two_children,
        lineage::a_merged_shard_ends_with_one_child,
        lineage::shard_counts_change_uniformly,
        lineage::shard_counts_change_by_at_most_a_factor_of_two,
        listing::streams_are_created_and_deleted,
        listing::shards_come_in_pages,
        listing::shard_filters_tell_open_from_closed,
        listing::describe_stream_comes_in_pages,
        listing::streams_come_in_pages,
        listing::streams_are_found_by_arn,
        listing::retention_is_changed_within_bounds,
        listing::on_demand_streams_have_shards,
        errors::what_does_not_exist_is_not_found,
        errors::arguments_are_checked,
        errors::reshards_are_checked,
    ]
}

/// Runs all cases, each on its own streams, and names those that fail.
async fn run_all(endpoint_url: &str) {
    // Fewer at once than streams may be in the making at once.
    let turns = Arc::new(Semaphore::new(3));
    let mut running = Vec::new();
    for (name, case) in cases() {
        let (turns, case) = (Arc::clone(&turns), case(common::client(endpoint_url)));
        running.push((
            name,
            tokio::spawn(async move {
                let _turn = turns.acquire().await;
                case.await;
            }),
        ));
    }
    let mut failed = Vec::new();
    for (name, case) in running {
        if case.await.is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "failed on {endpoint_url}: {failed:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn this_server_passes() {
    let server = Server::start(ServerConfig::default()).await.unwrap();
    run_all(&server.endpoint_url()).await;
    server.shutdown().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinesis_mock_passes() {
    let started = Instant::now();
    match tokio::task::spawn_blocking(KinesisMock::start)
        .await
        .unwrap()
    {
        Ok(mock) => {
            run_all(&mock.endpoint_url()).await;
            let (count, elapsed) = (cases().len(), started.elapsed());
            announce(&format!(
                "conformance: {count} cases passed on kinesis-mock in {elapsed:.1?}"
            ));
        }
        Err(Unavailable(reason)) => announce(&format!(
            "SKIPPED: conformance against kinesis-mock: {reason}"
        )),
    }
}

/// Past the test harness, which keeps what a passing test prints to itself.
fn announce(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}
