//! Reads a table as `FORMAT.md` says, and shares no code with what wrote it.
//!
//! Written from that page alone: its own varints, checksums, headers and frames; only zstd and
//! the AWS SDK's types come from elsewhere. Slow, plain, and with an opinion about every byte. What
//! it says is compared with `millpond verify`, and tests that kill processes ask it whether every
//! event is there once and in order.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use aws_sdk_dynamodb::types::AttributeValue;

/// An item as DynamoDB gives it.
pub type Item = HashMap<String, AttributeValue>;

/// Stream, shard and epoch.
pub type Numbering = (String, String, u64);

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundEvent {
    /// Numbering that its ordinal belongs to.
    pub numbering: Numbering,
    /// Ordinal within it.
    pub ordinal: u64,
    /// Event time, milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The event.
    pub value: Vec<u8>,
}

/// An event that must be in the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectedEvent {
    /// Kinesis partition key: events of one keep their order.
    pub partition_key: String,
    /// The event.
    pub value: Vec<u8>,
}

/// What a table holds.
#[derive(Debug, Default)]
pub struct Checked {
    /// Events by chain, named by the partition key of its write shard 0, in the order of the sort keys of all its
    /// write shards.
    pub chains: BTreeMap<String, Vec<FoundEvent>>,
    /// What is wrong, in words.
    pub problems: Vec<String>,
}

/// Gives items back the names and partition keys of the page, by what the registration of the pipeline says.
#[must_use]
pub fn as_on_the_page(items: &[Item], pipeline: &str) -> Vec<Item> {
    let registration = items.iter().find(|item| {
        text(item, "pk") == Some("millpond:pipelines") && text(item, "sk") == Some(pipeline)
    });
    let said = |name: &str| {
        registration
            .and_then(|row| text(row, name))
            .unwrap_or_default()
    };
    let prefix = said("prefix");
    let names: BTreeMap<String, String> = serde_json::from_str(said("names")).unwrap_or_default();
    let plain = |item: &Item| {
        let pk = text(item, "pk").unwrap_or_default();
        let Some(pk) = pk
            .strip_prefix(prefix)
            .filter(|_| !pk.starts_with("millpond:"))
        else {
            return item.clone();
        };
        let mut item = item.clone();
        item.insert("pk".into(), AttributeValue::S(pk.to_owned()));
        for (name, stored) in &names {
            item.remove(name);
            if let Some(value) = item.remove(stored) {
                item.insert(name.clone(), value);
            }
        }
        item
    };
    items.iter().map(plain).collect()
}

/// Reads every item of a pipeline.
#[must_use]
pub fn check(items: &[Item], pipeline: &str) -> Checked {
    let mut sorted: Vec<(&str, &str, &str, &Item)> = Vec::new();
    let prefix = format!("{pipeline}/");
    for item in items {
        let (Some(pk), Some(sk)) = (text(item, "pk"), text(item, "sk")) else {
            continue;
        };
        if pk.starts_with(&prefix) {
            sorted.push((chain_of(pk), sk, pk, item));
        }
    }
    sorted.sort_by_key(|(chain, sk, pk, _)| (*chain, *sk, *pk));
    let mut checked = Checked::default();
    let listed = listed(items, pipeline);
    let mut totals = [0u64; 4];
    let mut last_chain = "";
    let mut last_sk = "";
    let mut parts: Vec<u8> = Vec::new();
    for (name, sk, pk, item) in sorted {
        if name != last_chain {
            (last_chain, last_sk, totals) = (name, "", [0; 4]);
            parts.clear();
        }
        if sk == last_sk {
            checked
                .problems
                .push(format!("{pk} {sk}: is there under two keys"));
        }
        last_sk = sk;
        if !listed.contains(pk) {
            checked
                .problems
                .push(format!("{pk} {sk}: the directory does not list it"));
        }
        let chain = checked.chains.entry(name.to_owned()).or_default();
        let read = read_item(name, sk, item, &mut totals, &mut parts, chain);
        if let Err(problem) = read {
            checked.problems.push(format!("{pk} {sk}: {problem}"));
        }
    }
    checked.check_ordinals();
    checked
}

