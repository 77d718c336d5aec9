"""Measures the time from publish to durable, sink by sink: publishes at a rate, and asks the daemon for its
durable offset.

latency.py BINARY STREAM_PORT SECONDS RATE[,RATE...] SINK...

Nothing else is written to the stream, so a message's offset is its number. Resolution: the 2 ms between two
requests. Prints, for each rate and sink: the rate that was reached, p50, p99 and the maximum in milliseconds,
the daemon's CPU time per message in microseconds (these requests included), and its writes per second.
The sink postgres needs a server's URL in RILLWAY_BENCH_POSTGRES.
"""
import asyncio, http.client, json, os, re, socket, subprocess, sys, tempfile, time, uuid

from rstream import Producer

SINKS = {
    "null": '{ type = "null" }',
    "stdout": '{ type = "stdout" }',
    "file": '{ type = "file", dir = "out" }',
    "sqlite": '{ type = "sqlite", path = "out.db", table = "t" }',
    "stream": '{ type = "stream", stream = "TARGET", create = true }',
    "postgres": '{ type = "postgres", table = "TARGET", url = { env = "RILLWAY_BENCH_POSTGRES" } }',
}
# How long a sink may need after the last message was published.
LATE_SECONDS_MAX = 60
# 5,000 messages fit into a frame.
BATCH_MAX = 5_000
# An AMQP message is written by hand: the client's own encoder cannot keep up with 100,000 a second.
BODY = b"%010d of a hundred bytes or so, as an event may have them in real life......................"
DATA_SECTION = b"\x00Su\xa0" + bytes([len(BODY % 0)])


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon:
    def __init__(self, binary, port, stream, sink):
        self.home = tempfile.TemporaryDirectory()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            admin = free.getsockname()[1]
        config = f"""
            admin = {{ listen = "127.0.0.1:{admin}" }}
            state_dir = "state"
            [broker]
            uri = "rabbitmq-stream://guest:guest@localhost:{port}"
            [[consumer]]
            name = "c"
            stream = "{stream}"
            commit = {{ every_messages = 1000000000, every = "1h" }}
            sink = {SINKS[sink].replace("TARGET", stream + "-copy")}
        """
        open(f"{self.home.name}/rillway.toml", "w").write(config)
        log = open(f"{self.home.name}/log", "w")
        self.process = subprocess.Popen(
            [binary, "run", "-c", "rillway.toml"], cwd=self.home.name, stdout=subprocess.DEVNULL, stderr=log
        )
        self.http = http.client.HTTPConnection("127.0.0.1", admin)
        while True:
            try:
                return self.http.connect()
            except ConnectionRefusedError:
                if self.process.poll() is not None:
                    raise SystemExit(open(f"{self.home.name}/log").read())
                time.sleep(0.05)

    def get(self, path):
        self.http.request("GET", path)
        return self.http.getresponse().read()

    def durable(self):
        consumer = json.loads(self.get("/api/v1/consumers"))["consumers"][0]
        return consumer["state"], consumer["durable_offset"]

    def writes(self):
        found = re.search(rb"rillway_sink_write_duration_seconds_count\{[^}]*\} (\d+)", self.get("/metrics"))
        return int(found[1]) if found else 0


async def measure(binary, port, seconds, rate, sink):
    stream = f"latency-{uuid.uuid4().hex[:8]}"
    sent, latencies = [], []
    async with Producer("localhost", port, username="guest", password="guest") as producer:
        await producer.create_stream(stream)
        daemon = Daemon(binary, port, stream, sink)
        try:
            while daemon.durable()[0] != "running":
                await asyncio.sleep(0.05)
            total = int(seconds * rate)

            async def publish():
                start = time.monotonic()
                while len(sent) < total:
                    due = min(total, len(sent) + BATCH_MAX, int((time.monotonic() - start) * rate) + 1)
                    now = time.monotonic()
                    batch = [DATA_SECTION + BODY % n for n in range(len(sent), due)]
                    sent.extend([now] * len(batch))
                    if batch:
                        await producer.send_batch(stream, batch)
                    await asyncio.sleep(max(0.001, 1 / rate if rate < 1000 else 0.001))

            began = time.monotonic()
            publishing = asyncio.create_task(publish())
            before, cpu, writes = -1, cpu_seconds(daemon.process.pid), daemon.writes()
            while before + 1 < total:
                _, durable = await asyncio.to_thread(daemon.durable)
                now = time.monotonic()
                if durable is not None and durable > before:
                    latencies.extend(now - sent[n] for n in range(before + 1, durable + 1))
                    before = durable
                if publishing.done():
                    publishing.result()
                if now - began > seconds + LATE_SECONDS_MAX:
                    publishing.cancel()
                    return f"{before + 1} of {total} durable {LATE_SECONDS_MAX} s after the end: {daemon.durable()[0]}"
                await asyncio.sleep(0.002)
            await publishing
            took = time.monotonic() - began
            cpu, writes = cpu_seconds(daemon.process.pid) - cpu, daemon.writes() - writes
        finally:
            daemon.process.terminate()
            daemon.process.wait()
            await producer.delete_stream(stream)
            if sink == "stream":
                await producer.delete_stream(stream + "-copy")
    latencies.sort()
    at = lambda part: 1000 * latencies[min(len(latencies) - 1, int(part * len(latencies)))]
    reached = total / (sent[-1] - began) if total > 1 else 0
    return f"{reached:10.0f} {at(0.5):8.1f} {at(0.99):8.1f} {at(1):8.1f} {1e6 * cpu / total:10.1f} {writes / took:8.1f}"


async def main():
    binary, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    for rate in [int(rate) for rate in sys.argv[4].split(",")]:
        print(f"{rate} messages per second, {seconds:g} s each")
        print(f"{'sink':10} {'reached/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'CPU us/msg':>10} {'writes/s':>8}")
        for sink in sys.argv[5:]:
            print(f"{sink:10}", await measure(binary, port, seconds, rate, sink), flush=True)


asyncio.run(main())
