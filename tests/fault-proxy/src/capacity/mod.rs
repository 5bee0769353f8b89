//! A table's write capacity, enforced as DynamoDB does: a pure model, and what it means for requests.
//!
//! - [`model`]: which writes fit, by virtual time.
//! - [`sizing`]: how many units a row of a request takes.
//! - [`Capacity`]: the model with a clock and requests in front of a stand-in that never throttles.

pub mod model;
pub mod sizing;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::fault::Refusal;
use crate::service::Service;
use crate::split::{Split, split_by};
use model::{Model, Reason};

/// Requests and units so far.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Seen {
    /// Write requests to the table.
    pub requests: u64,
    /// Of these, refused or left unprocessed in part.
    pub throttled: u64,
    /// Units consumed, as the stand-in said.
    pub units: f64,
}

/// The write capacity of one table behind a proxy. Reads are not limited.
#[derive(Debug)]
pub struct Capacity {
    table: String,
    partition_key: String,
    begun: Instant,
    model: Mutex<Model>,
    seen: Mutex<Seen>,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Admission {
    /// It does not concern the table's capacity.
    Free,
    /// It is forwarded, in whole or, with `left`, in part.
    Forward {
        taken: Vec<(String, u64)>,
        split: Option<Split>,
    },
    /// Nothing of it fits.
    Refuse(Refusal),
}

impl Capacity {
    /// Of the table of this name, with this attribute as its partition key.
    #[must_use]
    pub fn new(table: &str, partition_key: &str, model: Model) -> Self {
        Self {
            table: table.to_owned(),
            partition_key: partition_key.to_owned(),
            begun: Instant::now(),
            model: Mutex::new(model),
            seen: Mutex::default(),
        }
    }

    /// Changes the model, at the time that it is given.
    pub fn change(&self, change: impl FnOnce(&mut Model, Duration)) {
        change(&mut lock(&self.model), self.begun.elapsed());
    }

    /// Requests and units so far.
    #[must_use]
    pub fn seen(&self) -> Seen {
        *lock(&self.seen)
    }

    /// Takes the units of a request, of those of its rows that fit.
    pub(crate) fn admit(&self, operation: &str, request: &Value) -> Admission {
        let rows = self.rows(operation, request);
        if rows.is_empty() {
            return Admission::Free;
        }
        let now = self.begun.elapsed();
        let mut model = lock(&self.model);
        let verdicts: Vec<Result<(), Reason>> = rows
            .iter()
            .map(|(key, units)| model.admit(key, *units as f64, now))
            .collect();
        drop(model);
        let mut seen = lock(&self.seen);
        seen.requests += 1;
        seen.throttled += u64::from(verdicts.iter().any(Result::is_err));
        drop(seen);
        let fits: Vec<bool> = verdicts.iter().map(Result::is_ok).collect();
        let taken = rows.into_iter().zip(&fits).filter(|(_, fits)| **fits);
        let taken: Vec<_> = taken.map(|(row, _)| row).collect();
        match verdicts.iter().find_map(|verdict| verdict.err()) {
            None => Admission::Forward { taken, split: None },
            // The service's own rule: where nothing can be processed, the call is throttled.
            Some(reason) if taken.is_empty() => Admission::Refuse(self.refusal(reason)),
            Some(_) => {
                let split = split_by(request, |table, row| table != self.table || fits[row]);
                Admission::Forward { taken, split }
            }
        }
    }

    /// Corrects what was taken by what the stand-in says was consumed.
    pub(crate) fn settle(&self, taken: &[(String, u64)], answer: &Value) {
        let consumed = &answer["ConsumedCapacity"];
        let units = match consumed.as_array() {
            Some(tables) => tables.iter().filter_map(units).sum(),
            None => units(consumed).unwrap_or(0.0),
        };
        lock(&self.seen).units += units;
        let reserved: u64 = taken.iter().map(|(_, units)| units).sum();
        if let Some((key, _)) = taken.first() {
            let now = self.begun.elapsed();
            lock(&self.model).charge(key, units - reserved as f64, now);
        }
    }

    /// Makes `DescribeTable` say the capacity that is enforced.
    pub(crate) fn describe(&self, answer: &mut Value) {
        let table = &mut answer["Table"];
        if table["TableName"] != self.table.as_str() {
            return;
        }
        let (provisioned, max) = lock(&self.model).described();
        table["ProvisionedThroughput"]["WriteCapacityUnits"] = provisioned.into();
        if let Some(max) = max {
            table["OnDemandThroughput"] = json!({ "MaxWriteRequestUnits": max });
        }
    }

