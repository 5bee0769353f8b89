"""Events of a table: what `FORMAT.md` says under *Items* and *Slicing*."""

from __future__ import annotations

import heapq
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NoReturn, Protocol, Union

from . import _keys as keys
from ._hashes import crc32c
from .envelope import ChainTotals, FrameEvent, Header, Part, Reject, decode_frame, decode_header
from .errors import (
    Corrupt,
    DamagedItem,
    DecodeError,
    KeySchema,
    MappedPipeline,
    NewerVersion,
    NoPipeline,
    NoSuchGroup,
    SeveralPipelines,
)

Time = Union[int, datetime, None]
_Item = Mapping[str, Any]
_LAYOUT = 2


class Client(Protocol):
    """What is used of a boto3 DynamoDB client."""

    @property
    def describe_table(self) -> Callable[..., Any]: ...

    @property
    def query(self) -> Callable[..., Any]: ...


@dataclass(frozen=True)
class Event:
    """An event, byte for byte as it was produced, and where it came from."""

    value: bytes
    time_ms: int
    """Event time, milliseconds since the Unix epoch."""
    topic_partition: int
    stream: str
    shard: str
    epoch: int
    ordinal: int
    pk: str
    sk: str
    """Key of the item that holds it, or its last part."""


@dataclass(frozen=True)
class _Chain:
    partition: int
    write_shards: int
    late_ms: int


