//! Dead letters as a sink left them: in a file of JSON lines, in rows of a table, or in records of a topic.
//!
//! What was put back into a stream is noted beside them, in two steps: *begun* before the event is sent,
//! *replayed* once the stream has it. So an entry is put back once, whatever dies; one that is begun and no
//! more may be in the stream, and only its operator can say whether to send it again.

pub mod file;
pub mod replay;
pub mod table;
pub mod topic;

use anyhow::Result;
use millpond_format::origin::Origin;
use serde::{Deserialize, Serialize};

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Names the event for ever.
    pub id: String,
    /// Event time, milliseconds since the Unix epoch, 0 when unknown.
    pub time_ms: i64,
    /// Why, as a stable name.
    pub reason: String,
    /// What exactly was wrong.
    pub detail: String,
    /// Its record key, the origin.
    pub origin: Option<String>,
    /// Its group, if it has one.
    pub group: Option<String>,
    /// Its bytes, as they were produced.
    pub value: Vec<u8>,
    /// What became of it since.
    pub state: State,
}

/// What became of a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Nothing yet.
    #[default]
    New,
    /// It was being put back, and whether it is in the stream is not known.
    Begun,
    /// It was put back.
    Replayed,
}

impl State {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Begun => "begun",
            Self::Replayed => "replayed",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let all = [Self::New, Self::Begun, Self::Replayed];
        all.into_iter().find(|state| state.name() == name)
    }
}

/// Where an event goes when it is put back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// Kinesis stream.
    pub stream: String,
    /// Kinesis partition key.
    pub partition_key: String,
}

/// Why a dead letter is no event that can be put back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEvent {
    /// It tells of lost records.
    #[error("it is a gap: there is no event")]
    Gap,
    /// It holds packed events, whose partition keys are not known any more.
    #[error("it is a packed item that the table refused: its events are in its frames")]
    Item,
    /// Nothing says where it came from.
    #[error("its record key names no origin: give `--stream` and `--partition-key`")]
    NoOrigin,
}

impl Entry {
    /// True when its event may be in the table as well: put back, it could be there twice.
    #[must_use]
    pub fn is_in_doubt(&self) -> bool {
        self.reason == "after-gap-in-doubt"
    }

    /// Where the event came from; what is given goes before that.
    ///
    /// # Errors
    /// [`NoEvent`] when there is no event, or nowhere to put it.
    pub fn destination(
        &self,
        stream: Option<&str>,
        partition_key: Option<&str>,
    ) -> Result<Destination, NoEvent> {
        match self.reason.as_str() {
            "gap" => return Err(NoEvent::Gap),
            "item-refused" if self.origin.is_none() => return Err(NoEvent::Item),
            _ => {}
        }
        let origin = self.origin.as_deref().unwrap_or_default();
        let origin = Origin::parse(origin.as_bytes()).ok();
        let stream = stream.or(origin.as_ref().map(|origin| origin.stream));
        let key = partition_key.or(origin.as_ref().map(|origin| origin.partition_key));
        match (stream, key) {
            (Some(stream), Some(key)) => Ok(Destination {
                stream: stream.to_owned(),
                partition_key: key.to_owned(),
            }),
            _ => Err(NoEvent::NoOrigin),
        }
    }
}

/// Dead letters of one place, one after the other.
pub enum Letters {
    /// A file.
    File(file::FileLetters),
    /// A table.
    Table(table::TableLetters),
    /// A topic.
    Topic(topic::TopicLetters),
}

impl Letters {
    /// The next entry, each id once; `None` after the last one.
    ///
    /// # Errors
    /// When the place cannot be read, or holds what no sink wrote.
    pub async fn next(&mut self) -> Result<Option<Entry>> {
        match self {
            Self::File(file) => file.read(),
            Self::Table(table) => table.next().await,
            Self::Topic(topic) => topic.next().await,
        }
    }

    /// Notes durably that an entry is about to be put back. False when somebody else noted it since
    /// the entry was read.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub async fn begin(&mut self, entry: &Entry) -> Result<bool> {
        match self {
            Self::File(file) => file.note(&entry.id, State::Begun).map(|()| true),
            Self::Table(table) => table.begin(&entry.id, entry.state).await,
            Self::Topic(topic) => topic.begin(&entry.id).await,
        }
    }

    /// Notes durably what became of an entry that was begun: replayed, or new again.
    ///
    /// # Errors
    /// When it cannot be noted.
    pub async fn end(&mut self, entry: &Entry, state: State) -> Result<()> {
        match self {
            Self::File(file) => file.note(&entry.id, state),
            Self::Table(table) => table.end(&entry.id, state).await,
            Self::Topic(topic) => topic.end(&entry.id, state).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(reason: &str, origin: Option<&str>) -> Entry {
        Entry {
            id: "p/t/0/9/0".into(),
            time_ms: 0,
            reason: reason.into(),
            detail: String::new(),
            origin: origin.map(str::to_owned),
            group: None,
            value: Vec::new(),
            state: State::New,
        }
    }

    #[test]
    fn an_event_goes_where_it_came_from_or_where_it_is_told() {
        let to = |reason, origin, stream, key| {
            let found = entry(reason, origin).destination(stream, key);
            found.map(|to| format!("{}:{}", to.stream, to.partition_key))
        };
        let origin = Some("mp1/s/shardId-000000000000/1/0/1/1.0/k/1");
        assert_eq!(to("not-json", origin, None, None), Ok("s:k/1".into()));
        assert_eq!(
            to("item-refused", origin, Some("x"), None),
            Ok("x:k/1".into())
        );
        assert_eq!(to("not-json", origin, None, Some("y")), Ok("s:y".into()));
        assert_eq!(to("not-json", None, Some("x"), Some("y")), Ok("x:y".into()));
        assert_eq!(
            to("not-json", Some("?"), Some("x"), None),
            Err(NoEvent::NoOrigin)
        );
        assert_eq!(
            to("item-refused", None, Some("x"), Some("y")),
            Err(NoEvent::Item)
        );
        assert_eq!(to("gap", None, Some("x"), Some("y")), Err(NoEvent::Gap));
    }
}
