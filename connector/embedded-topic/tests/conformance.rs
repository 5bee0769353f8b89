//! The embedded topic holds what every topic must.

use std::sync::Arc;

use millpond_connector::topic::Topic;
use millpond_embedded_topic::{EmbeddedTopic, TopicConfig, conformance};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_topic_conforms() {
    let mut dirs = Vec::new();
    conformance::all(|| {
        let dir = tempfile::tempdir().expect("a directory");
        let config = TopicConfig::new(dir.path(), "events", 2);
        dirs.push(dir);
        async move { Arc::new(EmbeddedTopic::open(config).expect("opens")) as Arc<dyn Topic> }
    })
    .await;
}
