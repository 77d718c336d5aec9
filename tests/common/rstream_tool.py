"""A second client, as a command, for the tests: what the official Rust client cannot do, and an
independent reader of what brokers keep.

    rstream_tool.py --port P publish STREAM [--sub-entry N [--compression CODEC]] [--publisher NAME] [--filter VALUE]
        one message per line of standard input, each a JSON object with one of (bytes are in hex)
          "raw":   the bytes to store as they are, valid AMQP 1.0 or not
          "body":  the body of an AMQP 1.0 data section; with "times": N, repeated so often
          "value": any JSON value, as the body of an AMQP 1.0 value section
        and, beside the latter two, "properties", "application_properties" and "message_annotations".
        --sub-entry N puts N messages into each sub-entry batch. Prints {"confirmed": N}.
    rstream_tool.py --port P query-offset STREAM REFERENCE           {"offset": N}, or null for none
    rstream_tool.py --port P store-offset STREAM REFERENCE OFFSET
    rstream_tool.py --port P consume STREAM --count N [--from OFFSET]
        a line {"offset": N, "timestamp_ms": N, "raw": HEX} for each message
    rstream_tool.py --port P latest STREAM --count N
        reads the first N messages, whose bodies are {"id": K, "v": V} or {"id": K, "op": "d"}, and prints
        {"K": [OFFSET, V], …}: what is left of each key
    rstream_tool.py --port P watch STREAM [--from OFFSET]
        a line "OFFSET TIMESTAMP_MS" for each message as it comes, for ever; ends with exit code 4 when the
        connection does
    rstream_tool.py --port P create STREAM [--argument KEY=VALUE]…   e.g. max-length-bytes=1000000
    rstream_tool.py --port P delete STREAM
    rstream_tool.py --port P super-stream NAME PARTITIONS
        creates NAME with that many partitions, NAME-0, NAME-1, …, of which the bindings are 0, 1, …

It does one thing and ends; what goes wrong goes to standard error, with exit code 1.
"""

import argparse
import asyncio
import json
import os
import sys

import cramjam
import lz4.frame
import zstandard
from rstream import (
    AMQPMessage,
    CompressionType,
    Consumer,
    ConsumerOffsetSpecification,
    OffsetType,
    Producer,
    amqp_decoder,
)
from rstream._pyamqp.message import Properties
from rstream.compression import GzipCompressionCodec, NoneCompressionCodec, StreamCompressionCodecs
from rstream.exceptions import OffsetNotFound, StreamNotAvailable

SECONDS_MAX = 60


def crc32c(data: bytes) -> int:
    """The checksum of the snappy framing format; no package that rstream needs has it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def snappy_framed(data: bytes) -> bytes:
    """Snappy as the Java client writes it: a stream identifier, then chunks of at most 64 KiB.

    The framing is written out here, and every third chunk is left uncompressed, so that what reads
    it is not only checked against the library that it uses itself.
    """
    framed = b"\xff\x06\x00\x00sNaPpY"
    for nth, start in enumerate(range(0, len(data), 65536)):
        chunk = data[start : start + 65536]
        crc = crc32c(chunk)
        masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
        packed = chunk if nth % 3 == 2 else bytes(cramjam.snappy.compress_raw(chunk))
        kind = b"\x01" if nth % 3 == 2 else b"\x00"
        framed += kind + (len(packed) + 4).to_bytes(3, "little") + masked.to_bytes(4, "little") + packed
    return framed


class Codec(NoneCompressionCodec):
    """rstream's own batch without compression, then compressed."""

    number = 0

    def compress(self, messages):
        super().compress(messages)
        self.buffer = self.pack(self.buffer)
        self.compressed_data_size = len(self.buffer)

    def uncompress(self, compressed_data: bytes, uncompressed_data_size: int) -> bytes:
        return self.unpack(compressed_data)

    def compression_type(self) -> int:
        return self.number


