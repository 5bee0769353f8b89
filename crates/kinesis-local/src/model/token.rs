//! Shard iterators and paging tokens: opaque, self-contained, and checked.

use md5::{Digest, Md5};

use super::{ShardFilter, ShardId};

/// Checks that a token came from this model, unchanged. This guards against
/// mistakes, not against attackers.
#[derive(Debug, Clone)]
pub(crate) struct TokenKey(u64);

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    Iterator {
        issued_ms: u64,
        stream: StreamRef,
        shard: ShardId,
        ordinal: u64,
    },
    Shards {
        issued_ms: u64,
        stream: StreamRef,
        filter: ShardFilter,
        after: ShardId,
    },
    Streams {
        issued_ms: u64,
        after: String,
    },
    Consumers {
        issued_ms: u64,
        stream: StreamRef,
        after: String,
    },
}

/// A stream by name and by the number that tells it from an earlier one of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StreamRef {
    pub(crate) name: String,
    pub(crate) uid: u64,
}

const VERSION: u8 = 1;
const CHECK_BYTES: usize = 16;

impl TokenKey {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn seal(&self, token: &Token) -> String {
        let mut body = vec![0, 0, 0, VERSION];
        token.write(&mut body);
        let check = self.check(&body);
        body.extend_from_slice(&check);
        base64_simd::STANDARD.encode_to_string(&body)
    }

    /// `None` for anything that this model did not issue.
    pub(crate) fn open(&self, text: &str) -> Option<Token> {
        let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
        let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
        if self.check(body) != check {
            return None;
        }
        let mut rest = body.strip_prefix(&[0, 0, 0, VERSION])?;
        let token = Token::read(&mut rest)?;
        rest.is_empty().then_some(token)
    }

    fn check(&self, body: &[u8]) -> [u8; CHECK_BYTES] {
        Md5::new()
            .chain_update(self.0.to_be_bytes())
            .chain_update(body)
            .chain_update(self.0.to_le_bytes())
            .finalize()
            .into()
    }
}

