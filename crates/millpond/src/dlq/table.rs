//! Dead letters in rows of a table. What was put back is noted in rows of their own, so that a sink that
//! writes a letter again does not undo the note.

use std::collections::{HashMap, VecDeque};

use anyhow::{Context as _, Result, bail};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, KeyType};
use millpond_connector::aws::describe;
use millpond_format::keys;

use super::{Entry, State};
use crate::time::{now_ms, text_ms};

type Item = HashMap<String, AttributeValue>;

/// Partition key of the notes on a pipeline's dead letters; the sort key is the id.
fn replayed_pk(pipeline: &str) -> String {
    format!("millpond:replayed/{pipeline}")
}

/// Attribute of a note: its state.
const STATE: &str = "state";

/// Dead letters of a table.
pub struct TableLetters {
    client: Client,
    table: String,
    pipeline: String,
    /// Names of the key attributes.
    keys: (String, String),
    states: HashMap<String, State>,
    rows: VecDeque<Item>,
    /// Where the next page begins; `None` after the last one.
    after: Option<Option<Item>>,
}

impl TableLetters {
    /// Opens the letters of a pipeline.
    ///
    /// # Errors
    /// When the table cannot be read, or has no sort key.
    pub async fn open(client: Client, table: &str, pipeline: &str) -> Result<Self> {
        let described = client.describe_table().table_name(table).send().await;
        let described = described.map_err(|error| failed(table, "described", &error))?;
        let schema = described.table.context("an answer without a table")?;
        let name = |role: KeyType| {
            let mut elements = schema.key_schema().iter();
            let element = elements.find(|element| *element.key_type() == role);
            element.map(|element| element.attribute_name().to_owned())
        };
        let keys = name(KeyType::Hash).zip(name(KeyType::Range));
        let keys = keys.with_context(|| {
            format!("table `{table}` has no sort key: no sink puts dead letters into it")
        })?;
        let mut letters = Self {
            client,
            table: table.to_owned(),
            pipeline: pipeline.to_owned(),
            keys,
            states: HashMap::new(),
            rows: VecDeque::new(),
            after: Some(None),
        };
        letters.read_notes().await?;
        Ok(letters)
    }

    async fn read_notes(&mut self) -> Result<()> {
        let mut after = None;
        loop {
            let (rows, next) = self.page(&replayed_pk(&self.pipeline), after).await?;
            for row in rows {
                let id = text(&row, &self.keys.1)?.to_owned();
                let state = State::parse(text(&row, STATE)?);
                let state = state.with_context(|| format!("the note on `{id}` has no state"))?;
                self.states.insert(id, state);
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(()),
            }
        }
    }

    async fn page(&self, pk: &str, after: Option<Item>) -> Result<(Vec<Item>, Option<Item>)> {
        let answer = self
            .client
            .query()
            .table_name(&self.table)
            .key_condition_expression("#pk = :pk")
            .expression_attribute_names("#pk", &self.keys.0)
            .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
            .consistent_read(true)
            .set_exclusive_start_key(after)
            .send()
            .await
            .map_err(|error| failed(&self.table, "read", &error))?;
        Ok((answer.items.unwrap_or_default(), answer.last_evaluated_key))
    }

    async fn row(&mut self) -> Result<Option<Item>> {
        loop {
            if let Some(row) = self.rows.pop_front() {
                return Ok(Some(row));
            }
            let Some(after) = self.after.take() else {
                return Ok(None);
            };
            let pk = keys::dead_letters_pk(&self.pipeline);
            let (rows, next) = self.page(&pk, after).await?;
            self.rows.extend(rows);
            self.after = next.map(Some);
        }
    }

