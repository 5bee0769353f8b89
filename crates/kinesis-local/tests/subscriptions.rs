//! Consumers and subscriptions of the model, case by case and at random.

use millpond_kinesis_local::model::{
    ConsumerName, ConsumerStatus, CreateStream, ErrorKind, Event, HalfOpen, IDLE_EVENT_MS,
    IteratorStart, Kinesis, MAX_CONSUMERS, ModelConfig, NewRecord, Push, PushedEvent, ReadLimits,
    SUBSCRIPTION_LIFE_MS, SUBSCRIPTION_SPACING_MS, ShardId, Subscription,
};
use proptest::prelude::*;

const NOW_MS: u64 = 1_700_000_000_000;
const MIB: usize = 1024 * 1024;
const FIRST: ShardId = ShardId::new(0);

fn kinesis(config: ModelConfig) -> Kinesis {
    let mut kinesis = Kinesis::new(config, 7);
    let mut create = CreateStream::provisioned(1);
    create.max_record_kib = Some(10_240);
    kinesis.create_stream(NOW_MS, "s", create).unwrap();
    kinesis
}

fn registered(kinesis: &mut Kinesis) -> String {
    kinesis.register_consumer(NOW_MS, "s", "c").unwrap().arn
}

fn put(kinesis: &mut Kinesis, now_ms: u64, data: impl Into<Vec<u8>>) {
    let record = NewRecord::new("k", None, data.into()).unwrap();
    kinesis.put_record(now_ms, "s", record, None).unwrap();
}

fn event(kinesis: &mut Kinesis, now_ms: u64, of: &mut Subscription) -> PushedEvent<Event> {
    match kinesis.push(now_ms, of) {
        Push::Event(event) => event,
        other => panic!("no event: {other:?}"),
    }
}

fn texts(event: &PushedEvent<Event>) -> Vec<String> {
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    let records = event.records.iter();
    records.map(|record| text(&record.payload.data)).collect()
}

#[test]
fn a_consumer_lives() {
    let mut kinesis = kinesis(ModelConfig {
        transition_ms: 1_000,
        ..ModelConfig::default()
    });
    let now = NOW_MS + 1_000;
    let made = kinesis.register_consumer(now, "s", "c").unwrap();
    assert_eq!(made.status, ConsumerStatus::Creating);
    assert_eq!(
        made.arn,
        format!("{}/consumer/c:{}", kinesis.arn("s"), now / 1_000)
    );
    let by_name = ConsumerName::InStream {
        stream_name: "s",
        name: "c",
    };
    let early = kinesis.subscribe(now, &made.arn, FIRST, IteratorStart::Latest);
    assert_eq!(early.unwrap_err().kind, ErrorKind::ResourceInUse);
    let again = kinesis.register_consumer(now, "s", "c").unwrap_err();
    assert_eq!(again.kind, ErrorKind::ResourceInUse);
    let described = kinesis.describe_consumer(now + 1_000, by_name).unwrap();
    assert_eq!(described.status, ConsumerStatus::Active);
    let mut subscription = kinesis
        .subscribe(now + 1_000, &made.arn, FIRST, IteratorStart::Latest)
        .unwrap();
    let by_arn = ConsumerName::Arn(&made.arn);
    kinesis.deregister_consumer(now + 1_000, by_arn).unwrap();
    let deleting = kinesis.describe_consumer(now + 1_000, by_arn).unwrap();
    assert_eq!(deleting.status, ConsumerStatus::Deleting);
    let Push::Refused(error) = kinesis.push(now + 1_000, &mut subscription) else {
        panic!("its consumer is going");
    };
    assert_eq!(error.kind, ErrorKind::ResourceNotFound);
    assert_eq!(kinesis.push(now + 1_000, &mut subscription), Push::Closed);
    let gone = kinesis.describe_consumer(now + 2_000, by_name).unwrap_err();
    assert_eq!(gone.kind, ErrorKind::ResourceNotFound);
    let elsewhere = made.arn.replace("us-east-1", "eu-west-1");
    let foreign = kinesis.describe_consumer(now, ConsumerName::Arn(&elsewhere));
    assert_eq!(foreign.unwrap_err().kind, ErrorKind::ResourceNotFound);
}