class Snappy(Codec):
    number = 2
    pack = staticmethod(snappy_framed)
    unpack = staticmethod(lambda data: bytes(cramjam.snappy.decompress(data)))


class Lz4(Codec):
    number = 3
    pack = staticmethod(lz4.frame.compress)
    unpack = staticmethod(lz4.frame.decompress)


class Zstd(Codec):
    number = 4
    pack = staticmethod(zstandard.compress)
    # What others write need not say how much there will be.
    unpack = staticmethod(lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data))


COMPRESSIONS = {
    "none": (CompressionType.No, NoneCompressionCodec),
    "gzip": (CompressionType.Gzip, GzipCompressionCodec),
    "snappy": (CompressionType.Snappy, Snappy),
    "lz4": (CompressionType.Lz4, Lz4),
    "zstd": (CompressionType.Zstd, Zstd),
}
for kind, codec in COMPRESSIONS.values():
    StreamCompressionCodecs.register_codec(kind, codec())


def finish(answer=None):
    """Ends the process, with the connections as they are: rstream takes its time in closing them."""
    if answer is not None:
        print(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)


def message(line: str):
    fields = json.loads(line)
    if "raw" in fields:
        return bytes.fromhex(fields["raw"])
    parts = {key: fields[key] for key in ("application_properties", "message_annotations") if key in fields}
    if "properties" in fields:
        parts["properties"] = Properties(**fields["properties"])
    if "value" in fields:
        return AMQPMessage(value=fields["value"], **parts)
    return AMQPMessage(body=bytes.fromhex(fields["body"]) * fields.get("times", 1), **parts)


