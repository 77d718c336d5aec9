#!/usr/bin/env python3
"""Writes vectors.rs: messages encoded by AMQP 1.0 implementations that are not Rillway's.

    python3 -m venv v && v/bin/pip install python-qpid-proton==0.40.0 rstream==1.1.1 \
        azure-servicebus==7.15.0 pymongo==4.20.0
    v/bin/python make_vectors.py > vectors.rs

Beside each message stands the JSON that its line should hold (without stream, offset and
timestamp), derived here from the objects that were encoded, not from the bytes.
pymongo's bson serves as a second implementation of the binary-integer decimal encoding.
"""
import base64
import datetime
import json
import struct
import uuid
from decimal import Decimal

import bson.decimal128
import proton
from azure.servicebus._pyamqp import _encode as azure_encode
from azure.servicebus._pyamqp import message as azure_message
from azure.servicebus._pyamqp.types import AMQPTypes, TYPE, VALUE
from rstream import AMQPMessage
from rstream._pyamqp.message import Header as RHeader, Properties as RProperties

UUID = uuid.UUID("01234567-89ab-cdef-0123-456789abcdef")
MS = 1_767_225_600_123  # 2026-01-01T00:00:00.123Z
RFC = "2026-01-01T00:00:00.123Z"
vectors = []


def add(name, encoded, **line):
    vectors.append((name, bytes(encoded).hex(), json.dumps(line, ensure_ascii=False)))


def b64(b):
    return base64.b64encode(b).decode()


# --- Qpid Proton: types, one amqp-value each -----------------------------------------------------
def typed(name, put, expected):
    """An amqp-value section holding what `put` writes with proton's data API."""
    data = proton.Data()
    data.put_described()
    data.enter()
    data.put_ulong(0x77)
    put(data)
    data.exit()
    add("proton " + name, data.encode(), body=expected, body_encoding="amqp")


def scalar(kind, value, expected):
    typed(f"{kind} {value!r}", lambda d: getattr(d, "put_" + kind)(value), expected)


typed("null", lambda d: d.put_null(), None)
scalar("bool", True, True)
scalar("bool", False, False)
for kind, bits in (("ubyte", 8), ("ushort", 16), ("uint", 32), ("ulong", 64)):
    for n in sorted({0, 1, 127, 128, 255, 256 % 2**bits, 2**bits - 1}):
        scalar(kind, n, n)
for kind, bits in (("byte", 8), ("short", 16), ("int", 32), ("long", 64)):
    for n in sorted({0, 1, -1, 127, -128, (-129 if bits > 8 else 0), 2 ** (bits - 1) - 1, -2 ** (bits - 1)}):
        scalar(kind, n, n)
scalar("float", 1.5, 1.5)
scalar("double", -0.1, -0.1)
scalar("double", float("nan"), "NaN")
scalar("double", float("-inf"), "-Infinity")
scalar("char", "😀", "😀")
scalar("timestamp", MS, RFC)
scalar("timestamp", -1, "1969-12-31T23:59:59.999Z")
scalar("uuid", UUID, str(UUID))
scalar("binary", b"\x00\xff", b64(b"\x00\xff"))
typed("long binary", lambda d: d.put_binary(b"x" * 300), b64(b"x" * 300))
scalar("string", 'é "quoted"\n', 'é "quoted"\n')
typed("long string", lambda d: d.put_string("é" * 150), "é" * 150)
scalar("symbol", "sym", "sym")
typed("long symbol", lambda d: d.put_symbol("s" * 256), "s" * 256)
# BID by bson for 128 bits; 32 and 64 by the layout for coefficients below 2^23 and 2^53.
typed("decimal32 -12.50", lambda d: d.put_decimal32(1 << 31 | (101 - 2) << 23 | 1250), "-12.50")
typed("decimal64 1E+3", lambda d: d.put_decimal64((398 + 3) << 53 | 1), "1E+3")
for text in ("0", "-0", "1", "-1.50", "0.000001", "1E-7", "1.234E+40", "9" * 34, "1E-6176",
             "9.999999999999999999999999999999999E+6144", "NaN", "Infinity", "-Infinity", "0E-3",
             "0.001234567890123456789012345678901234"):
    bid = bson.decimal128.Decimal128(text).bid[::-1]  # bson is little endian
    typed("decimal128 " + text, lambda d: d.put_decimal128(bid), text.replace("0E-3", "0.000"))