class Table:
    """Reads what one pipeline wrote into one table.

    `pipeline` is needed only when several wrote it; `consistent` reads items strongly consistent, at twice the read
    units; `client` is a boto3 DynamoDB client, by default one of the usual AWS environment.
    """

    def __init__(
        self,
        name: str,
        *,
        pipeline: str | None = None,
        client: Client | None = None,
        consistent: bool = False,
    ) -> None:
        self.name = name
        self.consistent = consistent
        self._client = client if client is not None else _default_client()
        self._pk, self._sk = self._key_names()
        self.pipeline, row = self._find_pipeline(pipeline)
        self._topic = _text(row, "topic")
        self._ledger = _text(row, "ledger") or name
        self._prefix = _text(row, "prefix") or ""
        self._names = _item_names(row)

    def groups(self) -> Iterator[str]:
        """Names of the groups, each once."""
        for bucket in range(keys.BUCKETS):
            seen: set[str] = set()
            for row in self._query(self.name, keys.bucket_pk(self.pipeline, bucket), consistent=True):
                group, _ = self._directory_row(row)
                if group not in seen:
                    seen.add(group)
                    yield group

    def read(self, group: str, start: Time = None, end: Time = None) -> Iterator[Event]:
        """Events of a group with `start <= time < end`, in order."""
        from_ms, to_ms = max(_millis(start, 0), 0), _millis(end, 1 << 62)
        # Before any item: what is not committed by then may be incomplete; and before the directory: what is
        # committed by then is in write shards that it lists.
        committed = self._committed()
        chains = self._chains(group)
        if not chains:
            raise NoSuchGroup(f"table `{self.name}` holds no group `{group}` of pipeline `{self.pipeline}`")
        if from_ms >= to_ms:
            return iter(())
        read = (
            self._chain(group, chain, from_ms, to_ms, committed.get(chain.partition)) for chain in chains
        )
        return heapq.merge(*read, key=lambda event: (event.time_ms, event.topic_partition))

    def _key_names(self) -> tuple[str, str]:
        table = self._client.describe_table(TableName=self.name)["Table"]
        types = {at["AttributeName"]: at["AttributeType"] for at in table["AttributeDefinitions"]}
        names = {element["KeyType"]: element["AttributeName"] for element in table["KeySchema"]}
        if set(names) != {"HASH", "RANGE"} or {types[name] for name in names.values()} != {"S"}:
            raise KeySchema(f"table `{self.name}` needs a partition key and a sort key of type S")
        return names["HASH"], names["RANGE"]

    def _find_pipeline(self, wanted: str | None) -> tuple[str, _Item]:
        rows = {row[self._sk]["S"]: row for row in self._query(self.name, keys.PIPELINES_PK, consistent=True)}
        known = ", ".join(f"`{name}`" for name in rows) or "none"
        if wanted is None and len(rows) > 1:
            raise SeveralPipelines(f"table `{self.name}` holds several pipelines, name one of {known}")
        name = wanted if wanted is not None else next(iter(rows), None)
        if name is None or name not in rows:
            raise NoPipeline(f"table `{self.name}` holds no pipeline `{wanted or ''}`, only {known}")
        version = _number(rows[name], "version")
        if version is not None and version > _LAYOUT:
            raise NewerVersion(f"pipeline `{name}` of table `{self.name}`", version, _LAYOUT)
        if "mapped" in rows[name]:
            problem = "writes mapped events: read them by their own keys"
            raise MappedPipeline(f"pipeline `{name}` of table `{self.name}` {problem}")
        return name, rows[name]

    def _directory_row(self, row: _Item) -> tuple[str, _Chain]:
        found = keys.parse_directory_sk(row[self._sk]["S"])
        late = _number(row, "late")
        if found is None or late is None or late < 0:
            self._damaged(row, "not a row of the directory of groups")
        group, partition, write_shard = found
        return group, _Chain(partition, write_shard + 1, late)

    def _chains(self, group: str) -> list[_Chain]:
        pk = keys.directory_pk(self.pipeline, group)
        rows = self._query(self.name, pk, prefix=f"{group}#", consistent=True)
        chains: dict[int, _Chain] = {}
        for name, chain in map(self._directory_row, rows):
            # The prefix also finds groups whose own name goes on after a `#`.
            if name == group:
                known = chains.get(chain.partition, chain)
                write_shards = max(known.write_shards, chain.write_shards)
                late_ms = max(known.late_ms, chain.late_ms)
                chains[chain.partition] = _Chain(chain.partition, write_shards, late_ms)
        return [chains[partition] for partition in sorted(chains)]

    def _committed(self) -> dict[int, int]:
        if self._topic is None:
            return {}
        pk = keys.ledger_pk(self.pipeline, self._topic)
        rows = self._query(self._ledger, pk, consistent=True, attribute="committed")
        found = ((row[self._sk]["S"], _number(row, "committed")) for row in rows)
        return {int(sk): committed for sk, committed in found if sk.isdigit() and committed is not None}

    def _query(
        self,
        table: str,
        pk: str,
        *,
        consistent: bool,
        prefix: str | None = None,
        bounds: tuple[str | None, str | None] = (None, None),
        after: str | None = None,
        attribute: str | None = None,
    ) -> Iterator[_Item]:
        names, values = {"#pk": self._pk}, {":pk": {"S": pk}}
        condition = "#pk = :pk"
        low, high = (prefix, None) if prefix is not None else bounds
        if low is not None:
            values[":low"] = {"S": low}
        if high is not None:
            values[":high"] = {"S": high}
        if prefix is not None:
            condition += " AND begins_with(#sk, :low)"
        elif low is not None and high is not None:
            # Both ends included, but no item's key is a bare time.
            condition += " AND #sk BETWEEN :low AND :high"
        elif low is not None:
            condition += " AND #sk >= :low"
        elif high is not None:
            condition += " AND #sk < :high"
        if low is not None or high is not None or attribute is not None:
            names["#sk"] = self._sk
        arguments: dict[str, Any] = {
            "TableName": table,
            "KeyConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            "ConsistentRead": consistent,
        }
        if attribute is not None:
            names["#attribute"] = attribute
            arguments["ProjectionExpression"] = "#pk, #sk, #attribute"
        if after is not None:
            arguments["ExclusiveStartKey"] = {self._pk: {"S": pk}, self._sk: {"S": after}}
        while True:
            page = self._client.query(**arguments)
            yield from page["Items"]
            if "LastEvaluatedKey" not in page:
                return
            arguments["ExclusiveStartKey"] = page["LastEvaluatedKey"]

    def _chain(
        self, group: str, chain: _Chain, from_ms: int, to_ms: int, committed: int | None
    ) -> Iterator[Event]:
        end = to_ms + chain.late_ms
        bounds = (
            keys.time_text(from_ms) if from_ms > 0 else None,
            keys.time_text(end) if end <= keys.MAX_TIME_MS else None,
        )
        consistent, after = self.consistent, None
        while True:
            reading = _Reading(self, group, chain.partition, from_ms, to_ms)
            last = after
            try:
                for item in self._gather(group, chain, consistent, bounds, after):
                    if not reading.is_open:
                        after = last
                    yield from reading.item(self._renamed(item))
                    last = item[self._sk]["S"]
                reading.end()
                return
            except _Broken as broken:
                if committed is not None and broken.base_offset >= committed:
                    # A plan that is being written: what follows in this chain belongs to it, too.
                    return
                if consistent:
                    raise broken.damage from None
                # Seen too early by an eventually consistent read: again from before the event.
                consistent = True

    def _renamed(self, item: _Item) -> _Item:
        """The item with the names of the page; what has one of them without being meant is left out."""
        if not self._names:
            return item
        rest = {name: value for name, value in item.items() if name not in self._names}
        theirs = {name: item[stored] for name, stored in self._names.items() if stored in item}
        for stored in self._names.values():
            rest.pop(stored, None)
        return rest | theirs

    def _gather(
        self,
        group: str,
        chain: _Chain,
        consistent: bool,
        bounds: tuple[str | None, str | None],
        after: str | None,
    ) -> Iterator[_Item]:
        """Items of a chain in order, a page at a time of each of its write shards."""
        pks = (
            self._prefix + keys.chain_pk(self.pipeline, group, chain.partition, write_shard)
            for write_shard in range(chain.write_shards)
        )
        read = (
            self._query(self.name, pk, consistent=consistent, bounds=bounds, after=after) for pk in pks
        )

        def sort_key(item: _Item) -> str:
            text: str = item[self._sk]["S"]
            return text

        return heapq.merge(*read, key=sort_key)

    def _damaged(self, item: _Item, problem: str, cause: Exception | None = None) -> NoReturn:
        raise self._damage(item, problem) from cause

    def _damage(self, item: _Item, problem: str) -> DamagedItem:
        return DamagedItem(self.name, item[self._pk]["S"], item[self._sk]["S"], problem)


