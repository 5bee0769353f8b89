use super::*;
use crate::cluster::pipeline::WantedModule;
use millpond_connector::meta::TopicSettings;
use millpond_connector::registry::Direction;

fn wanted() -> ClusterPipeline {
    let connector = |name: &str, direction| WantedConnector {
        name: name.to_owned(),
        type_name: "t".to_owned(),
        direction,
        topic: "events".to_owned(),
        text: format!("meta: {name}\n"),
    };
    ClusterPipeline {
        topics: vec![WantedTopic {
            settings: TopicSettings {
                partitions: Some(4),
                ..TopicSettings::named("events".to_owned())
            },
            compression: None,
        }],
        modules: vec![WantedModule {
            uses: "millpond/pack@0.1.0".to_owned(),
            name: "pack".to_owned(),
            wasm: b"wasm",
            used_by: vec!["sink".to_owned()],
        }],
        connectors: vec![
            connector("source", Direction::Source),
            connector("sink", Direction::Sink),
        ],
    }
}

/// What a cluster looks like after these steps.
fn after(mut actual: Actual, steps: &[Step], wanted: &ClusterPipeline) -> Actual {
    for step in steps {
        match step {
            Step::CreateTopic(name) => {
                let topic = wanted
                    .topics
                    .iter()
                    .find(|topic| topic.settings.name == *name);
                let settings = &topic.expect("a topic of the file").settings;
                let facts = TopicFacts {
                    partitions: settings.partitions.expect("always said"),
                    replication: settings.replication,
                    retention: settings.retention_time,
                    segment_bytes: settings.segment_bytes,
                    compression: settings.compression,
                };
                actual.topics.insert(name.clone(), facts);
            }
            Step::UploadModule { name, .. } => {
                actual.modules.insert(name.clone(), true);
            }
            Step::WriteDocument(name) => {
                let connector = wanted.connectors.iter().find(|one| one.name == *name);
                let text = connector.expect("a connector of the file").text.clone();
                actual.documents.insert(name.clone(), text);
            }
            Step::Forget(name) => {
                assert_eq!(actual.connectors.remove(name), Some(false), "{name}");
            }
            Step::Start(name) => {
                let before = actual.connectors.insert(name.clone(), true);
                assert_eq!(before, None, "a taken name is not started again: {name}");
            }
        }
    }
    actual
}

fn done() -> Actual {
    let wanted = wanted();
    let steps = plan(&Actual::default(), &wanted).expect("a plan");
    after(Actual::default(), &steps, &wanted)
}

fn start(name: &str) -> Step {
    Step::Start(name.to_owned())
}

#[test]
fn the_first_time_does_everything_in_order() {
    let steps = plan(&Actual::default(), &wanted()).expect("a plan");
    assert_eq!(
        steps,
        [
            Step::CreateTopic("events".to_owned()),
            Step::UploadModule {
                name: "pack".to_owned(),
                replaces: false
            },
            Step::WriteDocument("source".to_owned()),
            start("source"),
            Step::WriteDocument("sink".to_owned()),
            start("sink"),
        ]
    );
}

#[test]
fn the_second_time_does_nothing() {
    assert_eq!(plan(&done(), &wanted()), Ok(vec![]));
}

#[test]
fn from_any_half_way_it_gets_there_and_stays() {
    let wanted = wanted();
    let all = plan(&Actual::default(), &wanted).expect("a plan");
    for begun in 0..all.len() {
        let half = after(Actual::default(), &all[..begun], &wanted);
        let rest = plan(&half, &wanted).expect("a plan");
        assert_eq!(rest, all[begun..], "after {begun} steps");
    }
}

#[test]
fn what_has_ended_is_forgotten_first() {
    let mut actual = done();
    actual.connectors.insert("sink".to_owned(), false);
    let steps = plan(&actual, &wanted()).expect("a plan");
    assert_eq!(steps, [Step::Forget("sink".to_owned()), start("sink")]);
    assert_eq!(
        plan(&after(actual, &steps, &wanted()), &wanted()),
        Ok(vec![])
    );
}

