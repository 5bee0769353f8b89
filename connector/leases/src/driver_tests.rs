use async_trait::async_trait;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::row::View;
use crate::store::Outcome;
use crate::store::memory::MemoryStore;

const ROUND_TRIP: Duration = Duration::from_millis(10);

/// What the store does with the next calls.
const WORKS: u32 = 0;
const HANGS: u32 = 1;
const FAILS: u32 = 2;
/// Changes take effect, and nobody hears of it.
const MUTE: u32 = 3;
/// Of eight changes one is made, the others are refused for the moment.
const THROTTLES: u32 = 4;

#[derive(Clone, Default)]
struct Store {
    rows: MemoryStore,
    mood: Arc<AtomicU32>,
    calls: Arc<AtomicU32>,
    changes: Arc<AtomicU32>,
    in_flight: Arc<AtomicU32>,
    most_in_flight: Arc<AtomicU32>,
}

impl Store {
    fn set(&self, mood: u32) {
        self.mood.store(mood, Ordering::SeqCst);
    }

    async fn answer(&self) -> Result<(), StoreError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let in_flight = self.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_in_flight.fetch_max(in_flight, Ordering::SeqCst);
        match self.mood.load(Ordering::SeqCst) {
            HANGS | MUTE => std::future::pending().await,
            FAILS => return Err(StoreError::Fatal("no such table".to_owned())),
            _ => tokio::time::sleep(ROUND_TRIP).await,
        }
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

#[async_trait]
impl LeaseStore for Store {
    async fn view(&self) -> Result<View, StoreError> {
        let view = self.rows.snapshot();
        self.answer().await?;
        Ok(view)
    }

    async fn change(&self, change: &Change) -> Result<Outcome, StoreError> {
        if self.mood.load(Ordering::SeqCst) == MUTE {
            self.rows.apply(change);
        }
        self.answer().await?;
        let is_throttled = self.mood.load(Ordering::SeqCst) == THROTTLES;
        let change_number = self.changes.fetch_add(1, Ordering::SeqCst);
        if is_throttled && change_number % 8 != 7 {
            return Err(StoreError::Transient("throttled".to_owned()));
        }
        Ok(self.rows.apply(change))
    }
}

fn leases(count: usize) -> BTreeSet<LeaseId> {
    (0..count)
        .map(|index| LeaseId::new(index.to_string()))
        .collect()
}

struct Worker {
    handle: LeaseHandle,
    events: LeaseEvents,
    held: BTreeMap<LeaseId, u64>,
}

impl Worker {
    fn start(store: &Store, id: &str, count: usize) -> Self {
        let store = Arc::new(store.clone());
        let settings = Settings::default();
        let (handle, events) =
            LeaseDriver::start(store, WorkerId::new(id), settings, leases(count));
        Self {
            handle,
            events,
            held: BTreeMap::new(),
        }
    }

    /// The next event, at most a minute away; the books are kept, hand-overs done at once.
    async fn next(&mut self) -> Option<LeaseEvent> {
        let event = timeout(Duration::from_secs(60), self.events.next());
        let event = event.await.expect("an event within a minute")?;
        match &event {
            LeaseEvent::Taken { lease, epoch } => {
                assert!(self.handle.holds(lease, *epoch), "{event:?}");
                let before = self.held.insert(lease.clone(), *epoch);
                assert_eq!(before, None, "{event:?}");
            }
            LeaseEvent::HandOver { lease, epoch } => {
                assert!(self.handle.holds(lease, *epoch), "{event:?}");
                self.handle.handed_over(lease, *epoch);
                assert!(!self.handle.holds(lease, *epoch), "{event:?}");
                assert_eq!(self.held.remove(lease), Some(*epoch), "{event:?}");
            }
            LeaseEvent::Lost { lease, epoch, .. } => {
                assert!(!self.handle.holds(lease, *epoch), "{event:?}");
                assert_eq!(self.held.remove(lease), Some(*epoch), "{event:?}");
            }
            LeaseEvent::StoreFailed(_) | LeaseEvent::Replaced => {}
        }
        Some(event)
    }

