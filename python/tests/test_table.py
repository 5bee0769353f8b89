"""Reading from a table in memory that answers queries as DynamoDB does."""

from __future__ import annotations

import json
import unittest
from datetime import datetime, timezone
from typing import Any

import zstandard

import millpond
from millpond import _keys as keys
from millpond._hashes import crc32c

Item = dict[str, dict[str, Any]]
Timed = tuple[int, bytes]


class Memory:
    """A client of one table in memory, which answers two items a page."""

    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Item] = {}
        self.queries: list[dict[str, Any]] = []
        self.hidden: set[tuple[str, str]] = set()
        """Keys that eventually consistent reads do not see yet."""

    def put(self, pk: str, sk: str, **attributes: dict[str, Any]) -> None:
        self.items[pk, sk] = {"pk": {"S": pk}, "sk": {"S": sk}} | attributes

    def describe_table(self, *, TableName: str) -> Any:
        names = [("pk", "HASH"), ("sk", "RANGE")]
        return {
            "Table": {
                "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in names],
                "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name, _ in names],
            }
        }

    def query(self, **arguments: Any) -> Any:
        self.queries.append(arguments)
        values = {name: value["S"] for name, value in arguments["ExpressionAttributeValues"].items()}
        condition = arguments["KeyConditionExpression"]
        low, high = values.get(":low", ""), values.get(":high", "\U0010ffff")
        after = arguments.get("ExclusiveStartKey", {}).get("sk", {}).get("S", "")
        found = []
        for (pk, sk), item in sorted(self.items.items()):
            if (pk, sk) in self.hidden and not arguments["ConsistentRead"]:
                continue
            fits = sk.startswith(low) if "begins_with" in condition else low <= sk <= high
            if pk == values[":pk"] and fits and sk > after:
                found.append(item)
        page: dict[str, Any] = {"Items": found[:2]}
        if len(found) > 2:
            page["LastEvaluatedKey"] = {name: found[1][name] for name in ("pk", "sk")}
        return page


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(out) + bytes([value])


def zigzag(value: int) -> bytes:
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def text(value: str) -> bytes:
    return varint(len(value.encode())) + value.encode()


