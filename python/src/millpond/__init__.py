"""Reads the events that Millpond packed into a DynamoDB table.

    for event in millpond.read("events", "job-17"):
        print(event.time_ms, event.value)

Whatever is wrong with the data is a `MillpondError`.
"""

from __future__ import annotations

from collections.abc import Iterator

from .envelope import (
    Batch,
    ChainTotals,
    Envelope,
    FrameEvent,
    FrameInfo,
    Header,
    Part,
    Position,
    Reject,
    Source,
    decode_envelope,
    decode_frame,
    decode_header,
    dictionary,
)
from .errors import (
    BadMagic,
    ChecksumMismatch,
    Corrupt,
    DamagedItem,
    DecodeError,
    KeySchema,
    MappedPipeline,
    MillpondError,
    NewerVersion,
    NoPipeline,
    NoSuchGroup,
    OverLimit,
    SeveralPipelines,
    Truncated,
    UnknownDictionary,
)
from .table import Client, Event, Table, Time

__all__ = [
    "BadMagic",
    "Batch",
    "ChainTotals",
    "ChecksumMismatch",
    "Client",
    "Corrupt",
    "DamagedItem",
    "DecodeError",
    "Envelope",
    "Event",
    "FrameEvent",
    "FrameInfo",
    "Header",
    "KeySchema",
    "MappedPipeline",
    "MillpondError",
    "NewerVersion",
    "NoPipeline",
    "NoSuchGroup",
    "OverLimit",
    "Part",
    "Position",
    "Reject",
    "SeveralPipelines",
    "Source",
    "Table",
    "Time",
    "Truncated",
    "UnknownDictionary",
    "decode_envelope",
    "decode_frame",
    "decode_header",
    "dictionary",
    "groups",
    "read",
]


def read(
    table: str,
    group: str,
    start: Time = None,
    end: Time = None,
    *,
    pipeline: str | None = None,
    client: Client | None = None,
    consistent: bool = False,
) -> Iterator[Event]:
    """Events of a group with `start <= time < end`, in order; see `Table`."""
    return Table(table, pipeline=pipeline, client=client, consistent=consistent).read(group, start, end)


def groups(table: str, *, pipeline: str | None = None, client: Client | None = None) -> Iterator[str]:
    """Names of the groups of a table, each once; see `Table`."""
    return Table(table, pipeline=pipeline, client=client).groups()