/// The partition key without the write shard.
fn chain_of(pk: &str) -> &str {
    let Some(mark) = pk.rfind('#') else {
        return pk;
    };
    match pk[mark..].find('.') {
        Some(point) => &pk[..mark + point],
        None => pk,
    }
}

/// Partition keys that the directory lists.
fn listed(items: &[Item], pipeline: &str) -> BTreeSet<String> {
    let prefix = format!("millpond:groups/{pipeline}/");
    let rows = items
        .iter()
        .filter(|row| text(row, "pk").is_some_and(|pk| pk.starts_with(&prefix)));
    rows.filter_map(|row| Some(format!("{pipeline}/{}", text(row, "sk")?)))
        .collect()
}

impl Checked {
    /// Events in all.
    #[must_use]
    pub fn len(&self) -> usize {
        self.chains.values().map(Vec::len).sum()
    }

    /// True without an event.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every ordinal of a numbering once, without a hole, over all groups of a topic partition.
    fn check_ordinals(&mut self) {
        let mut seen: BTreeMap<(String, Numbering), BTreeSet<u64>> = BTreeMap::new();
        for (pk, events) in &self.chains {
            let partition = pk.rsplit('#').next().unwrap_or_default();
            for event in events {
                let place = (partition.to_owned(), event.numbering.clone());
                if !seen.entry(place).or_default().insert(event.ordinal) {
                    let FoundEvent {
                        numbering, ordinal, ..
                    } = event;
                    let problem = format!("{numbering:?} ordinal {ordinal} is there twice");
                    self.problems.push(problem);
                }
            }
        }
        for ((partition, numbering), ordinals) in seen {
            let (Some(first), Some(last)) = (ordinals.first(), ordinals.last()) else {
                continue;
            };
            let missing = last - first + 1 - ordinals.len() as u64;
            if missing > 0 {
                self.problems.push(format!(
                    "topic partition {partition}, {numbering:?}: {missing} ordinals missing between {first} and {last}"
                ));
            }
        }
    }

    /// Problems, and differences from the events that must be there: in the order in which those
    /// of one partition key were sent.
    #[must_use]
    pub fn compare(&self, expected: &[ExpectedEvent]) -> Vec<String> {
        let mut differences = self.problems.clone();
        let mut places: HashMap<&[u8], Vec<(&str, usize)>> = HashMap::new();
        for (pk, events) in &self.chains {
            for (index, event) in events.iter().enumerate() {
                let place = (pk.as_str(), index);
                places.entry(&event.value).or_default().push(place);
            }
        }
        let mut before: HashMap<(&str, &str), usize> = HashMap::new();
        for event in expected {
            let name = String::from_utf8_lossy(&event.value[..event.value.len().min(60)]);
            let Some(found) = places.get_mut(event.value.as_slice()) else {
                differences.push(format!("lost: {name}"));
                continue;
            };
            if found.is_empty() {
                differences.push(format!("lost one of several equal ones: {name}"));
                continue;
            }
            let (pk, index) = found.remove(0);
            let last = before.insert((pk, &event.partition_key), index);
            if last.is_some_and(|last| last >= index) {
                differences.push(format!("out of order: {name}"));
            }
        }
        for (value, left) in places {
            if !left.is_empty() {
                let name = String::from_utf8_lossy(&value[..value.len().min(60)]);
                let count = left.len();
                differences.push(format!("{count} too many: {name}"));
            }
        }
        differences
    }
}

fn text<'a>(item: &'a Item, name: &str) -> Option<&'a str> {
    item.get(name)?.as_s().ok().map(String::as_str)
}

fn number(item: &Item, name: &str) -> Option<i64> {
    item.get(name)?.as_n().ok()?.parse().ok()
}