class Chain:
    """Writes the items of one chain, from the page."""

    def __init__(self, memory: Memory, group: str, partition: int = 0) -> None:
        self.memory = memory
        self.group = group
        self.partition = partition
        self.pk = keys.chain_pk("p", group, partition)
        self.write_shards = 1
        self.sort_time = self.late = self.ordinal = self.items = 0
        self.offset = 100

    def directory(self) -> None:
        for shard in range(self.write_shards):
            sk = f"{self.group}#{self.partition}" + (f".{shard}" if shard else "")
            self.memory.put(keys.directory_pk("p", self.group), sk, late={"N": str(self.late)})

    def shard_pk(self, number: int) -> str:
        """Of the item that is the so many-th, from 0."""
        shard = number % self.write_shards
        return self.pk + (f".{shard}" if shard else "")

    def frame(self, events: list[Timed], counted: int) -> tuple[bytes, bytes]:
        """Index entry without the first time's difference resolved (there is one frame before none), and bytes."""
        raw = varint(len(events)) + b"".join(varint(len(value)) for _, value in events)
        previous = 0
        for time_ms, _ in events:
            raw += zigzag(time_ms - previous)
            previous = time_ms
        raw += b"\0" * len(events)
        for index in range(len(events)):
            raw += zigzag(self.ordinal if index == 0 else 1)
            self.ordinal += counted > 0
        raw += b"".join(value for _, value in events)
        packed = zstandard.ZstdCompressor(write_checksum=True).compress(raw)
        first, last = min(events)[0], max(time_ms for time_ms, _ in events)
        sizes = varint(len(packed)) + varint(len(raw)) + varint(counted) + varint(sum(len(v) for _, v in events))
        entry = sizes + zigzag(first) + varint(last - first) + crc32c(packed).to_bytes(4, "little") + b"\1\0"
        return entry, packed

    def put(self, events: list[Timed], kind: bytes = b"\0", index: int = 0, counted: int | None = None) -> str:
        count = len(events) if counted is None else counted
        entry, packed = self.frame(events, count)
        self.items += 1
        position = text("7") + varint(0)
        body = kind + b"\1\0" + text(self.group) + varint(self.offset) + varint(0)
        body += b"\1" + varint(self.items) + varint(0) * 3
        body += varint(1) + text("stream") + text("shard") + varint(7) + varint(0) + varint(99) + varint(count)
        body += position * 2 + varint(1) + entry
        section = b"MPE\1" + len(body).to_bytes(4, "little") + body
        section += crc32c(section).to_bytes(4, "little")
        first, last = min(events)[0], max(time_ms for time_ms, _ in events)
        self.sort_time = max(self.sort_time, last)
        self.late = max(self.late, self.sort_time - first)
        sk = f"{keys.time_text(self.sort_time)}/{self.offset:019}/{index:05}"
        pk = self.shard_pk(self.items - 1)
        self.memory.put(pk, sk, h={"B": section}, d={"B": packed}, n={"N": str(count)}, t0={"N": str(first)})
        if index == 0 or count:
            self.offset += 1
        return sk

    def parts(self, time_ms: int, value: bytes, size: int) -> list[str]:
        slices = [value[at : at + size] for at in range(0, len(value), size)]
        offset = self.offset
        sks = []
        for index, piece in enumerate(slices):
            self.offset = offset
            kind = b"\1" + varint(index) + varint(len(slices)) + varint(len(value))
            kind += crc32c(value).to_bytes(4, "little")
            is_last = index + 1 == len(slices)
            sks.append(self.put([(time_ms, piece)], kind, index, int(is_last)))
        return sks

    def plain(self, time_ms: int, value: bytes) -> None:
        self.sort_time = max(self.sort_time, time_ms)
        sk = f"{keys.time_text(self.sort_time)}/{self.offset:019}/00000"
        origin = f"mp1/stream/shard/9/0/{time_ms}/7.{self.ordinal}/{self.group}"
        pk = self.shard_pk(self.ordinal)
        self.memory.put(pk, sk, v={"B": value}, o={"S": origin}, t0={"N": str(time_ms)})
        self.ordinal += 1
        self.offset += 1