#[test]
fn consumers_have_a_limit_and_pages() {
    let mut kinesis = kinesis(ModelConfig::default());
    let names: Vec<String> = (0..MAX_CONSUMERS).map(|n| format!("c{n:02}")).collect();
    for name in &names {
        kinesis.register_consumer(NOW_MS, "s", name).unwrap();
    }
    let full = kinesis.register_consumer(NOW_MS, "s", "more").unwrap_err();
    assert_eq!(full.kind, ErrorKind::LimitExceeded);
    let bad = kinesis.register_consumer(NOW_MS, "s", "a b").unwrap_err();
    assert_eq!(bad.kind, ErrorKind::Validation);
    let (mut found, mut token) = (Vec::new(), None);
    loop {
        let page = kinesis
            .list_consumers(NOW_MS, "s", token.as_deref(), Some(7))
            .unwrap();
        assert!(page.consumers.len() <= 7);
        found.extend(page.consumers.into_iter().map(|consumer| consumer.name));
        token = page.next_token;
        if token.is_none() {
            break;
        }
    }
    assert_eq!(found, names);
    let bad = kinesis.list_consumers(NOW_MS, "s", Some("x"), None);
    assert_eq!(bad.unwrap_err().kind, ErrorKind::InvalidArgument);
}

#[test]
fn six_consumers_are_not_made_at_once() {
    let mut kinesis = kinesis(ModelConfig {
        transition_ms: 1_000,
        ..ModelConfig::default()
    });
    for n in 0..5 {
        kinesis
            .register_consumer(NOW_MS + 1_000, "s", &n.to_string())
            .unwrap();
    }
    let sixth = kinesis.register_consumer(NOW_MS + 1_000, "s", "5");
    assert_eq!(sixth.unwrap_err().kind, ErrorKind::LimitExceeded);
    kinesis.register_consumer(NOW_MS + 2_000, "s", "5").unwrap();
}

#[test]
fn records_are_pushed_and_silence_is_said() {
    let mut kinesis = kinesis(ModelConfig::default());
    let arn = registered(&mut kinesis);
    put(&mut kinesis, NOW_MS, "a");
    let start = IteratorStart::TrimHorizon;
    let mut subscription = kinesis.subscribe(NOW_MS, &arn, FIRST, start).unwrap();
    let first = event(&mut kinesis, NOW_MS + 1, &mut subscription);
    assert_eq!(texts(&first), ["a"]);
    assert_eq!(first.millis_behind_latest, 0);
    assert_eq!(
        first.continuation,
        Some(first.records[0].sequence_number.to_string())
    );
    assert_eq!(kinesis.push(NOW_MS + 2, &mut subscription), Push::Nothing);
    let idle = event(&mut kinesis, NOW_MS + 1 + IDLE_EVENT_MS, &mut subscription);
    assert_eq!(texts(&idle), [""; 0]);
    assert_eq!(idle.continuation, first.continuation);
    put(&mut kinesis, NOW_MS + IDLE_EVENT_MS + 2, "b");
    let next = event(&mut kinesis, NOW_MS + IDLE_EVENT_MS + 2, &mut subscription);
    assert_eq!(texts(&next), ["b"]);

    let end = NOW_MS + SUBSCRIPTION_LIFE_MS;
    put(&mut kinesis, end, "c");
    assert_eq!(kinesis.push(end, &mut subscription), Push::Closed);
    let after = next.continuation.unwrap();
    let start = IteratorStart::AfterSequenceNumber(&after);
    let mut renewed = kinesis.subscribe(end, &arn, FIRST, start).unwrap();
    assert_eq!(texts(&event(&mut kinesis, end, &mut renewed)), ["c"]);
}