fn bytes<'a>(item: &'a Item, name: &str) -> Option<&'a [u8]> {
    Some(item.get(name)?.as_b().ok()?.as_ref())
}

type Fault = String;

/// Bytes still to be read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Fault> {
        if count > self.0.len() {
            return Err(format!("{count} bytes wanted, {} there", self.0.len()));
        }
        let (head, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(head)
    }

    fn byte(&mut self) -> Result<u8, Fault> {
        Ok(self.take(1)?[0])
    }

    /// LEB128 in its shortest form.
    fn varint(&mut self) -> Result<u64, Fault> {
        let mut value: u128 = 0;
        for index in 0..10 {
            let byte = self.byte()?;
            value |= u128::from(byte & 127) << (7 * index);
            if byte < 128 {
                if index > 0 && byte == 0 {
                    return Err("a varint is longer than need be".into());
                }
                return u64::try_from(value).map_err(|_| "a varint is too large".to_owned());
            }
        }
        Err("a varint does not end".into())
    }

    fn zigzag(&mut self) -> Result<i64, Fault> {
        let value = self.varint()?;
        Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    fn text(&mut self) -> Result<String, Fault> {
        let length = self.varint()? as usize;
        let text = self.take(length)?.to_vec();
        String::from_utf8(text).map_err(|error| error.to_string())
    }

    fn u32(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }
}

/// CRC-32C (Castagnoli), bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 * (crc & 1));
        }
    }
    !crc
}

struct Source {
    numbering: Numbering,
    first: u64,
    last: u64,
    count: u64,
}

struct Frame {
    packed: usize,
    raw: usize,
    events: u64,
    event_bytes: u64,
    first_ms: i64,
    last_ms: i64,
    crc: u32,
    sources: Vec<usize>,
}

struct PartOf {
    index: u64,
    count: u64,
    bytes: u64,
    crc: u32,
}

struct Head {
    part: Option<PartOf>,
    is_zstd: bool,
    group: String,
    offset: u64,
    totals: [u64; 4],
    sources: Vec<Source>,
    frames: Vec<Frame>,
}

fn read_head(section: &[u8]) -> Result<Head, Fault> {
    let mut all = Bytes(section);
    if all.take(3)? != b"MPE" {
        return Err("header: no magic".into());
    }
    if all.byte()? != 1 {
        return Err("header: another version".into());
    }
    let length = all.u32()? as usize;
    let mut body = Bytes(all.take(length)?);
    let crc = all.u32()?;
    if !all.0.is_empty() {
        return Err("header: something follows it".into());
    }
    if crc32c(&section[..8 + length]) != crc {
        return Err("header: checksum".into());
    }
    let part = match body.byte()? {
        0 => None,
        1 => Some(PartOf {
            index: body.varint()?,
            count: body.varint()?,
            bytes: body.varint()?,
            crc: body.u32()?,
        }),
        other => return Err(format!("header: kind {other} in a table")),
    };
    let is_zstd = match body.byte()? {
        0 => false,
        1 => match body.varint()? {
            0 => true,
            other => return Err(format!("header: dictionary {other}")),
        },
        other => return Err(format!("header: codec {other}")),
    };
    let group = body.text()?;
    let offset = body.varint()?;
    body.varint()?;
    if body.byte()? != 1 {
        return Err("header: its place is not in a chain".into());
    }
    let mut totals = [0; 4];
    for total in &mut totals {
        *total = body.varint()?;
    }
    let mut sources = Vec::new();
    for _ in 0..body.varint()? {
        let (stream, shard, epoch) = (body.text()?, body.text()?, body.varint()?);
        let first = body.varint()?;
        let last = first + body.varint()?;
        let count = body.varint()?;
        for _ in 0..2 {
            body.text()?;
            body.varint()?;
        }
        sources.push(Source {
            numbering: (stream, shard, epoch),
            first,
            last,
            count,
        });
    }
    let mut frames: Vec<Frame> = Vec::new();
    for _ in 0..body.varint()? {
        let (packed, raw) = (body.varint()? as usize, body.varint()? as usize);
        if raw > 1_179_648 {
            return Err("header: a frame is too large".into());
        }
        let (events, event_bytes) = (body.varint()?, body.varint()?);
        let before = frames.last().map_or(0, |frame| frame.first_ms);
        let first_ms = before.wrapping_add(body.zigzag()?);
        let last_ms = first_ms.wrapping_add(body.varint()? as i64);
        let crc = body.u32()?;
        let mut own = Vec::new();
        for _ in 0..body.varint()? {
            own.push(body.varint()? as usize);
        }
        frames.push(Frame {
            packed,
            raw,
            events,
            event_bytes,
            first_ms,
            last_ms,
            crc,
            sources: own,
        });
    }
    if !body.0.is_empty() {
        return Err("header: something is left over".into());
    }
    Ok(Head {
        part,
        is_zstd,
        group,
        offset,
        totals,
        sources,
        frames,
    })
}

