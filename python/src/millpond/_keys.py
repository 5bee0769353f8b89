"""Keys of rows and items, and the origin key: what `FORMAT.md` says under *Table* and *Origin key*."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone

from ._hashes import xxh3_64
from .envelope import is_sequence_number
from .errors import Corrupt, NewerVersion

MAX_TIME_MS = 253_402_207_199_999
PIPELINES_PK = "millpond:pipelines"
BUCKETS = 16
MAX_WRITE_SHARDS = 1_024

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SORT_KEY = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z)/(\d{19})/(\d{5})", re.ASCII)
_NUMBER = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


def time_text(time_ms: int) -> str:
    """A time as it starts a sort key."""
    at = EPOCH + timedelta(milliseconds=min(max(time_ms, 0), MAX_TIME_MS))
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03}Z"


@dataclass(frozen=True)
class SortKey:
    """Sort key of an item."""

    sort_time_ms: int
    base_offset: int
    envelope_index: int


def parse_sort_key(text: str) -> SortKey | None:
    """`None` for anything that Millpond did not write."""
    found = _SORT_KEY.fullmatch(text)
    if found is None:
        return None
    try:
        at = datetime.strptime(found[1], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    time_ms = (at - EPOCH) // timedelta(milliseconds=1)
    if not 0 <= time_ms <= MAX_TIME_MS:
        return None
    return SortKey(time_ms, int(found[2]), int(found[3]))


def chain_pk(pipeline: str, group: str, partition: int, write_shard: int = 0) -> str:
    """Partition key of a write shard of a chain; that of the first is the chain's own."""
    return f"{pipeline}/{directory_sk(group, partition, write_shard)}"


def bucket_pk(pipeline: str, bucket: int) -> str:
    return f"millpond:groups/{pipeline}/{bucket:02x}"


def directory_pk(pipeline: str, group: str) -> str:
    return bucket_pk(pipeline, xxh3_64(group.encode()) % BUCKETS)


def ledger_pk(pipeline: str, topic: str) -> str:
    return f"millpond:ledger/{pipeline}/{topic}"


def directory_sk(group: str, partition: int, write_shard: int = 0) -> str:
    return f"{group}#{partition}" if write_shard == 0 else f"{group}#{partition}.{write_shard}"


def parse_directory_sk(text: str) -> tuple[str, int, int] | None:
    """Group, topic partition and write shard of a directory row."""
    group, mark, place = text.rpartition("#")
    partition, point, write_shard = place.partition(".")
    if not mark or not group or not _NUMBER.fullmatch(partition):
        return None
    if not point:
        return group, int(partition), 0
    if not _NUMBER.fullmatch(write_shard) or not 0 < int(write_shard) < MAX_WRITE_SHARDS:
        return None
    return group, int(partition), int(write_shard)


@dataclass(frozen=True)
class Origin:
    """Where in the stream an event was read."""

    stream: str
    shard: str
    sequence: str
    sub_sequence: int
    arrival_ms: int
    epoch: int
    ordinal: int
    partition_key: str


def parse_origin(text: str) -> Origin:
    """Reads an origin key."""
    version = re.match(r"mp([1-9][0-9]{0,3})/", text, re.ASCII)
    if version is None:
        raise Corrupt("origin key")
    if version[1] != "1":
        raise NewerVersion("the origin key", int(version[1]), 1)
    parts = text.split("/", 7)
    if len(parts) != 8:
        raise Corrupt("origin key")
    _, stream, shard, sequence, sub, arrival, link, key = parts
    epoch, _, ordinal = link.partition(".")
    unsigned = arrival[1:] if arrival.startswith("-") else arrival
    fits = (
        _NAME.fullmatch(stream)
        and _NAME.fullmatch(shard)
        and is_sequence_number(sequence)
        and all(_NUMBER.fullmatch(number) for number in (sub, unsigned, epoch, ordinal))
        and arrival != "-0"
        and int(sub) < 1 << 32
        and max(int(epoch), int(ordinal)) < 1 << 64
        and -(1 << 63) <= int(arrival) < 1 << 63
    )
    if not fits:
        raise Corrupt("origin key")
    return Origin(stream, shard, sequence, int(sub), int(arrival), int(epoch), int(ordinal), key)