class TableTest(unittest.TestCase):
    def setUp(self) -> None:
        self.memory = Memory()
        self.memory.put(keys.PIPELINES_PK, "p", version={"N": "1"}, topic={"S": "t"})

    def table(self, **arguments: Any) -> millpond.Table:
        return millpond.Table("events", client=self.memory, **arguments)

    def values(self, group: str = "g", start: Any = None, end: Any = None) -> list[bytes]:
        return [event.value for event in self.table().read(group, start, end)]

    def ledger(self, committed: int) -> None:
        self.memory.put(keys.ledger_pk("p", "t"), "00000", committed={"N": str(committed)})

    def test_chains_are_merged_by_time(self) -> None:
        one, other = Chain(self.memory, "g", 0), Chain(self.memory, "g", 3)
        one.put([(1_000, b"a"), (3_000, b"d"), (2_500, b"e")])
        one.put([(4_000, b"g")])
        other.put([(2_000, b"b"), (3_000, b"f")])
        other.plain(2_100, b"late")
        for chain in (one, other, Chain(self.memory, "g#0", 0)):
            chain.directory()
        self.assertEqual(self.values(), [b"a", b"b", b"d", b"e", b"f", b"late", b"g"])
        self.assertEqual(sorted(self.table().groups()), ["g", "g#0"])
        with self.assertRaises(millpond.NoSuchGroup):
            self.values("h")

    def test_write_shards_are_one_chain(self) -> None:
        chain = Chain(self.memory, "g", 2)
        expected = []
        for number in range(18):
            chain.write_shards = (1, 2, 5)[number // 6]
            value = b"%d" % number
            if number % 6 == 4:
                value *= 1_000
                chain.parts(1_000 + number, value, 700)
            elif number % 6 == 5:
                chain.plain(1_000 + number, value)
            else:
                chain.put([(1_000 + number, value)])
            expected.append(value)
        chain.directory()
        self.assertIn("p/g#2.4", {pk for pk, _ in self.memory.items})
        # A group whose name looks like one of them.
        other = Chain(self.memory, "g#2.1")
        other.put([(1_000, b"other")])
        other.directory()
        self.assertEqual(self.values(), expected)
        self.assertEqual(self.values(start=1_003, end=1_009), expected[3:9])
        self.assertEqual(self.values("g#2.1"), [b"other"])
        self.assertEqual(sorted(self.table().groups()), ["g", "g#2.1"])
        for bad in ("g#2.0", "g#2.01", "g#2.1024", "g#2.1.1", "g"):
            self.assertIsNone(keys.parse_directory_sk(bad), bad)

    def test_a_slice_queries_its_items_only(self) -> None:
        chain = Chain(self.memory, "g")
        for item in range(20):
            chain.put([(1_000_000 + item * 1_000 + n * 100, b"%d-%d" % (item, n)) for n in range(10)])
        chain.directory()
        self.assertEqual(self.values(start=1_005_000, end=1_005_300), [b"5-0", b"5-1", b"5-2"])
        bounds = self.memory.queries[-1]["ExpressionAttributeValues"]
        self.assertEqual(bounds[":low"]["S"], keys.time_text(1_005_000))
        self.assertEqual(bounds[":high"]["S"], keys.time_text(1_005_300 + chain.late))
        # The last event is at 16:59.900.
        for microseconds, count in ((900_000, 199), (900_001, 200)):
            at = datetime(1970, 1, 1, 0, 16, 59, microseconds, tzinfo=timezone.utc)
            self.assertEqual(len(self.values(end=at)), count)
        self.assertEqual(self.values(start=1_019_900, end=None), [b"19-9"])
        with self.assertRaises(ValueError):
            self.values(start=datetime(2020, 1, 1))

    def test_parts_are_put_together(self) -> None:
        chain = Chain(self.memory, "g")
        chain.put([(1_000, b"before")])
        large = bytes(range(256)) * 20
        sks = chain.parts(2_000, large, 1_500)
        chain.put([(3_000, b"after")])
        chain.directory()
        self.assertEqual(self.values(), [b"before", large, b"after"])
        # A replica that does not have one yet is asked again.
        self.memory.hidden.add((chain.pk, sks[1]))
        self.assertEqual(self.values(), [b"before", large, b"after"])
        # One that is gone is damage, but for a plan that is being written.
        del self.memory.items[chain.pk, sks[1]]
        with self.assertRaises(millpond.DamagedItem):
            self.values()
        self.ledger(0)
        self.assertEqual(self.values(), [b"before"])

    def test_whatever_is_wrong_with_an_item_is_named(self) -> None:
        for name, change, said in (
            ("h", None, "attribute `h` is missing"),
            ("d", None, "attribute `d` is missing"),
            ("d", {"S": "text"}, "not of type B"),
            ("d", {"B": b""}, "payload has 0 bytes"),
            ("n", {"N": "77"}, "attribute `n` is 77"),
            ("t0", {"N": "1"}, "attribute `t0` is 1"),
            ("h", {"B": b"MPE\2"}, "version 2, newer"),
            ("h", {"B": b"MPE"}, "truncated"),
        ):
            with self.subTest(f"{name} {said}"):
                chain = Chain(self.memory, "g")
                sk = chain.put([(1_000, b"a")])
                chain.directory()
                item = self.memory.items[chain.pk, sk]
                if change is None:
                    del item[name]
                else:
                    item[name] = change
                with self.assertRaises(millpond.DamagedItem) as caught:
                    self.values()
                self.assertIn(said, str(caught.exception))
                self.assertEqual(caught.exception.sk, sk)
        self.memory.items[chain.pk, sk] = item | {"h": {"B": b""}}
        self.memory.put(chain.pk, "not a time", h={"B": b""})
        with self.assertRaises(millpond.DamagedItem):
            self.values()

    def test_a_changed_frame_is_named(self) -> None:
        chain = Chain(self.memory, "g")
        sk = chain.put([(1_000, b"a")])
        chain.directory()
        item = self.memory.items[chain.pk, sk]
        changed = bytearray(item["d"]["B"])
        changed[5] ^= 1
        item["d"] = {"B": bytes(changed)}
        with self.assertRaises(millpond.DamagedItem) as caught:
            self.values()
        self.assertIsInstance(caught.exception.__cause__, millpond.ChecksumMismatch)

    def test_pipelines(self) -> None:
        self.memory.put(keys.PIPELINES_PK, "q", version={"N": "3"})
        with self.assertRaises(millpond.SeveralPipelines):
            self.table()
        with self.assertRaises(millpond.NewerVersion):
            self.table(pipeline="q")
        with self.assertRaises(millpond.NoPipeline):
            self.table(pipeline="r")
        self.assertEqual(self.table(pipeline="p").pipeline, "p")
        self.memory.put(keys.PIPELINES_PK, "m", version={"N": "1"}, mapped={"N": "1"})
        with self.assertRaises(millpond.MappedPipeline):
            self.table(pipeline="m")

    def test_names_and_a_prefix_of_the_users_choosing(self) -> None:
        chain = Chain(self.memory, "g")
        sks = [chain.put([(1_000, b"a")]), *chain.parts(2_000, bytes(3_000), 1_000)]
        chain.plain(3_000, b"b")
        chain.directory()
        names = {"h": "head", "d": "data", "v": "value", "o": "origin", "t0": "first"}
        registration = {"names": {"S": json.dumps(names)}, "prefix": {"S": "events#"}}
        self.memory.put(keys.PIPELINES_PK, "p", version={"N": "2"}, topic={"S": "t"}, **registration)
        for (pk, sk), item in list(self.memory.items.items()):
            if pk == chain.pk:
                del self.memory.items[pk, sk]
                renamed = {names.get(name, name): value for name, value in item.items() if name not in ("pk", "sk")}
                # Another program's, and no header.
                self.memory.put(f"events#{pk}", sk, **renamed, h={"S": "height"})
        events = list(self.table().read("g"))
        self.assertEqual([event.value for event in events], [b"a", bytes(3_000), b"b"])
        self.assertEqual((events[0].pk, events[0].sk), (f"events#{chain.pk}", sks[0]))

    def test_a_frame_that_claims_more_than_it_may_is_refused(self) -> None:
        bomb = zstandard.ZstdCompressor().compress(bytes(1 << 26))
        header = millpond.Header(None, 0, "g", 0, 0, millpond.Batch(0, 1), (), ())
        for raw_bytes in (1_000, 1_179_648):
            info = millpond.FrameInfo(len(bomb), raw_bytes, 1, 1, 0, 0, crc32c(bomb), ())
            with self.assertRaises(millpond.Corrupt):
                millpond.decode_frame(header, info, bomb)
        unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 26))
        info = millpond.FrameInfo(len(unsized), 1_000, 1, 1, 0, 0, crc32c(unsized), ())
        with self.assertRaises(millpond.Corrupt):
            millpond.decode_frame(header, info, unsized)
        other = millpond.Header(None, 5, "g", 0, 0, millpond.Batch(0, 1), (), ())
        with self.assertRaises(millpond.UnknownDictionary):
            millpond.decode_frame(other, info, unsized)


if __name__ == "__main__":
    unittest.main()