class _Broken(Exception):
    """Parts that do not make up an event."""

    def __init__(self, damage: DamagedItem, base_offset: int) -> None:
        super().__init__(damage)
        self.damage = damage
        self.base_offset = base_offset


class _Reading:
    """Takes the items of one chain apart and puts events in parts together."""

    def __init__(self, table: Table, group: str, partition: int, from_ms: int, to_ms: int) -> None:
        self.table = table
        self.group = group
        self.partition = partition
        self.from_ms = from_ms
        self.to_ms = to_ms
        self.open: tuple[Part, bytes, _Item, int] | None = None

    @property
    def is_open(self) -> bool:
        """True while an event is incomplete."""
        return self.open is not None

    def item(self, item: _Item) -> Iterator[Event]:
        """The events of the next item."""
        sort_key = keys.parse_sort_key(item[self.table._sk]["S"])
        if sort_key is None:
            self.table._damaged(item, "the sort key is not `<time>/<offset>/<index>`: not written by Millpond")
        if "v" in item and "h" not in item:
            self.end()
            plain = self._plain(item)
            if self._holds(plain.time_ms):
                yield plain
            return
        header, payload = self._packed(item, sort_key)
        if isinstance(header.kind, Part):
            yield from self._part(item, header, header.kind, payload)
            return
        self.end()
        for index, (info, place) in enumerate(header.frame_slices()):
            if info.first_time_ms < self.to_ms and info.last_time_ms >= self.from_ms:
                try:
                    events = decode_frame(header, info, payload[place])
                except DecodeError as error:
                    self.table._damaged(item, f"frame {index}: {error}", error)
                for event in events:
                    if self._holds(event.time_ms):
                        yield self._event(item, header, event, event.value)

    def end(self) -> None:
        """No further part of an open event comes."""
        if self.open is not None:
            part, _, item, base_offset = self.open
            self.open = None
            problem = f"parts {part.index + 1} and on, of {part.count} of an event, do not follow this item"
            raise _Broken(self.table._damage(item, problem), base_offset)

    def _holds(self, time_ms: int) -> bool:
        return self.from_ms <= time_ms < self.to_ms

    def _binary(self, item: _Item, name: str) -> bytes:
        value = item.get(name)
        if value is None:
            self.table._damaged(item, f"attribute `{name}` is missing")
        if "B" not in value:
            self.table._damaged(item, f"attribute `{name}` is not of type B")
        return bytes(value["B"])

    def _packed(self, item: _Item, sort_key: keys.SortKey) -> tuple[Header, bytes]:
        section = self._binary(item, "h")
        try:
            header, length = decode_header(section)
            if length != len(section):
                raise Corrupt("header length")
        except DecodeError as error:
            self.table._damaged(item, f"header: {error}", error)
        if header.group != self.group:
            self.table._damaged(item, f"header: it is of group `{header.group}`")
        if not isinstance(header.place, ChainTotals) or isinstance(header.kind, Reject):
            self.table._damaged(item, "header: it is not of an item of events")
        for name, expected in (
            ("n", header.event_count),
            ("t0", header.first_time_ms),
            ("t1", header.last_time_ms),
        ):
            stored = _number(item, name)
            if stored is not None and stored != expected:
                self.table._damaged(item, f"attribute `{name}` is {stored}, by the header it is {expected}")
        if sort_key.sort_time_ms < header.last_time_ms:
            self.table._damaged(item, "the sort key's time is before the last event's")
        payload = self._binary(item, "d")
        if len(payload) != header.packed_bytes:
            problem = f"payload has {len(payload)} bytes, by the header {header.packed_bytes}"
            self.table._damaged(item, problem)
        return header, payload

    def _plain(self, item: _Item) -> Event:
        time_ms, origin = _number(item, "t0"), _text(item, "o")
        if time_ms is None or origin is None:
            self.table._damaged(item, "attribute `t0` or `o` is missing or of another type")
        try:
            found = keys.parse_origin(origin)
        except DecodeError as error:
            self.table._damaged(item, f"attribute `o`: {error}", error)
        return Event(
            self._binary(item, "v"),
            time_ms,
            self.partition,
            found.stream,
            found.shard,
            found.epoch,
            found.ordinal,
            item[self.table._pk]["S"],
            item[self.table._sk]["S"],
        )

    def _event(self, item: _Item, header: Header, event: FrameEvent, value: bytes) -> Event:
        source = header.sources[event.source]
        return Event(
            value,
            event.time_ms,
            self.partition,
            source.stream,
            source.shard,
            source.epoch,
            event.ordinal,
            item[self.table._pk]["S"],
            item[self.table._sk]["S"],
        )

    def _part(self, item: _Item, header: Header, part: Part, payload: bytes) -> Iterator[Event]:
        if not self._holds(header.first_time_ms):
            return
        identity = (part.count, part.event_bytes, part.event_crc32c)
        if self.open is not None:
            before = self.open[0]
            if part.index == 0 or identity != (before.count, before.event_bytes, before.event_crc32c):
                self.end()
        expected = self.open[0].index + 1 if self.open is not None else 0
        if part.index != expected:
            self.open = None
            problem = f"part {part.index} of {part.count} of an event, where part {expected} must be"
            raise _Broken(self.table._damage(item, problem), header.base_offset)
        collected = self.open[1] if self.open is not None else b""
        events: list[FrameEvent] = []
        for index, (info, place) in enumerate(header.frame_slices()):
            try:
                events.extend(decode_frame(header, info, payload[place]))
            except DecodeError as error:
                self.table._damaged(item, f"frame {index}: {error}", error)
            if sum(len(event.value) for event in events) + len(collected) > part.event_bytes:
                break
        collected += b"".join(event.value for event in events)
        if not events:
            self.table._damaged(item, "a part without bytes")
        if part.index + 1 < part.count and len(collected) <= part.event_bytes:
            self.open = (part, collected, item, header.base_offset)
            return
        self.open = None
        if len(collected) != part.event_bytes or crc32c(collected) != part.event_crc32c:
            problem = f"the {part.count} parts of an event do not have its length and checksum"
            raise _Broken(self.table._damage(item, problem), header.base_offset)
        yield self._event(item, header, events[-1], collected)


def _default_client() -> Client:
    import boto3  # type: ignore[import-untyped, unused-ignore]

    client: Client = boto3.client("dynamodb")
    return client


def _text(item: _Item, name: str) -> str | None:
    value = item.get(name, {}).get("S")
    return value if isinstance(value, str) else None


def _item_names(row: _Item) -> dict[str, str]:
    """What items call their attributes, by the names of the page."""
    names = json.loads(_text(row, "names") or "{}")
    if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
        raise Corrupt("`names` of the registration")
    return names


def _number(item: _Item, name: str) -> int | None:
    try:
        return int(item[name]["N"])
    except (KeyError, ValueError):
        return None


def _millis(time: Time, default: int) -> int:
    if time is None:
        return default
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError("a datetime without a time zone: give one, or milliseconds since the Unix epoch")
        # Rounded up: no event before it is taken, and none at or after it is left out.
        return -((keys.EPOCH - time) // timedelta(milliseconds=1))
    return time
