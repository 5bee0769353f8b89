"""Header sections and frames: what `FORMAT.md` says under *Envelope*."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import zstandard

from ._hashes import crc32c
from .errors import (
    BadMagic,
    ChecksumMismatch,
    Corrupt,
    NewerVersion,
    OverLimit,
    Truncated,
    UnknownDictionary,
)

VERSION = 1
MAX_EVENT_BYTES = 10 << 20
MAX_FRAME_BYTES = 1_179_648
MAX_FRAMES = 65_536
MAX_SOURCES = 4_096
MAX_PARTS = 16_384
MAX_HEADER_BYTES = 4 << 20
MAX_GROUP_BYTES = 1_000
MAX_DICTIONARY_BYTES = 114_688
MAX_DICTIONARY_ID = 99_999
_DICTIONARY_MAGIC = b"\x37\xa4\x30\xec"
# What RFC 8878 asks every decoder to take; a frame here needs less.
_MAX_WINDOW_BYTES = 8 << 20
_MASK = (1 << 64) - 1
_REASONS = (
    "not-json",
    "group-missing",
    "group-invalid",
    "group-too-long",
    "event-time-missing",
    "event-time-invalid",
    "origin-invalid",
    "too-large",
)


Dictionaries = Mapping[int, zstandard.ZstdCompressionDict]
"""Dictionaries of a pipeline by id."""


@dataclass(frozen=True)
class Part:
    """A slice of one event that is too large for one item."""

    index: int
    count: int
    event_bytes: int
    event_crc32c: int


@dataclass(frozen=True)
class Reject:
    """An event that could not be packed."""

    reason: str
    detail: str
    record_key: bytes | None


@dataclass(frozen=True)
class Batch:
    """Place of an envelope among those of its stored batch."""

    index: int
    total: int


@dataclass(frozen=True)
class ChainTotals:
    """Totals over a chain's items up to and including this one."""

    items: int
    events: int
    event_bytes: int
    packed_bytes: int


@dataclass(frozen=True)
class Position:
    """A sequence number and the index within an aggregated record."""

    sequence: str
    sub_sequence: int


@dataclass(frozen=True)
class Source:
    """Events of one shard within one numbering."""

    stream: str
    shard: str
    epoch: int
    first_ordinal: int
    last_ordinal: int
    count: int
    first: Position
    last: Position


@dataclass(frozen=True)
class FrameInfo:
    """Index entry of a frame; times in milliseconds since the Unix epoch."""

    packed_bytes: int
    raw_bytes: int
    event_count: int
    event_bytes: int
    first_time_ms: int
    last_time_ms: int
    crc32c: int
    sources: tuple[int, ...]


@dataclass(frozen=True)
class Header:
    """A header section. `kind` is `None` for whole events, `dictionary` is `None` for stored frames."""

    kind: Part | Reject | None
    dictionary: int | None
    group: str
    base_offset: int
    last_offset: int
    place: Batch | ChainTotals
    sources: tuple[Source, ...]
    frames: tuple[FrameInfo, ...]

    @property
    def event_count(self) -> int:
        """Events that are counted here."""
        return sum(frame.event_count for frame in self.frames)

    @property
    def packed_bytes(self) -> int:
        """Bytes of all frames."""
        return sum(frame.packed_bytes for frame in self.frames)

    @property
    def first_time_ms(self) -> int:
        """Earliest event time; 0 without frames."""
        return min((frame.first_time_ms for frame in self.frames), default=0)

    @property
    def last_time_ms(self) -> int:
        """Latest event time; 0 without frames."""
        return max((frame.last_time_ms for frame in self.frames), default=0)

    def frame_slices(self) -> Iterator[tuple[FrameInfo, slice]]:
        """Each index entry with its place in the payload."""
        start = 0
        for frame in self.frames:
            end = start + frame.packed_bytes
            yield frame, slice(start, end)
            start = end


@dataclass(frozen=True)
class FrameEvent:
    """An event in a frame. `source` is an index into the header's sources."""

    value: bytes
    time_ms: int
    source: int
    ordinal: int


@dataclass(frozen=True)
class Envelope:
    """A header section and the events of its frames."""

    header: Header
    header_bytes: int
    frames: tuple[tuple[FrameEvent, ...], ...]


class _Cursor:
    """Takes values off bytes, naming what is taken in every error."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data = data
        self.at = at

    @property
    def left(self) -> int:
        return len(self.data) - self.at

    def take(self, length: int, what: str) -> bytes:
        if length > self.left:
            raise Truncated(what)
        taken = self.data[self.at : self.at + length]
        self.at += length
        return taken

    def byte(self, what: str) -> int:
        return self.take(1, what)[0]

    def u32(self, what: str) -> int:
        return int.from_bytes(self.take(4, what), "little")

    def varint(self, what: str) -> int:
        value = 0
        for index in range(10):
            if self.at >= len(self.data):
                raise Truncated(what)
            byte = self.data[self.at]
            self.at += 1
            value |= (byte & 0x7F) << (7 * index)
            if byte < 0x80:
                # Another form of the same number, or bits above the 64th.
                if (byte == 0 and index > 0) or value > _MASK:
                    raise Corrupt(what)
                return value
        raise Corrupt(what)

    def zigzag(self, what: str) -> int:
        value = self.varint(what)
        return (value >> 1) ^ -(value & 1)

    def bounded(self, what: str, limit: int) -> int:
        value = self.varint(what)
        if value > limit:
            raise OverLimit(what, value, limit)
        return value

    def bytes(self, what: str, limit: int) -> bytes:
        return self.take(self.bounded(what, limit), what)

    def text(self, what: str, limit: int) -> str:
        try:
            return self.bytes(what, limit).decode()
        except UnicodeDecodeError:
            raise Corrupt(what) from None


def _signed(value: int) -> int:
    """The low 64 bits as a signed number: differences wrap around."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