    /// The next entry, put together from its rows.
    ///
    /// # Errors
    /// When the table cannot be read, or a row is no dead letter.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        let Some(first) = self.row().await? else {
            return Ok(None);
        };
        let (id, _) = self.name(&first)?;
        let optional = |name: &str| {
            let value = first.get(name).and_then(|value| value.as_s().ok());
            value.cloned()
        };
        let time = first.get("t0").and_then(|value| value.as_n().ok());
        let mut entry = Entry {
            time_ms: time.and_then(|time| time.parse().ok()).unwrap_or_default(),
            reason: text(&first, "reason")?.to_owned(),
            detail: optional("detail").unwrap_or_default(),
            origin: optional("o"),
            group: optional("group"),
            value: bytes(&first)?.to_vec(),
            state: self.states.get(&id).copied().unwrap_or_default(),
            id,
        };
        // A large event goes on in the rows that follow.
        while let Some(row) = self.row().await? {
            if self.name(&row)?.0 != entry.id {
                self.rows.push_front(row);
                break;
            }
            entry.value.extend_from_slice(bytes(&row)?);
        }
        Ok(Some(entry))
    }

    /// Id and number of a row: `<time>/<id>/<number>`.
    fn name(&self, row: &Item) -> Result<(String, u32)> {
        let sk = text(row, &self.keys.1)?;
        let parts = sk
            .split_once('/')
            .and_then(|(_, rest)| rest.rsplit_once('/'))
            .and_then(|(id, number)| Some((id.to_owned(), number.parse().ok()?)));
        parts.with_context(|| format!("row `{sk}` is no dead letter"))
    }

    /// Notes that an entry is begun, unless it has another state by now.
    ///
    /// # Errors
    /// When the table does not take the note.
    pub async fn begin(&mut self, id: &str, seen: State) -> Result<bool> {
        let put = self.note(id, State::Begun);
        let put = match seen {
            State::New => put
                .condition_expression("attribute_not_exists(#pk)")
                .expression_attribute_names("#pk", &self.keys.0),
            _ => put
                .condition_expression("#s = :s")
                .expression_attribute_names("#s", STATE)
                .expression_attribute_values(":s", AttributeValue::S(seen.name().to_owned())),
        };
        match put.send().await {
            Ok(_) => Ok(true),
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_conditional_check_failed_exception()) =>
            {
                Ok(false)
            }
            Err(error) => Err(failed(&self.table, "written", &error)),
        }
    }

    /// Notes what became of an entry that was begun.
    ///
    /// # Errors
    /// When the table does not take the note.
    pub async fn end(&mut self, id: &str, state: State) -> Result<()> {
        let written = match state {
            State::New => {
                let delete = self.client.delete_item().table_name(&self.table);
                let deleted = delete.set_key(Some(self.key(id))).send().await;
                deleted
                    .map(drop)
                    .map_err(|error| failed(&self.table, "written", &error))
            }
            state => {
                let put = self.note(id, state).send().await;
                put.map(drop)
                    .map_err(|error| failed(&self.table, "written", &error))
            }
        };
        self.states.insert(id.to_owned(), state);
        written
    }

    fn key(&self, id: &str) -> Item {
        let pk = AttributeValue::S(replayed_pk(&self.pipeline));
        let sk = AttributeValue::S(id.to_owned());
        HashMap::from([(self.keys.0.clone(), pk), (self.keys.1.clone(), sk)])
    }

    fn note(
        &self,
        id: &str,
        state: State,
    ) -> aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder {
        let put = self.client.put_item().table_name(&self.table);
        put.set_item(Some(self.key(id)))
            .item(STATE, AttributeValue::S(state.name().to_owned()))
            .item("at", AttributeValue::S(text_ms(now_ms())))
    }
}

fn text<'a>(row: &'a Item, name: &str) -> Result<&'a str> {
    let value = row.get(name).and_then(|value| value.as_s().ok());
    match value {
        Some(text) => Ok(text),
        None => bail!("a row of the dead letters has no text `{name}`"),
    }
}

fn bytes(row: &Item) -> Result<&[u8]> {
    let value = row.get("v").and_then(|value| value.as_b().ok());
    value
        .map(|blob| blob.as_ref())
        .context("a row of the dead letters has no bytes `v`")
}

fn failed<E>(
    table: &str,
    what: &str,
    error: &aws_sdk_dynamodb::error::SdkError<E, aws_smithy_runtime_api::http::Response>,
) -> anyhow::Error
where
    E: std::error::Error + aws_sdk_dynamodb::error::ProvideErrorMetadata + 'static,
{
    anyhow::anyhow!("table `{table}` cannot be {what}: {}", describe(error))
}
