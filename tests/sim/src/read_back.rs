//! The real reader on the table of a run, through the AWS SDK. Requests are answered in memory, at
//! the place where the SDK would open a connection.

use std::collections::{BTreeMap, HashMap};

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, SharedHttpConnector, http_client_fn,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use millpond_dynamodb_sink::row::{Row, Value};
use millpond_reader::{ReadError, ReadRequest, Reader, ReaderConfig};
use serde_json::{Map, Value as Json, json};

use crate::oracle::broken;
use crate::world::{NAME, Violation, World, lock};

/// Items in one page: few, so that pages are turned.
const PAGE_ITEMS: usize = 4;

/// How reads are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// `ConsistentRead`: everything that was written is seen.
    Consistent,
    /// Without it: the service may answer from a copy that lacks the newest writes.
    Eventual,
}

/// Rows by partition key, then sort key.
type Rows = BTreeMap<String, BTreeMap<String, Row>>;

/// Answers `DescribeTable`, `GetItem` and `Query` as the reader asks them.
#[derive(Debug, Clone)]
struct Wire {
    rows: Rows,
    /// What a read without `ConsistentRead` sees.
    copy: Rows,
}

fn rows(all: Vec<Row>) -> Rows {
    let mut rows = Rows::new();
    for row in all {
        let of_key = rows.entry(row.key.pk.clone()).or_default();
        of_key.insert(row.key.sk.clone(), row);
    }
    rows
}

impl HttpConnector for Wire {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let target = request.headers().get("x-amz-target").unwrap_or_default();
        let body = request.body().bytes().unwrap_or_default();
        let asked: Json = serde_json::from_slice(body).unwrap_or_default();
        let answer = match target.rsplit('.').next() {
            Some("DescribeTable") => Some(description()),
            Some("GetItem") => Some(self.get(&asked)),
            Some("Query") => self.query(&asked),
            _ => None,
        };
        let refusal = json!({"__type": "ValidationException", "message": target});
        let status = if answer.is_some() { 200 } else { 400 };
        let Ok(status) = StatusCode::try_from(status) else {
            return HttpConnectorFuture::new(std::future::pending());
        };
        let body = SdkBody::from(answer.unwrap_or(refusal).to_string());
        HttpConnectorFuture::ready(Ok(HttpResponse::new(status, body)))
    }
}

impl Wire {
    fn seen_by(&self, asked: &Json) -> &Rows {
        match asked["ConsistentRead"].as_bool() {
            Some(true) => &self.rows,
            _ => &self.copy,
        }
    }

    fn get(&self, asked: &Json) -> Json {
        let part = |name| asked["Key"][name]["S"].as_str().unwrap_or_default();
        let of_key = self.seen_by(asked).get(part("pk"));
        match of_key.and_then(|of_key| of_key.get(part("sk"))) {
            Some(row) => json!({"Item": item(row, None)}),
            None => json!({}),
        }
    }

    /// `None` for a condition that the reader is not known to use.
    fn query(&self, asked: &Json) -> Option<Json> {
        let value = |name: &str| asked["ExpressionAttributeValues"][name]["S"].as_str();
        let pk = value(":pk")?;
        let (from, to) = (value(":from").unwrap_or(""), value(":to").unwrap_or(""));
        let condition = asked["KeyConditionExpression"].as_str()?;
        let fits = |sk: &str| match condition.strip_prefix("#pk = :pk")? {
            "" => Some(true),
            " AND begins_with(#sk, :from)" => Some(sk.starts_with(from)),
            " AND #sk >= :from" => Some(sk >= from),
            " AND #sk < :to" => Some(sk < to),
            " AND #sk BETWEEN :from AND :to" => Some(sk >= from && sk <= to),
            _ => None,
        };
        fits("")?;
        let backward = asked["ScanIndexForward"].as_bool() == Some(false);
        let after = asked["ExclusiveStartKey"]["sk"]["S"].as_str();
        let is_after =
            |sk: &str| after.is_none_or(|after| if backward { sk < after } else { sk > after });
        let of_key = self.seen_by(asked).get(pk);
        let mut found: Vec<&Row> = of_key
            .into_iter()
            .flatten()
            .filter(|(sk, _)| fits(sk) == Some(true) && is_after(sk))
            .map(|(_, row)| row)
            .collect();
        if backward {
            found.reverse();
        }
        let wanted = asked["Limit"]
            .as_u64()
            .map_or(usize::MAX, |limit| limit as usize);
        let more = found.len() > wanted.min(PAGE_ITEMS);
        found.truncate(wanted.min(PAGE_ITEMS));
        let names = projected(asked);
        let items: Vec<Json> = found
            .iter()
            .map(|row| item(row, names.as_deref()))
            .collect();
        let mut answer = json!({
            "Items": items,
            "Count": found.len(),
            "ConsumedCapacity": {"TableName": NAME, "CapacityUnits": 1.0},
        });
        if let (true, Some(last)) = (more, found.last()) {
            answer["LastEvaluatedKey"] =
                json!({"pk": {"S": last.key.pk}, "sk": {"S": last.key.sk}});
        }
        Some(answer)
    }
}

/// Names of the attributes asked for; `None` for all.
fn projected(asked: &Json) -> Option<Vec<String>> {
    let expression = asked["ProjectionExpression"].as_str()?;
    let names = &asked["ExpressionAttributeNames"];
    let name = |alias: &str| names[alias.trim()].as_str().map(str::to_owned);
    Some(expression.split(',').filter_map(name).collect())
}

