"""Makes aggregates.json with the reference implementation.

    pip install aws_kinesis_agg==1.2.3 protobuf six
    python aggregates.py > aggregates.json

Each case: events as (partition key, explicit hash key or null, base64 of the data), and the aggregated
record that holds them, in base64. Nothing in it is random: the same versions give the same file.
"""

import base64
import json

from aws_kinesis_agg.aggregator import RecordAggregator

CASES = {
    "one event": [("key", None, b"event")],
    "many keys": [(f"user-{n % 7}", None, f'{{"n":{n}}}'.encode()) for n in range(100)],
    "explicit hash keys": [(f"user-{n % 3}", str(2**127 + n % 2), bytes([n])) for n in range(20)],
    "no bytes, all bytes": [("k", None, b""), ("k", None, bytes(range(256)) * 4)],
    "keys that are not ascii": [("schlüssel-日本", None, b"x"), ("\U0001f600", "0", b"y")],
}


def text(data):
    return base64.b64encode(data).decode()


def made(events):
    aggregator = RecordAggregator(1 << 20)
    for key, hash_key, data in events:
        if aggregator.add_user_record(key, data, hash_key) is not None:
            raise ValueError("the events of a case must fit one record")
    return aggregator.clear_and_get().get_contents()[2]


cases = {
    name: {
        "events": [[key, hash_key, text(data)] for key, hash_key, data in events],
        "record": text(made(events)),
    }
    for name, events in CASES.items()
}
print(json.dumps(cases, indent=1, ensure_ascii=True))