/// Reads one item and appends its events to its chain.
fn read_item(
    pk: &str,
    sk: &str,
    item: &Item,
    totals: &mut [u64; 4],
    parts: &mut Vec<u8>,
    chain: &mut Vec<FoundEvent>,
) -> Result<(), Fault> {
    let Some(section) = bytes(item, "h") else {
        *totals = [0; 4];
        chain.push(read_plain(item)?);
        return Ok(());
    };
    let head = read_head(section)?;
    let group = pk
        .split_once('/')
        .and_then(|(_, rest)| rest.rsplit_once('#'));
    if group.map(|(group, _)| group) != Some(head.group.as_str()) {
        return Err(format!("header: of group `{}`", head.group));
    }
    let fields: Vec<&str> = sk.split('/').collect();
    if fields.len() != 3 || fields[1].parse() != Ok(head.offset) {
        return Err("the sort key is not of this item".into());
    }
    let counted: u64 = head.frames.iter().map(|frame| frame.events).sum();
    let packed: usize = head.frames.iter().map(|frame| frame.packed).sum();
    let event_bytes: u64 = head.frames.iter().map(|frame| frame.event_bytes).sum();
    for (total, more) in totals
        .iter_mut()
        .zip([1, counted, event_bytes, packed as u64])
    {
        *total += more;
    }
    let expected = std::mem::replace(totals, head.totals);
    if expected != head.totals {
        return Err(format!(
            "totals are {:?}, by the items before they must be {expected:?}",
            head.totals
        ));
    }
    let first_ms = head.frames.iter().map(|frame| frame.first_ms).min();
    let last_ms = head.frames.iter().map(|frame| frame.last_ms).max();
    for (name, value) in [
        ("n", Some(counted as i64)),
        ("t0", first_ms),
        ("t1", last_ms),
    ] {
        if number(item, name) != value {
            return Err(format!("`{name}` is not what the header says"));
        }
    }
    let payload = bytes(item, "d").ok_or("no `d`")?;
    if payload.len() != packed {
        return Err(format!(
            "`d` has {} bytes, must have {packed}",
            payload.len()
        ));
    }
    let mut rest = Bytes(payload);
    let mut counts = vec![0u64; head.sources.len()];
    for (index, frame) in head.frames.iter().enumerate() {
        let events = read_frame(&head, frame, rest.take(frame.packed)?)
            .map_err(|fault| format!("frame {index}: {fault}"))?;
        for (source, event) in events {
            counts[source] += 1;
            match &head.part {
                None => chain.push(event),
                Some(part) => chain.extend(read_part(part, event, parts)?),
            }
        }
    }
    let is_as_said = |(source, count): (&Source, &u64)| source.count == *count;
    if head.part.is_none() && !head.sources.iter().zip(&counts).all(is_as_said) {
        return Err("sources count other events than the frames hold".into());
    }
    Ok(())
}

