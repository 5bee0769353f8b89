//! The real SDK against a table whose capacity is enforced: `dynoxide-rs` behind a proxy that throttles.

use std::sync::Arc;
use std::time::Duration;

use millpond_connector::metrics::Metrics;
use millpond_dynamodb_sink::budget::Budget;
use millpond_dynamodb_sink::client::Capacity;
use millpond_dynamodb_sink::pacing::PaceSettings;
use millpond_dynamodb_sink::plan::PlannedItem;
use millpond_dynamodb_sink::row::KeyNames;
use millpond_dynamodb_sink::table::prepare;
use millpond_dynamodb_sink::writer::TableWriter;
use millpond_fault_proxy::capacity::Seen;
use millpond_fault_proxy::capacity::model::{Limits, Mode, Model};
use millpond_fault_proxy::{Capacity as Enforced, Plan, Proxy, Service};
use tokio::time::Instant;

use crate::rules::sized;
use crate::wire::{Server, client, table};

/// A stand-in whose table `events` has limits.
struct Throttling {
    server: Server,
    proxy: Proxy,
    enforced: Arc<Enforced>,
    metrics: Arc<Metrics>,
    writer: TableWriter,
}

impl Throttling {
    async fn start(limits: Limits, settings: PaceSettings) -> Self {
        let server = Server::start().await;
        let target = server.url.trim_start_matches("http://");
        let proxy = Proxy::start(target, Service::DynamoDb, Plan::none()).await;
        let proxy = proxy.expect("a proxy");
        let api = table(&client(&proxy.url()).await, "events");
        let metrics = Arc::new(Metrics::default());
        let budget = Arc::new(Budget::new(settings, metrics.clone()));
        let keys = KeyNames::default();
        let unpaced = TableWriter::new(api.clone(), keys.clone(), None, Arc::default());
        prepare(&unpaced, Some(Capacity::OnDemand))
            .await
            .expect("a table");
        let enforced = Arc::new(Enforced::new("events", "pk", Model::new(limits)));
        proxy.set_capacity(enforced.clone());
        let writer = TableWriter::new(api, keys, Some(budget), metrics.clone()).watching();
        // As when a store is opened: its budget is known before it writes.
        writer.describe().await.expect("described");
        Self {
            server,
            proxy,
            enforced,
            metrics,
            writer,
        }
    }

    /// Writes `count` items of `units` each, to keys of their own or to one; how long it took.
    async fn write(&self, count: usize, units: usize, key: Option<&str>) -> Duration {
        let item = |index: usize| {
            let own = format!("key {index}");
            let pk = key.unwrap_or(&own);
            let row = sized(pk, &format!("{index:04}"), units * 1_024);
            let size = row.size(&KeyNames::default());
            PlannedItem {
                row: Arc::new(row),
                bytes: size.bytes(),
                units: size.write_units(),
                events: 1,
                event_bytes: 1,
            }
        };
        let items: Vec<PlannedItem> = (0..count).map(item).collect();
        let begun = Instant::now();
        assert_eq!(self.writer.write_items(&items).await, Ok(Vec::new()));
        let written = self.metrics.write_units_items.get();
        assert_eq!(written, (count * units) as u64, "each item once");
        assert_eq!(
            self.metrics.write_units_reported_milli.get(),
            written * 1_000
        );
        begun.elapsed()
    }

    fn seen(&self) -> Seen {
        self.enforced.seen()
    }

    async fn stop(self) {
        drop((self.writer, self.proxy));
        self.server.stop().await;
    }
}

#[tokio::test]
async fn a_budget_from_the_table_keeps_below_its_capacity() {
    let limits = Limits::of(Mode::Provisioned(300));
    let at = Throttling::start(limits, PaceSettings::default()).await;
    let took = at.write(150, 6, None).await;
    let seen = at.seen();
    assert_eq!((seen.throttled, seen.units), (0, 900.0), "{seen:?}");
    assert_eq!(at.metrics.write_budget_milli.get(), 294_000);
    // All but the last request is waited for.
    assert!(took > Duration::from_secs_f64(860.0 / 294.0), "{took:?}");
    at.stop().await;
}

#[tokio::test]
async fn a_budget_above_the_capacity_is_lowered_by_what_the_table_refuses() {
    let limits = Limits::of(Mode::Provisioned(200));
    let at = Throttling::start(limits, PaceSettings::fixed(2_000)).await;
    at.write(300, 2, None).await;
    let throttles = &at.metrics;
    let refused = throttles.throttles_table.get() + throttles.throttles_unprocessed.get();
    assert!(
        refused > 0 && at.seen().throttled == refused,
        "{throttles:?}"
    );
    let budget = at.metrics.write_budget_milli.get();
    assert!(budget < 1_000_000, "{budget}");
    at.stop().await;
}

#[tokio::test]
async fn an_account_limit_and_a_hot_key_are_told_apart() {
    let on_demand = Limits::of(Mode::OnDemand { max: None });
    let of_account = Limits {
        account_units: 50.0,
        ..on_demand
    };
    let at = Throttling::start(of_account, PaceSettings::default()).await;
    at.write(40, 2, None).await;
    let throttles = &at.metrics;
    assert!(
        throttles.throttles_account.get() + throttles.throttles_unprocessed.get() > 0,
        "{throttles:?}"
    );
    at.stop().await;

    // The sink believes that keys may take much more than they do here.
    let of_keys = |units: f64| Limits {
        key_units: Some(units),
        ..on_demand
    };
    let at = Throttling::start(of_keys(5.0), PaceSettings::default()).await;
    at.write(3, 5, Some("hot")).await;
    let throttles = &at.metrics;
    assert!(
        throttles.throttles_key_range.get() > 0 && throttles.throttles_table.get() == 0,
        "{throttles:?}"
    );
    at.stop().await;
    // It knows what they may.
    let settings = PaceSettings {
        key_units: Some(20),
        ..PaceSettings::default()
    };
    let at = Throttling::start(of_keys(20.0), settings).await;
    let took = at.write(27, 10, Some("hot")).await;
    assert_eq!(at.seen().throttled, 0);
    assert!(took > Duration::from_secs(12), "{took:?}");
    at.stop().await;
}
