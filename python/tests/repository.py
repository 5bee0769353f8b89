"""What the tests share with those of the Rust code."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "crates/format/tests/golden"
FORMAT_MD = ROOT / "FORMAT.md"
MISSING = "only within the repository, whose golden envelopes it reads"


DICTIONARY = GOLDEN / "dictionary-1.zdict"
"""Dictionary 1 of the golden items."""


def golden() -> list[Path]:
    """Every golden envelope of every version."""
    return sorted(GOLDEN.glob("v*/*.bin"))
