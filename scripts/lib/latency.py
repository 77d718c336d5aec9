"""Publishes at a rate, and asks the daemon how far it is: how long from publish to durable, sink by sink.

latency.py BINARY STREAM_PORT SECONDS RATE [SINK ...]

Offsets are the numbers of the messages, since nothing is stored meanwhile. Resolution: the 2 ms between two
questions. Prints, for each sink: p50, p99 and the most in milliseconds, the daemon's CPU per message in
microseconds (the questions included), and its batches a second.
"""
import asyncio, http.client, json, os, re, socket, subprocess, sys, tempfile, time, uuid

from rstream import AMQPMessage, Producer

SINKS = {
    "null": '{ type = "null" }',
    "stdout": '{ type = "stdout" }',
    "file": '{ type = "file", dir = "out" }',
    "sqlite": '{ type = "sqlite", path = "out.db", table = "t" }',
    "stream": '{ type = "stream", stream = "TARGET", create = true }',
}


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Daemon:
    def __init__(self, binary, port, stream, sink, batch):
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
            {batch}
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


async def measure(binary, port, seconds, rate, sink, batch=""):
    stream = f"latency-{uuid.uuid4().hex[:8]}"
    sent, latencies = [], []
    async with Producer("localhost", port, username="guest", password="guest") as producer:
        await producer.create_stream(stream)
        daemon = Daemon(binary, port, stream, sink, batch)
        try:
            while daemon.durable()[0] != "running":
                await asyncio.sleep(0.05)
            total = int(seconds * rate)

            async def publish():
                start = time.monotonic()
                while len(sent) < total:
                    due = min(total, int((time.monotonic() - start) * rate) + 1)
                    now = time.monotonic()
                    batch = [AMQPMessage(body=b"%d of a hundred bytes or so, as an event may have them in real life......" % n)
                             for n in range(len(sent), due)]
                    sent.extend([now] * len(batch))
                    if batch:
                        await producer.send_batch(stream, batch)
                    await asyncio.sleep(max(0.001, 1 / rate if rate < 1000 else 0.001))

            publishing = asyncio.create_task(publish())
            before, cpu, writes = -1, cpu_seconds(daemon.process.pid), daemon.writes()
            began = time.monotonic()
            while before + 1 < total:
                _, durable = await asyncio.to_thread(daemon.durable)
                now = time.monotonic()
                if durable is not None and durable > before:
                    latencies.extend(now - sent[n] for n in range(before + 1, durable + 1))
                    before = durable
                if publishing.done():
                    publishing.result()
                if now - began > seconds + 20:
                    shown = daemon.get("/api/v1/consumers").decode()
                    raise SystemExit(f"{sink}: {before + 1} of {total} in time: {shown}")
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
    return f"{at(0.5):8.1f} {at(0.99):8.1f} {at(1):8.1f} {1e6 * cpu / total:10.1f} {writes / took:8.1f}"


async def main():
    binary, port, seconds, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    print(f"{rate} messages a second, {seconds:g} s each")
    print(f"{'sink':24} {'p50 ms':>8} {'p99 ms':>8} {'max ms':>8} {'CPU us/msg':>10} {'writes/s':>8}")
    for sink in sys.argv[5:] or SINKS:
        print(f"{sink:24}", await measure(binary, port, seconds, rate, sink), flush=True)


asyncio.run(main())
