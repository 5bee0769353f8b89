use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use millpond_connector::topic::Offset;
use millpond_format::gap::Gap;

use super::*;
use crate::dead_letters::DeadLetter;
use crate::registration::Registration;
use crate::store::PlanWriter;

/// A store of one ledger row, of which only the holder is asked for.
#[derive(Default)]
struct Row {
    epoch: AtomicU64,
    looks: AtomicU64,
    /// How long a look takes, in seconds.
    takes: AtomicU64,
}

#[async_trait]
impl Store for Row {
    fn name(&self) -> String {
        "row".to_owned()
    }

    async fn register(&self, _: &Registration) -> Result<Option<Registration>, StoreError> {
        Ok(None)
    }

    async fn ledger(&self, _: PartitionId) -> Result<Option<LedgerRow>, StoreError> {
        self.looks.fetch_add(1, Ordering::Relaxed);
        let mut row = LedgerRow::claim(None, "a", 0, None).row;
        row.epoch = self.epoch.load(Ordering::Relaxed);
        let takes = Duration::from_secs(self.takes.load(Ordering::Relaxed));
        tokio::time::sleep(takes).await;
        Ok(Some(row))
    }

    async fn put_ledger(
        &self,
        _: PartitionId,
        _: &LedgerRow,
        _: Option<&LedgerRow>,
    ) -> Result<bool, StoreError> {
        Ok(false)
    }

    async fn gaps(&self, _: PartitionId) -> Result<Vec<(Offset, Gap)>, StoreError> {
        Ok(Vec::new())
    }

    fn writer(&self, _: PartitionId) -> Box<dyn PlanWriter> {
        unreachable!("nothing is written")
    }

    async fn put_dead_letters(&self, _: &[DeadLetter]) -> Result<(), StoreError> {
        Ok(())
    }
}

fn claimed() -> (Arc<Row>, Arc<Claim>) {
    let store = Arc::new(Row::default());
    store.epoch.store(1, Ordering::Relaxed);
    let row = LedgerRow::claim(None, "a", 0, None).row;
    let claim = Claim::new(store.clone(), 0, &row, Moment::now());
    (store, claim)
}

async fn stands(claim: &Claim) -> bool {
    claim.stands().await.expect("answers")
}

#[tokio::test(start_paused = true)]
async fn a_writer_looks_when_it_has_not_for_so_long_and_not_before() {
    wall::set_on_this_thread(SystemTime::UNIX_EPOCH);
    let (store, claim) = claimed();
    tokio::time::advance(LOOK_AGAIN).await;
    assert!(claim.is_fresh() && stands(&claim).await);
    assert_eq!(store.looks.load(Ordering::Relaxed), 0);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert!(!claim.is_fresh(), "nothing is sent by that");
    assert!(stands(&claim).await && claim.is_fresh());
    assert_eq!(store.looks.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn another_epoch_ends_it_for_good() {
    wall::set_on_this_thread(SystemTime::UNIX_EPOCH);
    let (store, claim) = claimed();
    store.epoch.store(2, Ordering::Relaxed);
    assert!(stands(&claim).await, "it does not know yet");
    tokio::time::advance(LOOK_AGAIN * 2).await;
    assert!(!stands(&claim).await && !claim.is_fresh());
    let lost = claim.lost().expect("told");
    assert!(matches!(
        lost,
        LedgerError::Fenced {
            ours: 1,
            theirs: 2,
            ..
        }
    ));
    store.epoch.store(1, Ordering::Relaxed);
    assert!(!stands(&claim).await);
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_slept_is_told_by_the_wall_clock() {
    wall::set_on_this_thread(SystemTime::UNIX_EPOCH + Duration::from_secs(100));
    let (_, claim) = claimed();
    // Set back, it tells nothing.
    wall::set_on_this_thread(SystemTime::UNIX_EPOCH);
    assert!(claim.is_fresh());
    wall::set_on_this_thread(SystemTime::UNIX_EPOCH + Duration::from_secs(200));
    assert!(!claim.is_fresh());
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_as_old_as_the_question() {
    wall::set_on_this_thread(SystemTime::UNIX_EPOCH);
    let (store, claim) = claimed();
    tokio::time::advance(LOOK_AGAIN * 2).await;
    store.takes.store(30, Ordering::Relaxed);
    assert!(stands(&claim).await);
    assert!(!claim.is_fresh(), "the answer was 30 s on its way");
}

#[test]
fn a_signature_is_taken_before_and_after_its_time() {
    let five = Duration::from_secs(300);
    let end = StaleWrites::signed(five).end();
    assert_eq!(end, LOOK_AGAIN + 2 * five);
    assert!(StaleWrites::LOCAL.end() < Duration::from_secs(60));
}
