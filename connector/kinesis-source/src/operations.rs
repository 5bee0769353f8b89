//! Every call of AWS that this source makes, and the policy that allows them.
//!
//! A test compares the list with the calls in the code, and the policies in the README with [`policy`].

use serde_json::{Value, json};

/// What a source is told to do, as far as it needs other calls for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Reads the stream, with its checkpoint on disk. Also `retention-guard: warn` and `shard-scaling: advise`.
    Read,
    /// `mode: fan-out`; those of reading stay needed, for `fall-back` and doubtful ends.
    FanOut,
    /// `remove-consumer` with it.
    RemoveConsumer,
    /// `lease-table`.
    Leases,
    /// `create-lease-table`, until the tables are there.
    CreateLeases,
    /// `retention-guard: extend`.
    Extend,
    /// `retention-give-back` with it.
    GiveBack,
    /// `shard-scaling: auto`.
    Scale,
}

impl Mode {
    /// Every mode, in the order of the README.
    pub const ALL: [Self; 8] = [
        Self::Read,
        Self::FanOut,
        Self::RemoveConsumer,
        Self::Leases,
        Self::CreateLeases,
        Self::Extend,
        Self::GiveBack,
        Self::Scale,
    ];

    /// Its calls.
    #[must_use]
    pub const fn operations(self) -> &'static [&'static str] {
        match self {
            Self::Read => &[
                "DescribeStreamSummary",
                "GetRecords",
                "GetShardIterator",
                "ListShards",
            ],
            Self::FanOut => &[
                "DescribeStreamConsumer",
                "RegisterStreamConsumer",
                "SubscribeToShard",
            ],
            Self::RemoveConsumer => &["DeregisterStreamConsumer"],
            Self::Leases => &[
                "DeleteItem",
                "DescribeTable",
                "GetItem",
                "PutItem",
                "Scan",
                "UpdateItem",
            ],
            Self::CreateLeases => &["CreateTable"],
            Self::Extend => &["IncreaseStreamRetentionPeriod"],
            Self::GiveBack => &["DecreaseStreamRetentionPeriod"],
            Self::Scale => &["UpdateShardCount"],
        }
    }

    const fn is_of_tables(self) -> bool {
        matches!(self, Self::Leases | Self::CreateLeases)
    }
}

/// The policy that allows the calls of one mode on a stream `STREAM` and a lease table `TABLE`; those of several modes are
/// put together.
#[must_use]
pub fn policy(mode: Mode) -> Value {
    let (prefix, resource) = if mode.is_of_tables() {
        let table = "arn:aws:dynamodb:REGION:ACCOUNT:table/TABLE";
        ("dynamodb", json!([table, format!("{table}-millpond")]))
    } else {
        let stream = "arn:aws:kinesis:REGION:ACCOUNT:stream/STREAM";
        match mode {
            Mode::FanOut | Mode::RemoveConsumer => {
                ("kinesis", json!([stream, format!("{stream}/consumer/*")]))
            }
            _ => ("kinesis", json!([stream])),
        }
    };
    let operations = mode.operations().iter();
    let actions: Vec<String> = operations.map(|name| format!("{prefix}:{name}")).collect();
    json!({
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": actions, "Resource": resource}],
    })
}