impl Token {
    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Iterator {
                issued_ms,
                stream,
                shard,
                ordinal,
            } => {
                out.push(0);
                put_u64(out, *issued_ms);
                put_stream(out, stream);
                put_u64(out, u64::from(shard.index()));
                put_u64(out, *ordinal);
            }
            Self::Shards {
                issued_ms,
                stream,
                filter,
                after,
            } => {
                out.push(1);
                put_u64(out, *issued_ms);
                put_stream(out, stream);
                put_filter(out, *filter);
                put_u64(out, u64::from(after.index()));
            }
            Self::Streams { issued_ms, after } => {
                out.push(2);
                put_u64(out, *issued_ms);
                put_text(out, after);
            }
            Self::Consumers {
                issued_ms,
                stream,
                after,
            } => {
                out.push(3);
                put_u64(out, *issued_ms);
                put_stream(out, stream);
                put_text(out, after);
            }
        }
    }

    fn read(input: &mut &[u8]) -> Option<Self> {
        let kind = get_u8(input)?;
        let issued_ms = get_u64(input)?;
        Some(match kind {
            0 => Self::Iterator {
                issued_ms,
                stream: get_stream(input)?,
                shard: get_shard(input)?,
                ordinal: get_u64(input)?,
            },
            1 => Self::Shards {
                issued_ms,
                stream: get_stream(input)?,
                filter: get_filter(input)?,
                after: get_shard(input)?,
            },
            2 => Self::Streams {
                issued_ms,
                after: get_text(input)?,
            },
            3 => Self::Consumers {
                issued_ms,
                stream: get_stream(input)?,
                after: get_text(input)?,
            },
            _ => return None,
        })
    }
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_be_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put_u64(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn put_stream(out: &mut Vec<u8>, stream: &StreamRef) {
    put_u64(out, stream.uid);
    put_text(out, &stream.name);
}

fn put_filter(out: &mut Vec<u8>, filter: ShardFilter) {
    let (kind, value) = match filter {
        ShardFilter::FromTrimHorizon => (0, 0),
        ShardFilter::AtTrimHorizon => (1, 0),
        ShardFilter::AtLatest => (2, 0),
        ShardFilter::AtTimestamp(at_ms) => (3, at_ms),
        ShardFilter::FromTimestamp(from_ms) => (4, from_ms),
        ShardFilter::AfterShardId(shard) => (5, u64::from(shard.index())),
    };
    out.push(kind);
    put_u64(out, value);
}

fn get_u8(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn get_u64(input: &mut &[u8]) -> Option<u64> {
    let (value, rest) = input.split_first_chunk()?;
    *input = rest;
    Some(u64::from_be_bytes(*value))
}

fn get_shard(input: &mut &[u8]) -> Option<ShardId> {
    Some(ShardId::new(u32::try_from(get_u64(input)?).ok()?))
}

fn get_text(input: &mut &[u8]) -> Option<String> {
    let length = usize::try_from(get_u64(input)?).ok()?;
    let (text, rest) = input.split_at_checked(length)?;
    *input = rest;
    String::from_utf8(text.to_vec()).ok()
}

fn get_stream(input: &mut &[u8]) -> Option<StreamRef> {
    let uid = get_u64(input)?;
    Some(StreamRef {
        uid,
        name: get_text(input)?,
    })
}

fn get_filter(input: &mut &[u8]) -> Option<ShardFilter> {
    let kind = get_u8(input)?;
    let value = get_u64(input)?;
    Some(match kind {
        0 => ShardFilter::FromTrimHorizon,
        1 => ShardFilter::AtTrimHorizon,
        2 => ShardFilter::AtLatest,
        3 => ShardFilter::AtTimestamp(value),
        4 => ShardFilter::FromTimestamp(value),
        5 => ShardFilter::AfterShardId(ShardId::new(u32::try_from(value).ok()?)),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_token() -> impl Strategy<Value = Token> {
        let filter = prop_oneof![
            Just(ShardFilter::FromTrimHorizon),
            Just(ShardFilter::AtTrimHorizon),
            Just(ShardFilter::AtLatest),
            any::<u64>().prop_map(ShardFilter::AtTimestamp),
            any::<u64>().prop_map(ShardFilter::FromTimestamp),
            any::<u32>().prop_map(|index| ShardFilter::AfterShardId(ShardId::new(index))),
        ];
        let stream = (any::<u64>(), ".{0,20}").prop_map(|(uid, name)| StreamRef { name, uid });
        prop_oneof![
            (any::<u64>(), stream.clone(), any::<u32>(), any::<u64>()).prop_map(
                |(issued_ms, stream, shard, ordinal)| {
                    Token::Iterator {
                        issued_ms,
                        stream,
                        shard: ShardId::new(shard),
                        ordinal,
                    }
                }
            ),
            (any::<u64>(), stream, filter, any::<u32>()).prop_map(
                |(issued_ms, stream, filter, after)| {
                    Token::Shards {
                        issued_ms,
                        stream,
                        filter,
                        after: ShardId::new(after),
                    }
                }
            ),
            (any::<u64>(), ".{0,20}")
                .prop_map(|(issued_ms, after)| Token::Streams { issued_ms, after }),
        ]
    }

    proptest! {
        #[test]
        fn tokens_round_trip_and_no_other_key_opens_them(token in any_token(), key: u64, other: u64) {
            let sealed = TokenKey::new(key).seal(&token);
            prop_assert_eq!(TokenKey::new(key).open(&sealed), Some(token));
            prop_assume!(key != other);
            prop_assert_eq!(TokenKey::new(other).open(&sealed), None);
        }

        #[test]
        fn one_changed_byte_is_noticed(token in any_token(), key: u64, at: prop::sample::Index, flip in 1u8..) {
            let key = TokenKey::new(key);
            let mut bytes = base64_simd::STANDARD.decode_to_vec(key.seal(&token)).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert_eq!(key.open(&base64_simd::STANDARD.encode_to_string(&bytes)), None);
        }

        #[test]
        fn arbitrary_text_never_opens(text in ".{0,200}", key: u64) {
            prop_assert_eq!(TokenKey::new(key).open(&text), None);
        }
    }
}