#[test]
fn a_position_before_any_record_can_be_gone_on_from() {
    let mut kinesis = kinesis(ModelConfig::default());
    let arn = registered(&mut kinesis);
    let mut subscription = kinesis
        .subscribe(NOW_MS, &arn, FIRST, IteratorStart::Latest)
        .unwrap();
    let empty = event(&mut kinesis, NOW_MS, &mut subscription);
    put(&mut kinesis, NOW_MS + 1, "a");
    let after = empty.continuation.unwrap();
    let later = NOW_MS + SUBSCRIPTION_SPACING_MS;
    let start = IteratorStart::AfterSequenceNumber(&after);
    let mut renewed = kinesis.subscribe(later, &arn, FIRST, start).unwrap();
    assert_eq!(texts(&event(&mut kinesis, later, &mut renewed)), ["a"]);
}

#[test]
fn a_new_subscription_takes_over_and_not_too_soon() {
    let mut kinesis = kinesis(ModelConfig::default());
    let arn = registered(&mut kinesis);
    let start = IteratorStart::TrimHorizon;
    let mut old = kinesis.subscribe(NOW_MS, &arn, FIRST, start).unwrap();
    let soon = NOW_MS + SUBSCRIPTION_SPACING_MS - 1;
    let refused = kinesis.subscribe(soon, &arn, FIRST, start).unwrap_err();
    assert_eq!(refused.kind, ErrorKind::ResourceInUse);
    let mut new = kinesis.subscribe(soon + 1, &arn, FIRST, start).unwrap();
    put(&mut kinesis, soon + 1, "a");
    let Push::Refused(error) = kinesis.push(soon + 1, &mut old) else {
        panic!("the old one is over");
    };
    assert_eq!(error.kind, ErrorKind::ResourceInUse);
    assert_eq!(texts(&event(&mut kinesis, soon + 1, &mut new)), ["a"]);
}

#[test]
fn a_closed_shard_ends_with_its_children() {
    let mut kinesis = kinesis(ModelConfig::default());
    let arn = registered(&mut kinesis);
    put(&mut kinesis, NOW_MS, "a");
    let start = IteratorStart::TrimHorizon;
    let mut subscription = kinesis.subscribe(NOW_MS, &arn, FIRST, start).unwrap();
    let half = (1u128 << 127).to_string();
    kinesis.split_shard(NOW_MS + 1, "s", FIRST, &half).unwrap();
    let last = event(&mut kinesis, NOW_MS + 1, &mut subscription);
    assert_eq!(texts(&last), ["a"]);
    assert_eq!(last.continuation, None);
    let children: Vec<u32> = last
        .child_shards
        .iter()
        .map(|child| child.shard_id.index())
        .collect();
    assert_eq!(children, [1, 2]);
    assert_eq!(kinesis.push(NOW_MS + 2, &mut subscription), Push::Closed);
    // Who comes back is told again.
    let sequence = last.records[0].sequence_number.to_string();
    let later = NOW_MS + SUBSCRIPTION_SPACING_MS;
    let start = IteratorStart::AfterSequenceNumber(&sequence);
    let mut again = kinesis.subscribe(later, &arn, FIRST, start).unwrap();
    let end = event(&mut kinesis, later, &mut again);
    assert_eq!((end.continuation, end.child_shards.len()), (None, 2));
}