def decode_header(data: bytes) -> tuple[Header, int]:
    """Reads a header section from the front of `data`; answers its length too."""
    data = bytes(data)
    cursor = _Cursor(data)
    if cursor.take(3, "magic") != b"MPE":
        raise BadMagic
    version = cursor.byte("version")
    if version > VERSION:
        raise NewerVersion("the envelope", version, VERSION)
    if version == 0:
        raise Corrupt("version")
    length = cursor.u32("header length")
    if length > MAX_HEADER_BYTES:
        raise OverLimit("header length", length, MAX_HEADER_BYTES)
    body = cursor.take(length, "header")
    stored = cursor.u32("header checksum")
    computed = crc32c(data[: 8 + length])
    if stored != computed:
        raise ChecksumMismatch("header", stored, computed)
    inner = _Cursor(body)
    header = _body(inner)
    if inner.left:
        raise Corrupt("header length")
    return header, cursor.at


def _body(cursor: _Cursor) -> Header:
    kind = _kind(cursor)
    codec = cursor.byte("codec")
    if codec > 1:
        raise Corrupt("codec")
    dictionary = cursor.bounded("dictionary", MAX_DICTIONARY_ID) if codec else None
    group = cursor.text("group", MAX_GROUP_BYTES)
    base = cursor.varint("base offset")
    last = base + cursor.varint("last offset")
    if last > _MASK:
        raise Corrupt("last offset")
    place = _place(cursor)
    if dictionary and isinstance(place, Batch):
        raise Corrupt("dictionary of an envelope")
    sources = tuple(_source(cursor) for _ in range(cursor.bounded("source count", MAX_SOURCES)))
    frames: list[FrameInfo] = []
    previous = 0
    for _ in range(cursor.bounded("frame count", MAX_FRAMES)):
        frames.append(_frame(cursor, previous, len(sources)))
        previous = frames[-1].first_time_ms
    return Header(kind, dictionary, group, base, last, place, sources, tuple(frames))


def _kind(cursor: _Cursor) -> Part | Reject | None:
    kind = cursor.byte("kind")
    if kind == 0:
        return None
    if kind == 1:
        index = cursor.bounded("part index", MAX_PARTS)
        count = cursor.bounded("part count", MAX_PARTS)
        if index >= count:
            raise Corrupt("part index")
        size = cursor.bounded("event size", MAX_EVENT_BYTES)
        return Part(index, count, size, cursor.u32("event checksum"))
    if kind != 2:
        raise Corrupt("kind")
    reason = cursor.byte("reject reason")
    if not 1 <= reason <= len(_REASONS):
        raise Corrupt("reject reason")
    detail = cursor.text("reject detail", 1_024)
    has_key = cursor.byte("record key")
    if has_key > 1:
        raise Corrupt("record key")
    key = cursor.bytes("record key", 4_096) if has_key else None
    return Reject(_REASONS[reason - 1], detail, key)


def _place(cursor: _Cursor) -> Batch | ChainTotals:
    place = cursor.byte("place")
    if place == 0:
        index = cursor.bounded("envelope index", 0xFFFFFFFF)
        total = cursor.bounded("envelope total", 0xFFFFFFFF)
        if index >= total:
            raise Corrupt("envelope index")
        return Batch(index, total)
    if place != 1:
        raise Corrupt("place")
    items, events, event_bytes, packed = (cursor.varint("chain totals") for _ in range(4))
    return ChainTotals(items, events, event_bytes, packed)


def _source(cursor: _Cursor) -> Source:
    stream = cursor.text("stream", 128)
    shard = cursor.text("shard", 128)
    epoch = cursor.varint("chain epoch")
    first = cursor.varint("first ordinal")
    last = first + cursor.varint("last ordinal")
    if last > _MASK:
        raise Corrupt("last ordinal")
    count = cursor.varint("source events")
    return Source(stream, shard, epoch, first, last, count, _position(cursor), _position(cursor))


def _position(cursor: _Cursor) -> Position:
    sequence = cursor.text("sequence number", 129)
    if not is_sequence_number(sequence):
        raise Corrupt("sequence number")
    return Position(sequence, cursor.bounded("sub-sequence number", 0xFFFFFFFF))


def is_sequence_number(text: str) -> bool:
    """True for a decimal without leading zeros."""
    digits = text.isascii() and text.isdigit() and len(text) <= 129
    return digits and (text == "0" or text[0] != "0")