/// Takes a part; answers the event with the last one.
fn read_part(
    part: &PartOf,
    event: FoundEvent,
    parts: &mut Vec<u8>,
) -> Result<Option<FoundEvent>, Fault> {
    if part.index == 0 {
        parts.clear();
    }
    parts.extend_from_slice(&event.value);
    if part.index + 1 < part.count {
        return Ok(None);
    }
    let value = std::mem::take(parts);
    if value.len() as u64 != part.bytes || crc32c(&value) != part.crc {
        return Err("the parts are not the event".into());
    }
    Ok(Some(FoundEvent { value, ..event }))
}

fn read_frame(
    head: &Head,
    frame: &Frame,
    packed: &[u8],
) -> Result<Vec<(usize, FoundEvent)>, Fault> {
    if crc32c(packed) != frame.crc {
        return Err("checksum".into());
    }
    let raw = match head.is_zstd {
        true => zstd::bulk::decompress(packed, frame.raw).map_err(|error| error.to_string())?,
        false => packed.to_vec(),
    };
    if raw.len() != frame.raw {
        return Err(format!("{} raw bytes, must be {}", raw.len(), frame.raw));
    }
    let mut rest = Bytes(&raw);
    let count = rest.varint()? as usize;
    if count > raw.len() {
        return Err("more events than bytes".into());
    }
    let mut lengths = Vec::new();
    for _ in 0..count {
        lengths.push(rest.varint()? as usize);
    }
    let mut times = Vec::new();
    let mut time = 0i64;
    for _ in 0..count {
        time = time.wrapping_add(rest.zigzag()?);
        if !(frame.first_ms..=frame.last_ms).contains(&time) {
            return Err("an event's time is outside of its frame's".into());
        }
        times.push(time);
    }
    let mut numbers = Vec::new();
    for _ in 0..count {
        let number = rest.varint()? as usize;
        let source = frame.sources.get(number).ok_or("an unknown source")?;
        numbers.push((number, *source));
    }
    let mut last = vec![0u64; frame.sources.len()];
    let mut events = Vec::new();
    let mut ordinals = Vec::new();
    for (number, source) in &numbers {
        last[*number] = last[*number].wrapping_add(rest.zigzag()? as u64);
        let of = head.sources.get(*source).ok_or("an unknown source")?;
        if !(of.first..=of.last).contains(&last[*number]) {
            return Err("an ordinal is outside of its source's".into());
        }
        ordinals.push((*source, last[*number]));
    }
    for (index, (source, ordinal)) in ordinals.into_iter().enumerate() {
        let value = rest.take(lengths[index])?.to_vec();
        let event = FoundEvent {
            numbering: head.sources[source].numbering.clone(),
            ordinal,
            time_ms: times[index],
            value,
        };
        events.push((source, event));
    }
    if !rest.0.is_empty() {
        return Err("something is left over".into());
    }
    Ok(events)
}

/// An item of one event: `v`, with its origin in `o`.
fn read_plain(item: &Item) -> Result<FoundEvent, Fault> {
    let value = bytes(item, "v").ok_or("neither `h` nor `v`")?.to_vec();
    let origin = text(item, "o").ok_or("no `o`")?;
    let fields: Vec<&str> = origin.splitn(8, '/').collect();
    let [version, stream, shard, _, _, _, link, _] = fields.as_slice() else {
        return Err(format!("`o` is `{origin}`"));
    };
    let (epoch, ordinal) = link.split_once('.').ok_or("`o` has no chain link")?;
    if *version != "mp1" {
        return Err(format!("`o` has version `{version}`"));
    }
    let parse = |text: &str| text.parse::<u64>().map_err(|error| error.to_string());
    Ok(FoundEvent {
        numbering: ((*stream).to_owned(), (*shard).to_owned(), parse(epoch)?),
        ordinal: parse(ordinal)?,
        time_ms: number(item, "t0").ok_or("no `t0`")?,
        value,
    })
}
