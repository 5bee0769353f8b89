//! What a client sees of each fault, on the wire, and whether its request took effect.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use millpond_fault_proxy::fault::Cut;
use millpond_fault_proxy::{Family, Fault, Plan, Proxy, Service};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// What the service behind the proxy answers to everything.
const ANSWER: &str = r#"{"ConsumedCapacity":[{"TableName":"t","CapacityUnits":1.0}]}"#;
const BATCH: &str =
    r#"{"RequestItems":{"t":[{"PutRequest":1},{"PutRequest":2},{"PutRequest":3}]}}"#;
/// Silence for so long is taken for good.
const SILENCE: Duration = Duration::from_millis(300);
/// Anything but silence comes within this.
const PATIENCE: Duration = Duration::from_secs(20);
const REQUESTS: u64 = 40;

/// A service that counts requests and remembers the last body.
struct Origin {
    address: String,
    requests: Arc<AtomicU64>,
    bodies: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Origin {
    async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let requests = Arc::new(AtomicU64::new(0));
        let (sender, bodies) = tokio::sync::mpsc::unbounded_channel();
        let count = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (count, sender) = (Arc::clone(&count), sender.clone());
                tokio::spawn(async move {
                    while let Ok(body) = read_request(&mut stream).await {
                        count.fetch_add(1, Ordering::SeqCst);
                        let _ = sender.send(body);
                        let answer = format!(
                            "HTTP/1.1 200 OK\r\ncontent-type: application/x-amz-json-1.0\r\ncontent-length: {}\r\n\r\n{ANSWER}",
                            ANSWER.len()
                        );
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            break;
                        }
                    }
                });
            }
        });
        Ok(Self {
            address,
            requests,
            bodies,
        })
    }
}

/// Body of one request with a length.
async fn read_request(stream: &mut TcpStream) -> Result<String> {
    let mut seen = Vec::new();
    loop {
        ensure!(stream.read_buf(&mut seen).await? > 0, "closed");
        let text = String::from_utf8_lossy(&seen).to_ascii_lowercase();
        let Some(end) = text.find("\r\n\r\n") else {
            continue;
        };
        let length = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .context("a length")?;
        let (from, length) = (end + 4, length.trim().parse::<usize>()?);
        if seen.len() >= from + length {
            return Ok(String::from_utf8_lossy(&seen[from..from + length]).into_owned());
        }
    }
}

/// How the connection stood after the answer, or in its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Reset,
    Silent,
}

#[derive(Debug)]
struct Seen {
    status: Option<u16>,
    announced: usize,
    body: String,
    end: End,
}

impl Seen {
    fn is_whole(&self) -> bool {
        self.status.is_some() && self.body.len() == self.announced
    }
}

/// One request on a connection of its own; with `last`, the server is asked to close it.
async fn ask(proxy: &Proxy, operation: &str, body: &str) -> Result<Seen> {
    let address = proxy.url().replace("http://", "");
    let mut stream = TcpStream::connect(address).await?;
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: DynamoDB_20120810.{operation}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut seen = Vec::new();
    let mut patience = PATIENCE;
    let end = loop {
        match timeout(patience, stream.read_buf(&mut seen)).await {
            Ok(Ok(0)) => break End::Closed,
            Ok(Ok(_)) => {}
            Ok(Err(error)) if error.kind() == ErrorKind::ConnectionReset => break End::Reset,
            Ok(Err(error)) => return Err(error.into()),
            Err(_) => break End::Silent,
        }
        // Half an answer has come: what follows comes soon, or never.
        patience = SILENCE * 6;
    };
    let text = String::from_utf8_lossy(&seen).into_owned();
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(Seen {
            status: None,
            announced: 0,
            body: String::new(),
            end,
        });
    };
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    Ok(Seen {
        status: head.get(9..12).and_then(|status| status.parse().ok()),
        announced: length.context("a length")?.trim().parse()?,
        body: body.to_owned(),
        end,
    })
}

/// Checks what was seen against what the plan says; answers whether the request took effect.
fn check(fault: Option<&Fault>, seen: &Seen) -> Result<bool> {
    let whole = |status: u16| seen.is_whole() && seen.status == Some(status);
    let broken = seen.status == Some(200) && seen.body.len() < seen.announced;
    let (as_planned, forwarded) = match fault {
        None => (whole(200) && seen.body == ANSWER, true),
        Some(Fault::Refuse(refusal)) => (
            whole(refusal.status) && seen.body.as_bytes() == refusal.body,
            false,
        ),
        Some(Fault::Unprocessed(_)) => (whole(200) && seen.body.contains("UnprocessedItems"), true),
        Some(Fault::LoseAnswer) => (seen.status.is_none() && seen.end == End::Closed, true),
        Some(Fault::LoseAnswerTo(refusal)) => (whole(refusal.status), true),
        Some(Fault::ResetBefore) => (seen.status.is_none() && seen.end == End::Reset, false),
        // A reset may overtake the half that was sent before it.
        Some(Fault::ResetWithin) => (!seen.is_whole() && seen.end == End::Reset, true),
        Some(Fault::Stall) => (broken && seen.end == End::Silent, true),
        Some(Fault::Truncate(Cut::Connection)) => (broken && seen.end == End::Closed, true),
        Some(Fault::Truncate(Cut::Json)) => (
            whole(200) && !seen.body.is_empty() && ANSWER.starts_with(&seen.body),
            true,
        ),
        Some(Fault::Truncate(Cut::Empty)) => (whole(200) && seen.body.is_empty(), true),
        Some(Fault::Slow(_)) => (whole(200) && seen.body == ANSWER, true),
        Some(Fault::HalfOpen { forwarded }) => {
            (seen.status.is_none() && seen.end == End::Silent, *forwarded)
        }
    };
    ensure!(as_planned, "{fault:?}, and the client saw {seen:?}");
    Ok(forwarded)
}

