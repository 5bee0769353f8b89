"""Why something could not be read."""

from __future__ import annotations


class MillpondError(Exception):
    """What this package raises."""


class DecodeError(MillpondError):
    """Bytes are not what they should be."""


class Truncated(DecodeError):
    """The bytes end too early."""

    def __init__(self, what: str) -> None:
        super().__init__(f"truncated in {what}")
        self.what = what


class BadMagic(DecodeError):
    """The bytes are no header section."""

    def __init__(self) -> None:
        super().__init__("not an envelope: it does not start with `MPE`")


class NewerVersion(DecodeError):
    """Written by a later version of the format."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(f"{what} has version {found}, newer than {known}; upgrade this package")
        self.found = found
        self.known = known


class ChecksumMismatch(DecodeError):
    """The bytes were changed."""

    def __init__(self, what: str, stored: int, computed: int) -> None:
        super().__init__(f"checksum mismatch in {what}: stored {stored:08x}, computed {computed:08x}")
        self.what = what


class OverLimit(DecodeError):
    """A declared size or count is over its limit."""

    def __init__(self, what: str, value: int, limit: int) -> None:
        super().__init__(f"{what} is {value}, over the limit of {limit}")
        self.what = what


class Corrupt(DecodeError):
    """The bytes contradict themselves."""

    def __init__(self, what: str) -> None:
        super().__init__(f"corrupt {what}")
        self.what = what


class UnknownDictionary(DecodeError):
    """A frame was compressed with a dictionary that is not known here."""

    def __init__(self, dictionary: int) -> None:
        super().__init__(f"frame was compressed with dictionary {dictionary}, which is not known here")
        self.dictionary = dictionary


class DamagedItem(MillpondError):
    """An item or row of the table does not pass its checks; `__cause__` says more, where there is more."""

    def __init__(self, table: str, pk: str, sk: str, problem: str) -> None:
        super().__init__(f"damaged item in table `{table}`: partition key `{pk}`, sort key `{sk}`: {problem}")
        self.pk = pk
        self.sk = sk
        self.problem = problem


class KeySchema(MillpondError):
    """The table's key is not two strings."""


class NoPipeline(MillpondError):
    """The pipeline, or any, has not written to the table."""


class SeveralPipelines(MillpondError):
    """Several pipelines have written to the table, and none was named."""


class MappedPipeline(MillpondError):
    """The pipeline writes items of the user's own form, which have no groups."""


class NoSuchGroup(MillpondError):
    """The pipeline has written no event of the group."""