fn description() -> Json {
    let key = |name: &str, kind: &str| json!({"AttributeName": name, "KeyType": kind});
    let text = |name: &str| json!({"AttributeName": name, "AttributeType": "S"});
    json!({"Table": {
        "TableName": NAME,
        "TableStatus": "ACTIVE",
        "KeySchema": [key("pk", "HASH"), key("sk", "RANGE")],
        "AttributeDefinitions": [text("pk"), text("sk")],
    }})
}

fn item(row: &Row, names: Option<&[String]>) -> Json {
    let mut item = Map::new();
    item.insert("pk".into(), json!({"S": row.key.pk}));
    item.insert("sk".into(), json!({"S": row.key.sk}));
    for (name, value) in &row.attributes {
        if names.is_some_and(|names| !names.contains(name)) {
            continue;
        }
        let value = match value {
            Value::S(text) => json!({"S": text}),
            Value::N(number) => json!({"N": number.to_string()}),
            Value::B(pieces) => json!({"B": STANDARD.encode(pieces.concat())}),
            // Only a mapping makes these, and the simulation has none.
            Value::Typed(_) => continue,
        };
        item.insert(name.clone(), value);
    }
    Json::Object(item)
}

/// Reads every group and compares with the truth. `whole` says that nothing may be missing.
pub async fn read_back(world: &World, reads: Reads, whole: bool) {
    let now = world.table.scan();
    // A copy that lacks some of the newest items; what names groups and pipelines is always
    // read consistently.
    let mut copy = now.clone();
    if reads == Reads::Eventual && !whole {
        let is_item = |row: &Row| !row.key.pk.starts_with("millpond:");
        let items = copy.iter().filter(|row| is_item(row)).count() as u64;
        let kept = items - world.dice.below("not seen", items + 1).min(3);
        let mut number = 0;
        copy.retain(|row| {
            number += u64::from(is_item(row));
            !is_item(row) || number <= kept
        });
    }
    let wire = Wire {
        rows: rows(now),
        copy: rows(copy),
    };
    let seen = match groups_of(wire, reads).await {
        Ok(seen) => seen,
        Err(error) => return world.violate("reader", error.to_string()),
    };
    let count: usize = seen.values().map(Vec::len).sum();
    world.note(format!("reader: {count} events, {reads:?}, whole: {whole}"));
    world.judge(compare(world, &seen, whole));
}

/// Group, then values in the order in which the reader gives them.
type Seen = BTreeMap<String, Vec<Vec<u8>>>;

async fn groups_of(wire: Wire, reads: Reads) -> Result<Seen, ReadError> {
    let groups: Vec<String> = wire
        .rows
        .iter()
        .filter(|(pk, _)| pk.starts_with("millpond:groups/"))
        .flat_map(|(_, of_key)| of_key.keys())
        .filter_map(|sk| millpond_format::keys::parse_directory_sk(sk))
        .map(|(group, ..)| group.to_owned())
        .collect();
    let http = http_client_fn(move |_, _| SharedHttpConnector::new(wire.clone()));
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url("http://in-memory")
        .credentials_provider(Credentials::new("key", "secret", None, None, "simulation"))
        .http_client(http)
        .build();
    let mut reader = ReaderConfig::new(NAME);
    reader.consistent = reads == Reads::Consistent;
    let mut seen = Seen::new();
    if groups.is_empty() {
        return Ok(seen);
    }
    let reader = Reader::open(Client::from_conf(config), reader).await?;
    for group in groups {
        if seen.contains_key(&group) {
            continue;
        }
        let mut events = reader.read(ReadRequest::group(&group)).await?;
        let values = seen.entry(group).or_default();
        while let Some(event) = events.next().await? {
            values.push(event.value.to_vec());
        }
    }
    Ok(seen)
}

/// Each event at most once, in the order of its key, as it was put; all of them if `whole`.
fn compare(world: &World, seen: &Seen, whole: bool) -> Result<(), Violation> {
    let oracle = lock(&world.oracle);
    // Events without bytes, and the like, are told apart by their order alone.
    let mut expected: HashMap<(&str, &[u8]), Vec<usize>> = HashMap::new();
    for (index, event) in oracle.events.iter().enumerate().rev() {
        if let Some(group) = oracle.items.group_of(index) {
            let same = expected.entry((group, &event.value)).or_default();
            same.push(index);
        }
    }
    for (group, values) in seen {
        let mut last: HashMap<&str, usize> = HashMap::new();
        for value in values {
            let same = expected.get_mut(&(group.as_str(), value.as_slice()));
            let Some(index) = same.and_then(Vec::pop) else {
                let shown = String::from_utf8_lossy(&value[..value.len().min(40)]).into_owned();
                return broken(
                    "I2",
                    format!("the reader gives `{shown}` of {group} once too often"),
                );
            };
            // Values that occur once only: for others it is not known which one was given.
            let key = oracle.events[index].key.as_str();
            if !value.is_empty() && last.insert(key, index).is_some_and(|before| before > index) {
                return broken("I3", format!("the reader gives event {index} too late"));
            }
        }
    }
    let left = expected.values().flatten();
    match left.min() {
        Some(index) if whole => broken("I1", format!("the reader does not give event {index}")),
        _ => Ok(()),
    }
}
