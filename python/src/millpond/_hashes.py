"""CRC-32C and XXH3, as the formats use them."""

from __future__ import annotations

from collections.abc import Callable

_MASK = (1 << 64) - 1


def _crc32c_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_TABLE = _crc32c_table()


def _crc32c_here(data: bytes) -> int:
    crc = 0xFFFFFFFF
    table = _TABLE
    for byte in data:
        crc = table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _fastest_crc32c() -> Callable[[bytes], int]:
    """One in C, where a package that has one is installed."""
    import importlib

    for module, name in (("crc32c", "crc32c"), ("awscrt.checksums", "crc32c")):
        try:
            found: Callable[[bytes], int] = getattr(importlib.import_module(module), name)
            if found(b"123456789") == 0xE3069283:
                return found
        except (ImportError, AttributeError):
            pass
    return _crc32c_here


crc32c: Callable[[bytes], int] = _fastest_crc32c()

_P32_1, _P32_2, _P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
_P64_1, _P64_2, _P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
_P64_4, _P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
_MX1, _MX2 = 0x165667919E3779F9, 0x9FB21C651E98DF25

_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def _u32(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _fold(one: int, other: int) -> int:
    product = one * other
    return (product & _MASK) ^ (product >> 64)


def _avalanche(value: int) -> int:
    value ^= value >> 37
    value = value * _MX1 & _MASK
    return value ^ (value >> 32)


def _avalanche64(value: int) -> int:
    value ^= value >> 33
    value = value * _P64_2 & _MASK
    value ^= value >> 29
    value = value * _P64_3 & _MASK
    return value ^ (value >> 32)


def _mix16(data: bytes, at: int, secret: int) -> int:
    return _fold(_u64(data, at) ^ _u64(_SECRET, secret), _u64(data, at + 8) ^ _u64(_SECRET, secret + 8))


def _rotated(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def xxh3_64(data: bytes) -> int:
    """XXH3, 64 bits, seed 0."""
    length = len(data)
    if length > 240:
        return _long(data)
    if length > 128:
        return _to_240(data)
    if length > 16:
        return _to_128(data)
    if length > 8:
        low = _u64(data, 0) ^ _u64(_SECRET, 24) ^ _u64(_SECRET, 32)
        high = _u64(data, length - 8) ^ _u64(_SECRET, 40) ^ _u64(_SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return _avalanche((length + swapped + high + _fold(low, high)) & _MASK)
    if length >= 4:
        value = (_u32(data, length - 4) + (_u32(data, 0) << 32)) & _MASK
        value ^= _u64(_SECRET, 8) ^ _u64(_SECRET, 16)
        value ^= _rotated(value, 49) ^ _rotated(value, 24)
        value = value * _MX2 & _MASK
        value ^= (value >> 35) + length
        value = value * _MX2 & _MASK
        return value ^ (value >> 28)
    if length:
        value = data[0] << 16 | data[length >> 1] << 24 | data[-1] | length << 8
        return _avalanche64(value ^ _u32(_SECRET, 0) ^ _u32(_SECRET, 4))
    return _avalanche64(_u64(_SECRET, 56) ^ _u64(_SECRET, 64))


def _to_128(data: bytes) -> int:
    length = len(data)
    total = length * _P64_1
    for step in reversed(range((length - 1) // 32)):
        total += _mix16(data, 16 * (step + 1), 32 * (step + 1))
        total += _mix16(data, length - 16 * (step + 2), 32 * (step + 1) + 16)
    total += _mix16(data, 0, 0) + _mix16(data, length - 16, 16)
    return _avalanche(total & _MASK)


def _to_240(data: bytes) -> int:
    length = len(data)
    total = length * _P64_1
    for step in range(8):
        total += _mix16(data, 16 * step, 16 * step)
    total = _avalanche(total & _MASK)
    for step in range(8, length // 16):
        total += _mix16(data, 16 * step, 16 * (step - 8) + 3)
    total += _mix16(data, length - 16, 136 - 17)
    return _avalanche(total & _MASK)


def _long(data: bytes) -> int:
    length = len(data)
    lanes = [_P32_3, _P64_1, _P64_2, _P64_3, _P64_4, _P32_2, _P64_5, _P32_1]

    def accumulate(at: int, secret: int) -> None:
        for lane in range(8):
            value = _u64(data, at + 8 * lane)
            key = value ^ _u64(_SECRET, secret + 8 * lane)
            lanes[lane ^ 1] = (lanes[lane ^ 1] + value) & _MASK
            lanes[lane] = (lanes[lane] + (key & 0xFFFFFFFF) * (key >> 32)) & _MASK

    blocks = (length - 1) // 1024
    for block in range(blocks):
        for stripe in range(16):
            accumulate(1024 * block + 64 * stripe, 8 * stripe)
        for lane in range(8):
            value = lanes[lane]
            value ^= value >> 47
            value ^= _u64(_SECRET, 128 + 8 * lane)
            lanes[lane] = value * _P32_1 & _MASK
    for stripe in range((length - 1 - 1024 * blocks) // 64):
        accumulate(1024 * blocks + 64 * stripe, 8 * stripe)
    accumulate(length - 64, 192 - 64 - 7)
    total = length * _P64_1
    for pair in range(4):
        total += _fold(
            lanes[2 * pair] ^ _u64(_SECRET, 11 + 16 * pair),
            lanes[2 * pair + 1] ^ _u64(_SECRET, 19 + 16 * pair),
        )
    return _avalanche(total & _MASK)
