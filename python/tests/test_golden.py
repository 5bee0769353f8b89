"""The golden envelopes of the Rust code, and the worked example of `FORMAT.md`."""

from __future__ import annotations

import json
import random
import re
import unittest
from dataclasses import asdict
from typing import Any

import millpond
from millpond import Batch, Header, Part, Reject

from .repository import DICTIONARY, FORMAT_MD, GOLDEN, MISSING, golden


def dictionaries() -> dict[int, Any]:
    """Those that the golden items need."""
    return {1: millpond.dictionary(DICTIONARY.read_bytes())}


def describe(data: bytes) -> dict[str, Any]:
    """The same description as the Rust tests give."""
    envelope = millpond.decode_envelope(data, dictionaries())
    header = envelope.header
    frames = []
    for info, events in zip(header.frames, envelope.frames):
        frame = asdict(info) | {"sources": list(info.sources)}
        frame["events"] = [
            {
                "value_hex": event.value.hex(),
                "time_ms": event.time_ms,
                "source": event.source,
                "ordinal": event.ordinal,
            }
            for event in events
        ]
        frames.append(frame)
    sources = []
    for source in header.sources:
        described = asdict(source)
        for name in ("first", "last"):
            position = getattr(source, name)
            described[name] = [position.sequence, position.sub_sequence]
        sources.append(described)
    return {
        "header_bytes": envelope.header_bytes,
        "kind": kind(header),
        "codec": "stored" if header.dictionary is None else {"zstd": {"dictionary": header.dictionary}},
        "group": header.group,
        "base_offset": header.base_offset,
        "last_offset": header.last_offset,
        "place": {"batch" if isinstance(header.place, Batch) else "chain": asdict(header.place)},
        "sources": sources,
        "frames": frames,
    }


def kind(header: Header) -> Any:
    if isinstance(header.kind, Part):
        return {"part": asdict(header.kind)}
    if isinstance(header.kind, Reject):
        key = header.kind.record_key
        described = {"reason": header.kind.reason, "detail": header.kind.detail}
        return {"reject": described | {"record_key_hex": None if key is None else key.hex()}}
    return "events"


@unittest.skipUnless(GOLDEN.is_dir(), MISSING)
class GoldenTest(unittest.TestCase):
    def test_every_golden_envelope_reads_as_expected(self) -> None:
        self.assertGreaterEqual(len(golden()), 5)
        for path in golden():
            with self.subTest(path.name):
                expected = json.loads(path.with_suffix(".json").read_text())
                self.assertEqual(describe(path.read_bytes()), expected)

    def test_without_its_dictionary_an_item_is_refused(self) -> None:
        data = (GOLDEN / "v1/dictionary.bin").read_bytes()
        with self.assertRaises(millpond.UnknownDictionary):
            millpond.decode_envelope(data)
        self.assertEqual(len(millpond.decode_envelope(data, dictionaries()).frames), 1)

    def test_what_is_no_dictionary_is_refused(self) -> None:
        data = DICTIONARY.read_bytes()
        with self.assertRaises(millpond.ChecksumMismatch):
            millpond.dictionary(data, 1)
        with self.assertRaises(millpond.Corrupt):
            millpond.dictionary(b"x" + data)
        with self.assertRaises(millpond.OverLimit):
            millpond.dictionary(data + bytes(114_688))

    def test_every_prefix_is_truncated(self) -> None:
        for path in golden():
            data = path.read_bytes()
            for length in range(0, len(data), max(1, len(data) // 400)):
                with self.subTest(f"{path.name} {length}"), self.assertRaises(millpond.Truncated):
                    millpond.decode_envelope(data[:length], dictionaries())

    def test_every_change_is_an_error_of_this_package(self) -> None:
        seed = random.randrange(1 << 32)
        dice = random.Random(seed)
        for path in golden():
            data = path.read_bytes()
            for _ in range(400):
                changed = bytearray(data)
                at = dice.randrange(len(data))
                changed[at] ^= 1 << dice.randrange(8)
                with self.subTest(f"{path.name} {at} seed {seed}"), self.assertRaises(millpond.DecodeError):
                    millpond.decode_envelope(bytes(changed), dictionaries())

    def test_a_newer_version_is_refused_before_anything_behind_it(self) -> None:
        with self.assertRaises(millpond.NewerVersion) as caught:
            millpond.decode_header(b"MPE\x02")
        self.assertEqual((caught.exception.found, caught.exception.known), (2, 1))
        with self.assertRaises(millpond.BadMagic):
            millpond.decode_header(b"{}{}")

    def test_the_worked_example(self) -> None:
        page = FORMAT_MD.read_text()
        block = re.search(r"<!-- example: hex -->\n```text\n(.*?)```", page, re.DOTALL)
        said = re.search(r"<!-- example: json -->\n```json\n(.*?)```", page, re.DOTALL)
        assert block is not None and said is not None
        lines = (re.match(r"[0-9a-f]{4}  ((?:[0-9a-f]{2} )+)", line) for line in block[1].splitlines())
        data = bytes.fromhex("".join(line[1] for line in lines if line is not None))
        self.assertEqual(describe(data), json.loads(said[1]))


if __name__ == "__main__":
    unittest.main()