    /// Partition key and units of each row that a request writes to the table.
    fn rows(&self, operation: &str, request: &Value) -> Vec<(String, u64)> {
        let of_item = |item: &Map<String, Value>| {
            let key = item.get(&self.partition_key).map(Value::to_string);
            (key.unwrap_or_default(), sizing::write_units(item))
        };
        let put = |item: &Value| item.as_object().map(of_item);
        // What an update or a delete finds there is not known before: the answer tells.
        let by_key = |key: &Value| key.as_object().map(|key| (of_item(key).0, 1));
        if operation == "BatchWriteItem" {
            let rows = request["RequestItems"][&self.table].as_array();
            let row = |row: &Value| match row.get("PutRequest") {
                Some(of) => put(&of["Item"]),
                None => by_key(&row["DeleteRequest"]["Key"]),
            };
            return rows.into_iter().flatten().filter_map(row).collect();
        }
        if request["TableName"] != self.table.as_str() {
            return Vec::new();
        }
        let row = match operation {
            "PutItem" => put(&request["Item"]),
            "UpdateItem" | "DeleteItem" => by_key(&request["Key"]),
            _ => None,
        };
        row.into_iter().collect()
    }

    fn refusal(&self, reason: Reason) -> Refusal {
        let (code, member) = match reason {
            Reason::Provisioned => (
                "ProvisionedThroughputExceededException",
                "ThrottlingReasons",
            ),
            _ => ("ThrottlingException", "throttlingReasons"),
        };
        let resource = format!(
            "arn:aws:dynamodb:eu-central-1:123456789012:table/{}",
            self.table
        );
        let mut body = json!({
            "__type": Service::DynamoDb.error_type(code),
            "message": "the write rate is too high",
        });
        body[member] = json!([{ "reason": reason.name(), "resource": resource }]);
        Refusal::json(Service::DynamoDb, 400, &body)
    }
}

fn units(consumed: &Value) -> Option<f64> {
    consumed["CapacityUnits"].as_f64()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{Limits, Mode};

    fn capacity(units: u64) -> Capacity {
        let limits = Limits {
            key_units: None,
            ..Limits::of(Mode::Provisioned(units))
        };
        Capacity::new("t", "pk", Model::new(limits))
    }

    fn put(key: &str, kib: usize) -> Value {
        json!({ "PutRequest": { "Item": { "pk": { "S": key }, "d": { "S": "x".repeat(kib * 1_024 - 20) } } } })
    }

    #[test]
    fn what_does_not_fit_is_unprocessed_and_nothing_at_all_is_an_exception() {
        let capacity = capacity(4);
        let batch =
            json!({ "RequestItems": { "t": [put("a", 3), put("b", 3)], "u": [put("a", 9)] } });
        let Admission::Forward { taken, split } = capacity.admit("BatchWriteItem", &batch) else {
            panic!("forwarded");
        };
        assert_eq!(taken.len(), 1);
        let split = split.expect("in part");
        assert_eq!(split.forwarded["RequestItems"]["t"], json!([put("a", 3)]));
        assert_eq!(split.forwarded["RequestItems"]["u"], json!([put("a", 9)]));
        assert_eq!(split.left["t"], json!([put("b", 3)]));
        let Admission::Refuse(refusal) = capacity.admit("BatchWriteItem", &batch) else {
            panic!("refused");
        };
        let body: Value = serde_json::from_slice(&refusal.body).expect("JSON");
        assert_eq!(
            body["ThrottlingReasons"][0]["reason"],
            "TableWriteProvisionedThroughputExceeded"
        );
        assert_eq!(
            (capacity.seen().requests, capacity.seen().throttled),
            (2, 2)
        );
        let other = json!({ "TableName": "u", "Item": {} });
        assert_eq!(capacity.admit("PutItem", &other), Admission::Free);
        assert_eq!(
            capacity.admit("Query", &json!({ "TableName": "t" })),
            Admission::Free
        );
    }

    #[test]
    fn a_description_says_what_is_enforced() {
        let capacity = capacity(7);
        let mut answer = json!({ "Table": { "TableName": "t" } });
        capacity.describe(&mut answer);
        assert_eq!(
            answer["Table"]["ProvisionedThroughput"]["WriteCapacityUnits"],
            7
        );
        capacity.change(|model, now| model.set_mode(Mode::OnDemand { max: Some(9) }, now));
        capacity.describe(&mut answer);
        assert_eq!(
            answer["Table"]["ProvisionedThroughput"]["WriteCapacityUnits"],
            0
        );
        assert_eq!(
            answer["Table"]["OnDemandThroughput"]["MaxWriteRequestUnits"],
            9
        );
    }
}