async def publish(at, args):
    messages = [message(line) for line in sys.stdin if line.strip()]
    expected = len(messages) if not args.sub_entry else -(-len(messages) // args.sub_entry)
    confirmed, failed, done = 0, [], asyncio.Event()

    def on_confirm(status):
        nonlocal confirmed
        if status.is_confirmed:
            confirmed += 1
        else:
            failed.append(status.response_code)
        if confirmed + len(failed) == expected:
            done.set()

    async def filter_value(_message):
        return args.filter

    options = {"filter_value_extractor": filter_value} if args.filter is not None else {}
    async with Producer(**at, **options) as producer:
        common = {"publisher_name": args.publisher, "on_publish_confirm": on_confirm}
        if not expected:
            done.set()
        elif not args.sub_entry:
            # A frame each, well under what a broker takes, and many messages in each.
            for start in range(0, len(messages), 1000):
                await producer.send_batch(args.stream, messages[start : start + 1000], **common)
        else:
            kind, _ = COMPRESSIONS[args.compression]
            for start in range(0, len(messages), args.sub_entry):
                batch = messages[start : start + args.sub_entry]
                await producer.send_sub_entry(args.stream, batch, compression_type=kind, **common)
            # What its timer does every half second.
            await producer._publish_buffered_messages(args.stream)
        await done.wait()
        if failed:
            raise OSError(f"the broker refused {len(failed)} of {expected} entries, with code {failed[0]}")
        finish({"confirmed": len(messages)})


async def query_offset(at, args):
    finish({"offset": await stored_offset(at, args)})


async def stored_offset(at, args):
    """What is stored, or None. While a broker's streams come up after its start it answers "not
    available", or drops the connection: asked again until it says one or the other."""
    while True:
        try:
            async with Consumer(**at) as consumer:
                return await asyncio.wait_for(consumer.query_offset(args.stream, args.reference), 3)
        except OffsetNotFound:
            return None
        except (StreamNotAvailable, OSError, asyncio.TimeoutError):
            await asyncio.sleep(0.2)


async def store_offset(at, args):
    async with Consumer(**at) as consumer:
        await consumer.store_offset(args.stream, args.reference, args.offset)
        # It has no answer; a question on the same connection is answered after it was taken in.
        await consumer.query_offset(args.stream, args.reference)
        finish()


async def consume(at, args):
    seen, done = 0, asyncio.Event()

    def on_message(raw, context):
        nonlocal seen
        if seen < args.count:
            print(json.dumps({"offset": context.offset, "timestamp_ms": context.timestamp, "raw": bytes(raw).hex()}))
        seen += 1
        if seen >= args.count:
            done.set()

    if args.count == 0:
        finish()
    start = ConsumerOffsetSpecification(OffsetType.FIRST, None)
    if args.start is not None:
        start = ConsumerOffsetSpecification(OffsetType.OFFSET, args.start)
    async with Consumer(**at) as consumer:
        await consumer.subscribe(args.stream, on_message, decoder=bytes, offset_specification=start)
        await done.wait()
        finish()


async def latest(at, args):
    seen, left, done = 0, {}, asyncio.Event()

    def on_message(message, context):
        nonlocal seen
        if seen < args.count:
            change = json.loads(message.body if isinstance(message.body, bytes) else b"".join(message.body))
            if change.get("op") == "d":
                left.pop(change["id"], None)
            else:
                left[change["id"]] = [context.offset, change["v"]]
        seen += 1
        if seen >= args.count:
            done.set()

    start = ConsumerOffsetSpecification(OffsetType.FIRST, None)
    async with Consumer(**at) as consumer:
        await consumer.subscribe(args.stream, on_message, decoder=amqp_decoder, offset_specification=start)
        await done.wait()
        finish(left)


async def watch(at, args):
    def on_message(_raw, context):
        print(context.offset, context.timestamp)

    async def on_close(_info):
        sys.stdout.flush()
        os._exit(4)

    offset = ConsumerOffsetSpecification(OffsetType.OFFSET, args.start or 0)
    async with Consumer(**at, on_close_handler=on_close) as consumer:
        await consumer.subscribe(args.stream, on_message, decoder=bytes, offset_specification=offset)
        while True:
            sys.stdout.flush()
            await asyncio.sleep(0.1)


async def create(at, args):
    async with Producer(**at) as producer:
        await producer.create_stream(args.stream, arguments=dict(pair.split("=", 1) for pair in args.argument))
        finish()


async def delete(at, args):
    async with Producer(**at) as producer:
        await producer.delete_stream(args.stream)
        finish()


async def super_stream(at, args):
    async with Producer(**at) as producer:
        client = await producer.default_client
        keys = [str(key) for key in range(args.partitions)]
        await client.create_super_stream(args.stream, [f"{args.stream}-{key}" for key in keys], keys, {})
        finish()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="localhost")
    parser.add_argument("--port", type=int, required=True)
    verbs = parser.add_subparsers(required=True)

    def verb(name, run):
        sub = verbs.add_parser(name)
        sub.add_argument("stream")
        sub.set_defaults(run=run)
        return sub

    sub = verb("publish", publish)
    sub.add_argument("--sub-entry", type=int, default=0)
    sub.add_argument("--compression", choices=COMPRESSIONS, default="none")
    sub.add_argument("--publisher")
    sub.add_argument("--filter")
    verb("query-offset", query_offset).add_argument("reference")
    sub = verb("store-offset", store_offset)
    sub.add_argument("reference")
    sub.add_argument("offset", type=int)
    sub = verb("consume", consume)
    sub.add_argument("--count", type=int, required=True)
    sub.add_argument("--from", dest="start", type=int)
    verb("latest", latest).add_argument("--count", type=int, required=True)
    verb("watch", watch).add_argument("--from", dest="start", type=int)
    verb("create", create).add_argument("--argument", action="append", default=[])
    verb("delete", delete)
    verb("super-stream", super_stream).add_argument("partitions", type=int)

    args = parser.parse_args()
    # The broker's own limit is what counts; without this, rstream asks for 1 MiB.
    at = {"host": args.host, "port": args.port, "username": "guest", "password": "guest", "frame_max": 1 << 26}
    asyncio.run(asyncio.wait_for(args.run(at, args), None if args.run in (watch, latest) else SECONDS_MAX))


if __name__ == "__main__":
    main()