#[test]
fn half_open_ones_stay_silent() {
    let mut kinesis = kinesis(ModelConfig::default());
    let arn = registered(&mut kinesis);
    put(&mut kinesis, NOW_MS, "a");
    let start = IteratorStart::TrimHorizon;
    let mut old = kinesis.subscribe(NOW_MS, &arn, FIRST, start).unwrap();
    kinesis.half_open(HalfOpen::Existing);
    let long = NOW_MS + 2 * SUBSCRIPTION_LIFE_MS;
    assert_eq!(kinesis.push(long, &mut old), Push::Nothing);
    let mut new = kinesis.subscribe(long, &arn, FIRST, start).unwrap();
    assert_eq!(texts(&event(&mut kinesis, long, &mut new)), ["a"]);
    kinesis.half_open(HalfOpen::All);
    let later = long + SUBSCRIPTION_SPACING_MS;
    let mut third = kinesis.subscribe(later, &arn, FIRST, start).unwrap();
    assert_eq!(kinesis.push(later, &mut third), Push::Nothing);
    kinesis.half_open(HalfOpen::Existing);
    let later = later + SUBSCRIPTION_SPACING_MS;
    let mut fourth = kinesis.subscribe(later, &arn, FIRST, start).unwrap();
    assert_eq!(kinesis.push(later, &mut third), Push::Nothing);
    assert_eq!(texts(&event(&mut kinesis, later, &mut fourth)), ["a"]);
}

#[test]
fn large_records_come_one_at_a_time_and_at_their_rate() {
    let mut kinesis = kinesis(ModelConfig {
        read_limits: Some(ReadLimits::default()),
        ..ModelConfig::default()
    });
    let arn = registered(&mut kinesis);
    for _ in 0..3 {
        put(&mut kinesis, NOW_MS, vec![7; 2 * MIB - 1]);
    }
    let start = IteratorStart::TrimHorizon;
    let mut subscription = kinesis.subscribe(NOW_MS, &arn, FIRST, start).unwrap();
    for second in 0..3 {
        let at = NOW_MS + second * 1_000;
        assert_eq!(event(&mut kinesis, at, &mut subscription).records.len(), 1);
        assert_eq!(kinesis.push(at + 999, &mut subscription), Push::Nothing);
    }
}

proptest! {
    /// Whoever goes on after the last continuation sees each record once, in order, to the end of the shard.
    #[test]
    fn every_record_once_through_breaks_and_a_split(
        steps in prop::collection::vec((0u64..20_000, 0u8..4, 0usize..5), 1..80),
    ) {
        let mut kinesis = kinesis(ModelConfig::default());
        let arn = registered(&mut kinesis);
        let (mut now, mut put_count, mut after) = (NOW_MS, 0, None::<String>);
        let mut subscription: Option<Subscription> = None;
        let mut seen = Vec::new();
        let mut ended = false;
        let mut closed = false;
        let all = steps.iter().copied().chain([(6_000, 3, 0), (6_000, 0, 0), (6_000, 0, 0), (6_000, 0, 0)]);
        for (wait, what, count) in all {
            now += wait;
            match what {
                1 if !closed => for _ in 0..count {
                    put(&mut kinesis, now, put_count.to_string());
                    put_count += 1;
                },
                // The connection breaks.
                2 => subscription = None,
                3 if !closed && count == 0 => {
                    let half = (1u128 << 127).to_string();
                    kinesis.split_shard(now, "s", FIRST, &half).unwrap();
                    closed = true;
                }
                _ => {}
            }
            if subscription.is_none() && !ended {
                let start = after.as_deref().map_or(IteratorStart::TrimHorizon, IteratorStart::AfterSequenceNumber);
                subscription = kinesis.subscribe(now, &arn, FIRST, start).ok();
            }
            let Some(open) = &mut subscription else { continue };
            loop {
                match kinesis.push(now, open) {
                    Push::Event(event) => {
                        seen.extend(texts(&event));
                        ended = event.continuation.is_none();
                        after = event.continuation.or(after);
                        prop_assert_eq!(ended, !event.child_shards.is_empty());
                    }
                    Push::Nothing => break,
                    Push::Refused(error) => prop_assert!(false, "{}", error),
                    Push::Closed => {
                        subscription = None;
                        break;
                    }
                }
            }
        }
        let wanted: Vec<String> = (0..put_count).map(|n| n.to_string()).collect();
        prop_assert_eq!(seen, wanted);
        prop_assert!(ended);
    }
}
