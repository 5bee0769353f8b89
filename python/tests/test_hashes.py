"""Hashes and keys against vectors made by other implementations."""

from __future__ import annotations

import unittest

from millpond import Corrupt, NewerVersion
from millpond import _hashes as hashes
from millpond import _keys as keys

XXH3 = {
    b"": 0x2D06800538D394C2,
    b"a": 0xE6C632B61E964E1F,
    b"abcd": 0x6497A96F53A89890,
    b"job-17-xy": 0xCB6386354FE66A7,
    b"x" * 17: 0x89975E6B7D2F5A11,
    b"y" * 100: 0x317B1A1EA1E09BB5,
    b"z" * 200: 0xADAC0421A71EB202,
    b"g" * 1000: 0x543E4D15C92B9528,
}


class HashesTest(unittest.TestCase):
    def test_xxh3(self) -> None:
        for data, expected in XXH3.items():
            self.assertEqual(hashes.xxh3_64(data), expected, len(data))

    def test_crc32c(self) -> None:
        for crc32c in (hashes.crc32c, hashes._crc32c_here):
            self.assertEqual(crc32c(b"123456789"), 0xE3069283)
            self.assertEqual(crc32c(b""), 0)


class KeysTest(unittest.TestCase):
    def test_sort_keys(self) -> None:
        text = "2025-11-23T08:20:00.123Z/0000000000000000042/00003"
        self.assertEqual(keys.parse_sort_key(text), keys.SortKey(1763886000123, 42, 3))
        self.assertEqual(keys.time_text(1763886000123), "2025-11-23T08:20:00.123Z")
        self.assertEqual(keys.time_text(0), "1970-01-01T00:00:00.000Z")
        self.assertEqual(keys.time_text(keys.MAX_TIME_MS + 9), "9999-12-30T21:59:59.999Z")
        for bad in ("", text + "0", text[:-1], text.replace("-11-", "-13-"), "zzz"):
            self.assertIsNone(keys.parse_sort_key(bad), bad)

    def test_directory_rows(self) -> None:
        self.assertEqual(keys.parse_directory_sk("a#0#12"), ("a#0", 12, 0))
        self.assertEqual(keys.parse_directory_sk("a#3.12"), ("a", 3, 12))
        for bad in ("a", "a#", "a#x", "#1", "a#-1"):
            self.assertIsNone(keys.parse_directory_sk(bad), bad)

    def test_origins(self) -> None:
        text = "mp1/events/shardId-000000000003/4959/0/1763886000123/1763885999000.42/job-17/w3"
        origin = keys.parse_origin(text)
        self.assertEqual((origin.epoch, origin.ordinal), (1763885999000, 42))
        self.assertEqual(origin.partition_key, "job-17/w3")
        with self.assertRaises(NewerVersion):
            keys.parse_origin("mp2/whatever")
        for bad in ("", "mp1/", text.replace("/4959/", "/049/"), text.replace(".42", ""), text.replace("/0/", "/-0/")):
            with self.assertRaises(Corrupt):
                keys.parse_origin(bad)


if __name__ == "__main__":
    unittest.main()
