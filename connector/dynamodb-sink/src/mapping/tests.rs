use std::collections::BTreeMap;

use bytes::Bytes;

use super::settings::{AttributeSettings, Mistake};
use super::*;
use crate::row::KeyNames;

fn field(kind: Kind, from: Option<&str>) -> AttributeSettings {
    AttributeSettings {
        kind: Some(kind),
        from: from.map(str::to_owned),
        ..AttributeSettings::default()
    }
}

fn settings() -> PlainSettings {
    PlainSettings {
        partition_key: Some("order#{/order/id}".into()),
        sort_key: Some("{partition-key}".into()),
        event_time: Some("/at".into()),
        same_key: Some(SameKey::LastWins),
        order_attribute: None,
        attributes: BTreeMap::from([
            ("total".into(), field(Kind::Number, Some("/order/total"))),
            (
                "note".into(),
                AttributeSettings {
                    required: Some(false),
                    ..AttributeSettings::default()
                },
            ),
            ("whole".into(), field(Kind::Event, None)),
            (
                "label".into(),
                AttributeSettings {
                    template: Some("{/order/id}@{time}".into()),
                    ..AttributeSettings::default()
                },
            ),
        ]),
    }
}

fn mapping(settings: &PlainSettings) -> Result<Mapping, Vec<Mistake>> {
    settings.build(&KeyNames::default(), &["expires"])
}

fn item(settings: &PlainSettings, event: &str) -> Result<MappedItem, Refusal> {
    mapping(settings).expect("a good mapping").item(Incoming {
        value: &Bytes::copy_from_slice(event.as_bytes()),
        partition_key: "k",
        arrival_ms: 1_763_886_000_123,
        partition: 3,
        offset: 42,
    })
}

#[test]
fn an_event_becomes_a_typed_item() {
    let event = r#"{"order":{"id":7.0,"total":12.50},"at":"2025-11-23T08:20:00Z","note":null}"#;
    let found = item(&settings(), event).expect("an item");
    assert_eq!(
        (found.row.key.pk.as_str(), found.row.key.sk.as_str()),
        ("order#7", "k")
    );
    let order = "2025-11-23T08:20:00.000Z/00003-0000000000000000042";
    assert_eq!(found.order.as_deref(), Some(order));
    let typed = |name: &str| match found.row.attributes.get(name) {
        Some(Value::Typed(typed)) => Some(typed.clone()),
        _ => None,
    };
    let total = Decimal::parse("12.5").expect("a number");
    assert_eq!(typed("total"), Some(Typed::N(total)));
    assert_eq!(typed("note"), None);
    assert_eq!(
        typed("whole"),
        Some(Typed::B(Bytes::copy_from_slice(event.as_bytes())))
    );
    assert_eq!(
        typed("label"),
        Some(Typed::S("7@2025-11-23T08:20:00.000Z".into()))
    );
    assert_eq!(found.row.string("millpond"), Some(order));
    assert_eq!(found.row.attributes.len(), 4);
}

#[test]
fn a_bad_event_is_refused_with_its_reason() {
    let long = format!(
        r#"{{"order":{{"id":"{}","total":1}},"at":0}}"#,
        "x".repeat(2_048)
    );
    for (event, reason, said) in [
        ("{", "not-json", "EOF"),
        (
            r#"{"order":{"id":1,"total":1}}"#,
            "event-time-missing",
            "`/at`",
        ),
        (
            r#"{"order":{"id":1,"total":1},"at":-1}"#,
            "event-time-invalid",
            "`/at`",
        ),
        (
            r#"{"order":{"id":1,"total":1},"at":"now"}"#,
            "event-time-invalid",
            "RFC 3339",
        ),
        (
            r#"{"order":{"total":1},"at":0}"#,
            "key-missing",
            "partition key",
        ),
        (
            r#"{"order":{"id":"","total":1},"at":0}"#,
            "key-empty",
            "partition key",
        ),
        (
            r#"{"order":{"id":[],"total":1},"at":0}"#,
            "key-invalid",
            "an array",
        ),
        (&long, "key-too-long", "2054 bytes"),
        (
            r#"{"order":{"id":1},"at":0}"#,
            "field-missing",
            "`/order/total`",
        ),
        (
            r#"{"order":{"id":1,"total":null},"at":0}"#,
            "field-missing",
            "`/order/total`",
        ),
        (
            r#"{"order":{"id":1,"total":"x"},"at":0}"#,
            "field-invalid",
            "is no number",
        ),
    ] {
        let refusal = item(&settings(), event).expect_err(event);
        assert_eq!(refusal.reason, reason, "{event}: {}", refusal.detail);
        assert!(refusal.detail.contains(said), "{event}: {}", refusal.detail);
    }
    let own = PlainSettings {
        partition_key: Some("{/order/id}".into()),
        ..settings()
    };
    let event = r#"{"order":{"id":"millpond:pipelines","total":1},"at":0}"#;
    assert_eq!(item(&own, event).expect_err("ours").reason, "key-invalid");
}