#[test]
fn another_module_is_replaced_only_when_its_users_rest() {
    let mut actual = done();
    actual.modules.insert("pack".to_owned(), false);
    let refused = plan(&actual, &wanted()).expect_err("the sink is running");
    assert!(refused[0].what.contains("`sink` is running"), "{refused:?}");
    actual.connectors.remove("sink");
    let steps = plan(&actual, &wanted()).expect("a plan");
    let upload = Step::UploadModule {
        name: "pack".to_owned(),
        replaces: true,
    };
    assert_eq!(steps, [upload, start("sink")]);
}

#[test]
fn a_running_connector_is_not_changed_under_way() {
    let mut actual = done();
    actual
        .documents
        .insert("source".to_owned(), "other".to_owned());
    let refused = plan(&actual, &wanted()).expect_err("another configuration");
    assert!(
        refused[0].what.contains("another configuration"),
        "{refused:?}"
    );
    actual.documents.remove("source");
    let refused = plan(&actual, &wanted()).expect_err("unknown origin");
    assert!(refused[0].what.contains("not deployed from"), "{refused:?}");
    // Resting, it is simply written anew.
    actual.connectors.remove("source");
    let steps = plan(&actual, &wanted()).expect("a plan");
    assert_eq!(
        steps,
        [Step::WriteDocument("source".to_owned()), start("source")]
    );
}

#[test]
fn every_difference_of_a_topic_is_named_at_once() {
    let mut wanted = wanted();
    wanted.topics[0].settings.retention_time = Some(Duration::from_secs(3600));
    wanted.topics[0].settings.segment_bytes = Some(1 << 20);
    wanted.topics[0].settings.replication = Some(3);
    wanted.topics[0].settings.compression = Some(Compression::Zstd);
    let facts = TopicFacts {
        partitions: 2,
        replication: Some(1),
        retention: Some(Duration::from_secs(60)),
        segment_bytes: None,
        compression: Some(Compression::Gzip),
    };
    let mut actual = done();
    actual.topics.insert("events".to_owned(), facts);
    let texts: Vec<String> = plan(&actual, &wanted)
        .expect_err("differences")
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(texts.len(), 5, "{texts:#?}");
    for (text, part) in texts.iter().zip([
        "partitions: 2, the file says 4",
        "replication: 1, the file says 3",
        "retention 60 s, the file says 3600 s",
        "segment size of the cluster's default, the file says 1048576 bytes",
        "compression gzip, the file says zstd",
    ]) {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_the_file_does_not_say_may_be_anything() {
    let mut actual = done();
    let facts = TopicFacts {
        partitions: 4,
        replication: Some(2),
        retention: Some(Duration::from_secs(60)),
        segment_bytes: Some(5),
        compression: Some(Compression::Gzip),
    };
    actual.topics.insert("events".to_owned(), facts);
    assert_eq!(plan(&actual, &wanted()), Ok(vec![]));
}

/// An SPU refuses what a topic does not take, batch after batch.
#[test]
fn a_source_sends_what_its_topic_takes() {
    let mut wanted = wanted();
    wanted.topics[0].compression = Some(Compression::Zstd);
    let refusal = "takes compression gzip, and `producer.compression` is zstd";
    let mut actual = done();
    let topic = actual.topics.get_mut("events").expect("there");
    topic.compression = Some(Compression::Gzip);
    let refused = plan(&actual, &wanted).expect_err("it is there");
    assert!(refused[0].what.contains(refusal), "{refused:?}");
    wanted.topics[0].settings.compression = Some(Compression::Gzip);
    let refused = plan(&Actual::default(), &wanted).expect_err("it is to be made");
    assert!(refused[0].what.contains(refusal), "{refused:?}");
    wanted.topics[0].settings.compression = Some(Compression::Any);
    plan(&Actual::default(), &wanted).expect("it takes any");
}

#[test]
fn a_topic_that_cannot_be_made_as_the_file_says_is_not_made_otherwise() {
    let mut wanted = wanted();
    wanted.topics[0].settings.not_made = vec!["deduplication"];
    let refused = plan(&Actual::default(), &wanted).expect_err("not there");
    assert!(refused[0].what.contains("`deduplication`"), "{refused:?}");
    // Made by hand it is as good as any.
    assert_eq!(plan(&done(), &wanted), Ok(vec![]));
}
