//! The AWS SDK against a server on loopback.

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::types::PutRecordsRequestEntry;
use millpond_connector::aws::AwsSettings;

/// Access to `endpoint` with credentials that are not checked.
pub async fn sdk_config(endpoint: String) -> SdkConfig {
    let settings = AwsSettings {
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(endpoint),
        profile: None,
    };
    let config = settings.load().await.expect("configured");
    let credentials = Credentials::new("test", "test", None, None, "test");
    config
        .into_builder()
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

/// Puts events under their partition keys, which must be accepted: at most 500.
pub async fn put_records(client: &Client, events: &[(String, Vec<u8>)]) {
    let mut request = client.put_records().stream_name("events");
    for (key, event) in events {
        let entry = PutRecordsRequestEntry::builder()
            .partition_key(key)
            .data(event.clone().into())
            .build()
            .expect("an entry");
        request = request.records(entry);
    }
    let answer = request.send().await.expect("accepted");
    assert_eq!(answer.failed_record_count.unwrap_or(0), 0);
}