#[test]
fn without_fields_an_event_need_not_be_json() {
    let settings = PlainSettings {
        partition_key: Some("{partition-key}".into()),
        sort_key: Some("{time}#{position}".into()),
        attributes: BTreeMap::from([("event".into(), field(Kind::Event, None))]),
        ..PlainSettings::default()
    };
    let found = item(&settings, "\u{0}no json").expect("an item");
    assert_eq!(
        found.row.key.sk,
        "2025-11-23T08:20:00.123Z#00003-0000000000000000042"
    );
    assert_eq!(found.order, None);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let settings = PlainSettings {
        partition_key: Some("{id}".into()),
        sort_key: None,
        event_time: Some("at".into()),
        same_key: Some(SameKey::FirstWins),
        order_attribute: Some("sk".into()),
        attributes: BTreeMap::from([
            ("pk".into(), AttributeSettings::default()),
            ("expires".into(), AttributeSettings::default()),
            (
                "both".into(),
                AttributeSettings {
                    template: Some("{".into()),
                    ..field(Kind::Number, Some("/x"))
                },
            ),
            ("whole".into(), field(Kind::Event, Some("/x"))),
            ("bad".into(), field(Kind::Any, Some("x"))),
            (String::new(), AttributeSettings::default()),
        ]),
    };
    let mistakes = mapping(&settings).expect_err("mistakes");
    let paths: Vec<&str> = mistakes
        .iter()
        .map(|mistake| mistake.path.as_str())
        .collect();
    assert_eq!(
        paths,
        [
            "partition-key",
            "sort-key",
            "event-time",
            "order-attribute",
            "attributes.",
            "attributes.bad.from",
            "attributes.both.type",
            "attributes.both.from",
            "attributes.both.template",
            "attributes.expires",
            "attributes.pk",
            "attributes.whole.from",
        ]
    );
}

#[test]
fn keys_that_may_be_equal_need_a_winner() {
    let mistakes = |change: fn(&mut PlainSettings)| {
        let mut settings = settings();
        change(&mut settings);
        let found = mapping(&settings).err().unwrap_or_default();
        found
            .into_iter()
            .map(|mistake| mistake.path)
            .collect::<Vec<_>>()
    };
    assert_eq!(mistakes(|_| {}), Vec::<String>::new());
    assert_eq!(mistakes(|s| s.same_key = None), ["same-key"]);
    assert_eq!(
        mistakes(|s| s.sort_key = Some("{position}".into())),
        ["same-key"]
    );
    let unique = |s: &mut PlainSettings| {
        s.sort_key = Some("a{position}".into());
        s.same_key = None;
    };
    assert_eq!(mistakes(unique), Vec::<String>::new());
    let unused = |s: &mut PlainSettings| {
        s.sort_key = Some("a{position}".into());
        s.same_key = None;
        s.order_attribute = Some("o".into());
    };
    assert_eq!(mistakes(unused), ["order-attribute"]);
    assert_eq!(mistakes(|s| s.attributes.clear()), ["attributes"]);
}