def a_list(d):
    d.put_list()
    d.enter()
    d.put_int(-1)
    d.put_list()
    d.put_map()
    d.exit()


typed("list of -1, [] and {}", a_list, [-1, [], {}])


def a_map(d, *pairs):
    d.put_map()
    d.enter()
    for pair in pairs:
        for item in pair:
            d.put_object(item)
    d.exit()


typed("map with text keys", lambda d: a_map(d, ("a", 1), (proton.symbol("b"), None)), {"a": 1, "b": None})
typed("map with other keys", lambda d: a_map(d, ("1", 1), (1, "x"), (True, 2.5)), [["1", 1], [1, "x"], [True, 2.5]])


def an_array(kind, values, described=None):
    def put(d):
        d.put_array(described is not None, getattr(proton.Data, kind.upper()))
        d.enter()
        if described is not None:
            d.put_symbol(described)
        for value in values:
            getattr(d, "put_" + kind)(value)
        d.exit()
    return put


typed("array of ints", an_array("int", [1, -1, 70000]), [1, -1, 70000])
typed("array of strings", an_array("string", ["a", "", "bc"]), ["a", "", "bc"])
typed("array of booleans", an_array("bool", [True, False]), [True, False])
typed("array of nothing", an_array("int", []), [])
typed("array of described symbols", an_array("symbol", ["x", "y"], "d"),
      [{"descriptor": "d", "value": "x"}, {"descriptor": "d", "value": "y"}])


def array_of_lists(d):
    d.put_array(False, proton.Data.LIST)
    d.enter()
    for items in ([1], [], [2, 3]):
        d.put_list()
        d.enter()
        for n in items:
            d.put_int(n)
        d.exit()
    d.exit()


typed("array of lists", array_of_lists, [[1], [], [2, 3]])


def array_of_arrays(d):
    d.put_array(False, proton.Data.ARRAY)
    d.enter()
    for items in ([1, 2], [3]):
        d.put_array(False, proton.Data.INT)
        d.enter()
        for n in items:
            d.put_int(n)
        d.exit()
    d.exit()


typed("array of arrays", array_of_arrays, [[1, 2], [3]])


def described(d):
    d.put_described()
    d.enter()
    d.put_symbol("outer")
    d.put_described()
    d.enter()
    d.put_ulong(7)
    d.put_string("v")
    d.exit()
    d.exit()


typed("described in described", described,
      {"descriptor": "outer", "value": {"descriptor": 7, "value": "v"}})

# --- Qpid Proton: whole messages -----------------------------------------------------------------
add("proton empty message", proton.Message(inferred=True).encode(), header={}, properties={}, body=None,
    body_encoding="amqp")
m = proton.Message(
    body=b'{"a":\n1}', inferred=True, id=UUID, user_id=b"guest", address="to", subject="s",
    reply_to="r", correlation_id=2**64 - 1, content_type="application/json", content_encoding="gzip",
    expiry_time=MS / 1000, creation_time=MS / 1000, group_id="g", group_sequence=4294967295,
    reply_to_group_id="rg", durable=True, priority=9, ttl=1.0, first_acquirer=True, delivery_count=3)
m.instructions = {"x-i": 1}
m.annotations = {"x-stream": "é", proton.ulong(5): [1, "two"]}
m.properties = {"s": "v", "neg": -1, "f": 1.25, "none": None, "ts": proton.timestamp(MS), "b": b"\xff"}
add("proton every section", m.encode(),
    header={"durable": True, "priority": 9, "ttl": 1000, "first_acquirer": True, "delivery_count": 3},
    delivery_annotations={"x-i": 1}, message_annotations={"x-stream": "é", "5": [1, "two"]},
    properties={
        "message_id": str(UUID), "user_id": b64(b"guest"), "to": "to", "subject": "s", "reply_to": "r",
        "correlation_id": 2**64 - 1, "content_type": "application/json", "content_encoding": "gzip",
        "absolute_expiry_time": RFC, "creation_time": RFC, "group_id": "g",
        "group_sequence": 4294967295, "reply_to_group_id": "rg"},
    application_properties={"s": "v", "neg": -1, "f": 1.25, "none": None, "ts": RFC, "b": b64(b"\xff")},
    body={"a": 1}, body_encoding="json")
