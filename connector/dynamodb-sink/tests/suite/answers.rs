//! Answers that a stand-in never gives, sent as bytes: errors, throttling reasons, partial success.

use std::sync::Arc;

use millpond_dynamodb_sink::client::{Condition, Throttle, Verdict};
use millpond_dynamodb_sink::row::Row;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::rules::sized;
use crate::wire::{client, table};

/// Gives every request the same answer until it is aborted.
async fn serve(status: u16, body: String) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let answer = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: application/x-amz-json-1.0\r\n\
         content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4_096];
            while !is_whole(&request) {
                match stream.read(&mut buffer).await {
                    Ok(read) if read > 0 => request.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, task)
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return false;
    };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    length.is_none_or(|length| body.len() >= length.trim().parse().unwrap_or(0))
}

fn error(code: &str, reason: Option<&str>) -> String {
    let reasons = reason.map_or(String::new(), |reason| {
        // The service's model spells the member differently in its exceptions.
        let member = match code {
            "ThrottlingException" => "throttlingReasons",
            _ => "ThrottlingReasons",
        };
        format!(r#","{member}":[{{"reason":"{reason}","resource":"arn:aws:x"}}]"#)
    });
    format!(
        r#"{{"__type":"com.amazonaws.dynamodb.v20120810#{code}","message":"said so"{reasons}}}"#
    )
}

fn rows() -> Vec<Arc<Row>> {
    (0..3)
        .map(|index| Arc::new(sized("chain", &index.to_string(), 300)))
        .collect()
}

#[tokio::test]
async fn errors_are_classified_as_they_come() {
    let provisioned = "ProvisionedThroughputExceededException";
    for (status, code, reason, verdict) in [
        (400, provisioned, None, Verdict::Throttled(Throttle::Table)),
        (
            400,
            provisioned,
            Some("TableWriteKeyRangeThroughputExceeded"),
            Verdict::Throttled(Throttle::KeyRange),
        ),
        (
            400,
            "ThrottlingException",
            Some("TableWriteAccountLimitExceeded"),
            Verdict::Throttled(Throttle::Account),
        ),
        (
            400,
            "RequestLimitExceeded",
            None,
            Verdict::Throttled(Throttle::Account),
        ),
        (500, "InternalServerError", None, Verdict::Transient),
        (400, "ValidationException", None, Verdict::Rejected),
        (400, "ResourceNotFoundException", None, Verdict::NoTable),
        (400, "ExpiredTokenException", None, Verdict::Expired),
    ] {
        let (url, server) = serve(status, error(code, reason)).await;
        let table = table(&client(&url).await, "t");
        let failure = table.batch_write(&rows()).await.expect_err(code);
        assert_eq!(failure.verdict, verdict, "{code}: {}", failure.message);
        assert!(
            failure.message.contains(code) && failure.message.contains("said so"),
            "{}",
            failure.message
        );
        assert!(
            reason.is_none_or(|reason| failure.message.contains(reason)),
            "{}",
            failure.message
        );
        let failure = table
            .put(&rows()[0], &Condition::Absent)
            .await
            .expect_err(code);
        assert_eq!(failure.verdict, verdict, "{code}: {}", failure.message);
        server.abort();
    }
    for (code, help) in [
        ("UnrecognizedClientException", "credentials"),
        ("AccessDeniedException", "IAM"),
    ] {
        let (url, server) = serve(400, error(code, None)).await;
        let failure = table(&client(&url).await, "t")
            .describe()
            .await
            .expect_err(code);
        assert!(
            matches!(failure.verdict, Verdict::Fatal(text) | Verdict::Credentials(text) if text.contains(help)),
            "{failure:?}"
        );
        server.abort();
    }
    let (url, server) = serve(503, "<html>".into()).await;
    let failure = table(&client(&url).await, "t")
        .describe()
        .await
        .expect_err("503");
    assert_eq!(failure.verdict, Verdict::Transient, "{}", failure.message);
    server.abort();
    for status in [200, 400] {
        let (url, server) = serve(status, "{\"Table\":".into()).await;
        let failure = table(&client(&url).await, "t")
            .describe()
            .await
            .expect_err("cut");
        assert_eq!(failure.verdict, Verdict::Transient, "{}", failure.message);
        server.abort();
    }
}

/// To the SDK an answer that lost its body is one that says nothing: no such table, no such row, all
/// rows written.
#[tokio::test]
async fn an_answer_that_lost_its_body_is_none() {
    let (url, server) = serve(200, String::new()).await;
    let table = table(&client(&url).await, "t");
    let row = &rows()[0];
    let answers = [
        table.describe().await.map(drop),
        table.batch_write(&rows()).await.map(drop),
        table.get(&row.key).await.map(drop),
        table.put(row, &Condition::Absent).await.map(drop),
        table.tail("chain", None, 10, "h").await.map(drop),
    ];
    for (call, answer) in answers.into_iter().enumerate() {
        let failure = answer.expect_err("nothing was said");
        assert_eq!(failure.verdict, Verdict::Transient, "call {call}");
    }
    server.abort();
}

#[tokio::test]
async fn an_endpoint_that_is_down_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    drop(listener);
    let failure = table(&client(&url).await, "t")
        .describe()
        .await
        .expect_err("down");
    assert_eq!(failure.verdict, Verdict::Transient);
    assert!(
        failure.message.contains("cannot be reached"),
        "{}",
        failure.message
    );
}

#[tokio::test]
async fn unprocessed_items_are_found_by_their_keys() {
    let item = |sk: &str| {
        format!(r#"{{"PutRequest":{{"Item":{{"pk":{{"S":"chain"}},"sk":{{"S":"{sk}"}}}}}}}}"#)
    };
    let body = |items: &str| {
        format!(
            r#"{{"UnprocessedItems":{{"t":[{items}]}},"ConsumedCapacity":[{{"TableName":"t","CapacityUnits":1.5}}]}}"#
        )
    };
    for (items, unprocessed) in [
        (String::new(), vec![]),
        (format!("{},{}", item("2"), item("0")), vec![0, 2]),
        // One that we did not send: nothing counts as written.
        (item("stranger"), vec![0, 1, 2]),
    ] {
        let (url, server) = serve(200, body(&items)).await;
        let outcome = table(&client(&url).await, "t")
            .batch_write(&rows())
            .await
            .expect("answered");
        assert_eq!((outcome.unprocessed, outcome.units), (unprocessed, 1.5));
        server.abort();
    }
}