def _frame(cursor: _Cursor, previous: int, sources: int) -> FrameInfo:
    packed = cursor.bounded("packed frame size", 0xFFFFFFFF)
    raw = cursor.bounded("raw frame size", MAX_FRAME_BYTES)
    events = cursor.bounded("frame event count", MAX_FRAME_BYTES)
    event_bytes = cursor.bounded("frame event bytes", MAX_FRAME_BYTES)
    first = _signed(previous + cursor.zigzag("first time"))
    last = first + cursor.varint("last time")
    if last >= 1 << 63:
        raise Corrupt("last time")
    crc = cursor.u32("frame checksum")
    indexes = tuple(
        cursor.varint("frame source") for _ in range(cursor.bounded("frame source count", MAX_SOURCES))
    )
    if any(index >= sources for index in indexes):
        raise Corrupt("frame source")
    return FrameInfo(packed, raw, events, event_bytes, first, last, crc, indexes)


def decode_frame(
    header: Header, info: FrameInfo, packed: bytes, dictionaries: Dictionaries | None = None
) -> tuple[FrameEvent, ...]:
    """Checks, decompresses and reads one frame; `dictionaries` are those of the pipeline, by id."""
    packed = bytes(packed)
    if len(packed) != info.packed_bytes:
        raise Truncated("frame")
    computed = crc32c(packed)
    if computed != info.crc32c:
        raise ChecksumMismatch("frame", info.crc32c, computed)
    if header.dictionary is None:
        raw = packed
    else:
        raw = _decompress(packed, header.dictionary, info.raw_bytes, dictionaries or {})
    if len(raw) != info.raw_bytes:
        raise Corrupt("raw frame size")
    return _columns(raw, info)


def _decompress(packed: bytes, dictionary: int, expected: int, dictionaries: Dictionaries) -> bytes:
    if dictionary and dictionary not in dictionaries:
        raise UnknownDictionary(dictionary)
    known = dictionaries[dictionary] if dictionary else None
    try:
        # What the frame declares is a claim: it is checked before memory is taken for it.
        if zstandard.frame_content_size(packed) not in (-1, expected):
            raise Corrupt("raw frame size")
        decoder = zstandard.ZstdDecompressor(dict_data=known, max_window_size=_MAX_WINDOW_BYTES)
        return decoder.decompress(
            packed, max_output_size=max(expected, 1), read_across_frames=False, allow_extra_data=False
        )
    except zstandard.ZstdError:
        raise Corrupt("zstd frame") from None


def _columns(raw: bytes, info: FrameInfo) -> tuple[FrameEvent, ...]:
    cursor = _Cursor(raw)
    # Every event takes at least four bytes of columns: a larger count cannot be true.
    count = cursor.bounded("frame event count", len(raw) // 4)
    lengths = [cursor.bounded("event length", len(raw)) for _ in range(count)]
    times = []
    time_ms = 0
    for _ in range(count):
        time_ms = _signed(time_ms + cursor.zigzag("event time"))
        if not info.first_time_ms <= time_ms <= info.last_time_ms:
            raise Corrupt("event time")
        times.append(time_ms)
    numbers = [cursor.varint("event source") for _ in range(count)]
    if any(number >= len(info.sources) for number in numbers):
        raise Corrupt("event source")
    last = [0] * len(info.sources)
    ordinals = []
    for number in numbers:
        last[number] = (last[number] + cursor.zigzag("event ordinal")) & _MASK
        ordinals.append(last[number])
    if sum(lengths) > cursor.left:
        raise Truncated("event")
    if sum(lengths) < cursor.left:
        raise Corrupt("frame length")
    return tuple(
        FrameEvent(cursor.take(length, "event"), time_ms, info.sources[number], ordinal)
        for length, time_ms, number, ordinal in zip(lengths, times, numbers, ordinals)
    )


def dictionary(data: bytes, crc: int | None = None) -> zstandard.ZstdCompressionDict:
    """A dictionary for `decode_frame`, once it has the form and the checksum that it must have."""
    if len(data) > MAX_DICTIONARY_BYTES:
        raise OverLimit("dictionary size", len(data), MAX_DICTIONARY_BYTES)
    if crc is not None and crc32c(data) != crc:
        raise ChecksumMismatch("dictionary", crc, crc32c(data))
    if not data.startswith(_DICTIONARY_MAGIC):
        raise Corrupt("dictionary")
    return zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)


def decode_envelope(data: bytes, dictionaries: Dictionaries | None = None) -> Envelope:
    """Reads a header section and all frames behind it, to the last byte; with the pipeline's dictionaries, if it has some."""
    data = bytes(data)
    header, length = decode_header(data)
    payload = data[length:]
    if len(payload) < header.packed_bytes:
        raise Truncated("frames")
    if len(payload) > header.packed_bytes:
        raise Corrupt("payload length")
    frames = tuple(
        decode_frame(header, info, payload[place], dictionaries) for info, place in header.frame_slices()
    )
    return Envelope(header, length, frames)