m = proton.Message(body=[1, {"k": [None, True]}], inferred=True, id="text id")
add("proton sequence", m.encode(), header={}, properties={"message_id": "text id"},
    body=[[1, {"k": [None, True]}]], body_encoding="amqp")
m = proton.Message(body="value", id=b"\x01\x02")
add("proton value", m.encode(), header={}, properties={"message_id": b64(b"\x01\x02")}, body="value",
    body_encoding="amqp")

# --- rstream, as users of RabbitMQ streams publish from Python -----------------------------------
add("rstream text", bytes(AMQPMessage(body=b"hello: 1")), body="hello: 1", body_encoding="text")
add("rstream bytes", bytes(AMQPMessage(body=b"\xff\x00")), body=b64(b"\xff\x00"), body_encoding="base64")
add("rstream long text", bytes(AMQPMessage(body="é".encode() * 200)), body="é" * 200, body_encoding="text")
add("rstream properties", bytes(AMQPMessage(
    body=b"123",
    properties=RProperties(message_id="m", subject="s", group_sequence=5,
                           creation_time=datetime.datetime.fromtimestamp(MS // 1000, datetime.timezone.utc)),
    application_properties={"region": "emea", "id": -1, "big": 70000})),
    properties={"message_id": "m", "subject": "s", "creation_time": RFC.replace(".123", ".000"),
                "group_sequence": 5},
    application_properties={"region": "emea", "id": -1, "big": 70000}, body=123, body_encoding="json")
add("rstream header and annotations", bytes(AMQPMessage(
    body=b"x", header=RHeader(durable=True, priority=4, ttl=None, first_acquirer=None, delivery_count=0),
    message_annotations={"x-opt": "v"}, footer={"f": "end"})),
    header={"durable": True, "priority": 4, "delivery_count": 0}, message_annotations={"x-opt": "v"},
    footer={"f": "end"}, body="x", body_encoding="text")
add("rstream value", bytes(AMQPMessage(value={"k": [1, 2.5, None]})), body={"k": [1, 2.5, None]},
    body_encoding="amqp")

# --- pyamqp of azure-servicebus ------------------------------------------------------------------


def azure(**kwargs):
    out = bytearray()
    azure_encode.encode_payload(out, azure_message.Message(**kwargs))
    return out


def t(kind, value):
    return {TYPE: kind, VALUE: value}


add("azure several data sections", azure(data=[b"one ", b"", b"two"]), body="one two", body_encoding="text")
add("azure several sequences", azure(sequence=[[1], [], ["x"]]), body=[[1], [], ["x"]], body_encoding="amqp")
add("azure empty data", azure(data=[b""]), body="", body_encoding="text")
add("azure value", azure(value={
    "i": t(AMQPTypes.int, -1),
    "l": t(AMQPTypes.long, -2**63),
    "u": t(AMQPTypes.uuid, UUID),
    "a": t(AMQPTypes.array, [t(AMQPTypes.symbol, b"p"), t(AMQPTypes.symbol, b"q")]),
    "f": t(AMQPTypes.float, 0.5),
    "d": Decimal("-12.345"),
}), body={"i": -1, "l": -2**63, "u": str(UUID), "a": ["p", "q"], "f": 0.5, "d": "-12.345"},
    body_encoding="amqp")
# rstream takes a str as body and writes a data section whose size is wrong: None means undecodable.
vectors.append(("rstream str as body", bytes(AMQPMessage(body="hello: 1")).hex(), None))

print("//! Made by make_vectors.py beside this file, with python-qpid-proton 0.40.0, rstream 1.1.1,")
print("//! azure-servicebus 7.15.0 (its pyamqp) and pymongo 4.20.0 (decimal128). Not edited by hand.")
print()
print("/// What was encoded and by whom; the message in hex; the JSON that its line should")
print("/// hold, or none where the message is malformed.")
print("#[rustfmt::skip]")
print(f"pub(crate) const VECTORS: [(&str, &str, Option<&str>); {len(vectors)}] = [")
for name, encoded, line in vectors:
    expected = "None" if line is None else f'Some(r#"{line}"#)'
    print(f'    (r#"{name}"#, "{encoded}", {expected}),')
print("];")