#[tokio::test]
async fn a_client_sees_what_the_plan_says_and_effects_are_as_it_says() -> Result<()> {
    // Those that end in silence are seen by a test of their own.
    let quick = Family::ALL
        .into_iter()
        .filter(|family| !matches!(family, Family::HalfOpen | Family::Stalled));
    for family in quick {
        let operation = match family {
            Family::ExpiredIterator => "GetRecords",
            _ => "BatchWriteItem",
        };
        let origin = Origin::start().await?;
        let meets = |seed: &u64| {
            let plan = Plan::new(*seed, &[family]);
            (0..REQUESTS).any(|number| plan.fault(Service::DynamoDb, operation, number).is_some())
        };
        let seed = (0..100).find(meets).context("a seed that meets it")?;
        let plan = Plan::new(seed, &[family]);
        let proxy = Proxy::start(&origin.address, Service::DynamoDb, plan.clone()).await?;
        let mut met = 0;
        for number in 0..REQUESTS {
            let fault = plan.fault(Service::DynamoDb, operation, number);
            let before = origin.requests.load(Ordering::SeqCst);
            let seen = ask(&proxy, operation, BATCH).await?;
            let forwarded = check(fault.as_ref().map(|(_, fault)| fault), &seen)
                .with_context(|| format!("{family:?}, request {number}"))?;
            let after = origin.requests.load(Ordering::SeqCst);
            ensure!(
                after - before == u64::from(forwarded),
                "{family:?}, {fault:?}"
            );
            met += u64::from(fault.is_some());
        }
        ensure!(met > 0, "{family:?} was never met");
        ensure!(proxy.met().get(&family) == Some(&met));
        ensure!(proxy.requests() == REQUESTS);
    }
    Ok(())
}

#[tokio::test]
async fn a_silent_connection_stays_open() -> Result<()> {
    for family in [Family::HalfOpen, Family::Stalled] {
        let origin = Origin::start().await?;
        let plan = Plan::new(1, &[family]);
        let number = (0..200)
            .find(|number| {
                plan.fault(Service::Kinesis, "GetRecords", *number)
                    .is_some()
            })
            .context("a fault")?;
        let proxy = Proxy::start(&origin.address, Service::Kinesis, Plan::none()).await?;
        for _ in 0..number {
            check(None, &ask(&proxy, "GetRecords", "{}").await?)?;
        }
        proxy.set_plan(plan.clone());
        let address = proxy.url().replace("http://", "");
        let mut stream = TcpStream::connect(address).await?;
        let request = "POST / HTTP/1.1\r\nhost: x\r\nx-amz-target: K.GetRecords\r\ncontent-length: 2\r\n\r\n{}";
        stream.write_all(request.as_bytes()).await?;
        let mut seen = Vec::new();
        let silent = loop {
            match timeout(SILENCE * 4, stream.read_buf(&mut seen)).await {
                Ok(Ok(0)) => bail!("{family:?}: closed"),
                Ok(Ok(_)) => {}
                Ok(Err(error)) => return Err(error.into()),
                Err(_) => break true,
            }
        };
        ensure!(silent && seen.len() < ANSWER.len() + 200);
        ensure!(
            seen.is_empty() == (family == Family::HalfOpen),
            "{family:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn rows_that_are_not_forwarded_are_named_as_unprocessed() -> Result<()> {
    let mut origin = Origin::start().await?;
    let plan = Plan::new(3, &[Family::Unprocessed]);
    let proxy = Proxy::start(&origin.address, Service::DynamoDb, plan.clone()).await?;
    for number in 0..REQUESTS {
        let seen = ask(&proxy, "BatchWriteItem", BATCH).await?;
        let forwarded = origin.bodies.recv().await.context("a body")?;
        let forwarded: serde_json::Value = serde_json::from_str(&forwarded)?;
        let rows = |value: &serde_json::Value| value.as_array().map_or(0, Vec::len);
        let sent = rows(&forwarded["RequestItems"]["t"]);
        let answer: serde_json::Value = serde_json::from_str(&seen.body)?;
        let left = rows(&answer["UnprocessedItems"]["t"]);
        ensure!(sent + left == 3, "{forwarded} {answer}");
        let is_met = plan
            .fault(Service::DynamoDb, "BatchWriteItem", number)
            .is_some();
        ensure!((left > 0) == is_met && sent > 0);
    }
    Ok(())
}

#[tokio::test]
async fn a_cut_ends_connections_until_it_is_restored() -> Result<()> {
    let origin = Origin::start().await?;
    let proxy = Proxy::start(&origin.address, Service::Kinesis, Plan::none()).await?;
    check(None, &ask(&proxy, "GetRecords", "{}").await?)?;
    let mut idle = TcpStream::connect(proxy.url().replace("http://", "")).await?;
    // Answered once, so that the proxy is known to hold the connection.
    idle.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        .await?;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).ends_with(ANSWER) {
        ensure!(timeout(PATIENCE, idle.read_buf(&mut seen)).await?? > 0);
    }
    proxy.cut();
    let ended = timeout(PATIENCE, idle.read_buf(&mut seen)).await?;
    ensure!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let refused = ask(&proxy, "GetRecords", "{}").await;
    ensure!(refused.is_err() || refused.is_ok_and(|seen| seen.status.is_none()));
    proxy.restore();
    check(None, &ask(&proxy, "GetRecords", "{}").await?)?;
    Ok(())
}