    async fn until_held(&mut self, count: usize) {
        while self.held.len() != count {
            self.next().await.expect("the driver runs");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_worker_begins_at_once() {
    let store = Store::default();
    let start = Instant::now();
    let mut worker = Worker::start(&store, "a", 4);
    worker.until_held(4).await;
    // Two views, two beats, four leases.
    assert!(start.elapsed() <= ROUND_TRIP * 8, "{:?}", start.elapsed());
    assert!(worker.held.values().all(|epoch| *epoch == 1));
}

#[tokio::test(start_paused = true)]
async fn a_restart_waits_for_nothing_and_raises_the_epochs() {
    let store = Store::default();
    let mut worker = Worker::start(&store, "a", 4);
    worker.until_held(4).await;
    drop(worker);
    let start = Instant::now();
    let mut worker = Worker::start(&store, "a", 4);
    worker.until_held(4).await;
    assert!(start.elapsed() <= ROUND_TRIP * 9, "{:?}", start.elapsed());
    assert!(worker.held.values().all(|epoch| *epoch == 2));
}

#[tokio::test(start_paused = true)]
async fn a_second_worker_gets_its_half_and_gives_it_back() {
    let store = Store::default();
    let mut first = Worker::start(&store, "a", 6);
    first.until_held(6).await;
    let mut second = Worker::start(&store, "b", 6);
    tokio::join!(first.until_held(3), second.until_held(3));
    assert!(second.held.values().all(|epoch| *epoch == 2));

    let left = second.handle.clone();
    let ((), ()) = tokio::join!(left.leave(), async {
        while let Some(event) = second.next().await {
            assert!(matches!(event, LeaseEvent::HandOver { .. }), "{event:?}");
        }
    });
    assert!(
        !store
            .rows
            .snapshot()
            .workers
            .contains_key(&WorkerId::new("b"))
    );
    let start = Instant::now();
    first.until_held(6).await;
    assert!(start.elapsed() < Duration::from_secs(3), "not by expiry");
}

#[tokio::test(start_paused = true)]
async fn a_killed_workers_leases_move_after_they_expire() {
    let store = Store::default();
    let mut first = Worker::start(&store, "a", 2);
    first.until_held(2).await;
    let mut second = Worker::start(&store, "b", 2);
    tokio::join!(first.until_held(1), second.until_held(1));
    let start = Instant::now();
    drop(first);
    second.until_held(2).await;
    let waited = start.elapsed();
    let lease = Settings::DEFAULT;
    assert!(waited > lease / 2 && waited < lease * 2, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn leases_end_in_time_while_a_call_hangs_and_come_back() {
    for mood in [HANGS, FAILS, MUTE] {
        let store = Store::default();
        let mut worker = Worker::start(&store, "a", 2);
        worker.until_held(2).await;
        let (lease, epoch) = worker.held.pop_first().expect("held");
        worker.held.insert(lease.clone(), epoch);
        store.set(mood);
        let start = Instant::now();
        let mut failed = 0;
        while !worker.held.is_empty() {
            match worker.next().await.expect("the driver runs") {
                LeaseEvent::StoreFailed(error) => {
                    let is_fatal = matches!(error, StoreError::Fatal(_));
                    assert_eq!(is_fatal, mood == FAILS, "{error}");
                    failed += 1;
                }
                LeaseEvent::Lost { reason, .. } => assert_eq!(reason, DropReason::Expired),
                other => panic!("{other:?}"),
            }
        }
        let waited = start.elapsed();
        assert!(waited <= Settings::default().validity(), "{waited:?}");
        assert!(!worker.handle.holds(&lease, epoch));
        assert_eq!(failed, 1, "said once");

        // A minute of it costs few calls, whatever is said to the driver.
        let before = store.calls.load(Ordering::SeqCst);
        for count in 0..60 {
            worker.handle.set_wanted(leases(2 + count % 2));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let calls = store.calls.load(Ordering::SeqCst) - before;
        assert!((15..90).contains(&calls), "{calls}");

        worker.handle.set_wanted(leases(2));
        store.set(WORKS);
        worker.until_held(2).await;
        assert!(worker.held.values().all(|epoch| *epoch > 1));
    }
}

/// A table at its limit, which the beats share with the writes of the sinks.
#[tokio::test(start_paused = true)]
async fn leases_outlast_a_table_that_throttles_most_writes() {
    let store = Store::default();
    let mut worker = Worker::start(&store, "a", 2);
    worker.until_held(2).await;
    store.set(THROTTLES);
    let before = store.calls.load(Ordering::SeqCst);
    for _ in 0..600 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(worker.handle.holds(&LeaseId::new("0"), 1));
    }
    let calls = store.calls.load(Ordering::SeqCst) - before;
    assert!(calls < 60 * 12, "{calls}");
}

#[tokio::test(start_paused = true)]
async fn what_is_there_may_change() {
    let store = Store::default();
    let mut worker = Worker::start(&store, "a", 1);
    worker.until_held(1).await;
    worker.handle.set_wanted(leases(3));
    worker.until_held(3).await;
    worker.handle.set_wanted(leases(1));
    worker.until_held(1).await;
    worker.handle.set_wanted(leases(2));
    worker.until_held(2).await;
    assert_eq!(worker.held[&LeaseId::new("1")], 2);
}

#[tokio::test(start_paused = true)]
async fn a_late_word_about_an_earlier_holding_is_not_heard() {
    let store = Store::default();
    let mut worker = Worker::start(&store, "a", 1);
    worker.until_held(1).await;
    store.set(HANGS);
    worker.until_held(0).await;
    store.set(WORKS);
    worker.until_held(1).await;
    let lease = LeaseId::new("0");
    worker.handle.handed_over(&lease, 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(worker.handle.holds(&lease, 2));
}

#[tokio::test(start_paused = true)]
async fn a_twin_replaces_the_older_one() {
    let store = Store::default();
    let mut older = Worker::start(&store, "a", 2);
    older.until_held(2).await;
    let first = store.rows.snapshot().workers[&WorkerId::new("a")];
    let mut twin = Worker::start(&store, "a", 2);
    twin.until_held(2).await;
    let second = store.rows.snapshot().workers[&WorkerId::new("a")];
    assert_ne!(first.session, second.session, "no session is repeated");
    let mut last = None;
    while let Some(event) = older.next().await {
        last = Some(event);
    }
    assert_eq!(last, Some(LeaseEvent::Replaced));
    assert!(older.held.is_empty());
    older.handle.leave().await;
    assert_eq!(twin.held.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn leaving_before_anything_was_held_ends() {
    let store = Store::default();
    let worker = Worker::start(&store, "a", 0);
    worker.handle.leave().await;
    assert!(store.rows.snapshot().workers.is_empty());
}

/// A start with many leases, counted in round trips and calls.
#[tokio::test(start_paused = true)]
async fn a_thousand_leases_are_taken_in_a_few_dozen_round_trips() {
    let store = Store::default();
    let mut worker = Worker::start(&store, "worker", 1_000);
    let begun = Instant::now();
    worker.until_held(1_000).await;
    let rounds = begun.elapsed().as_millis() / ROUND_TRIP.as_millis();
    assert!(rounds <= 80, "{rounds} round trips");
    let calls = store.calls.load(Ordering::SeqCst);
    assert!(calls <= 1_000 + 16, "{calls} calls");
    let most = store.most_in_flight.load(Ordering::SeqCst);
    assert!(most as usize <= CHANGES_AT_ONCE, "{most} at once");
}
