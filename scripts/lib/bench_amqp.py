"""Measures consumers of a stream over AMQP 0.9.1 beside each other: Rillway, lapin and pika.

bench_amqp.py RILLWAY LAPIN AMQP_PORT STREAM_PORT ROUNDS SECONDS SIZE[xMESSAGES]...

Each consumer is a process of its own, and they take turns, round by round. Measured is the time between the
first message and the last; of Rillway between two looks at its own metrics. A consumer that takes longer than
SECONDS is stopped; its rate is that of what it had read by then. Prints a table for each size: medians.

As `bench_amqp.py pika PORT QUEUE MESSAGES PREFETCH ACK_EVERY SECONDS` it is the consumer on pika.
"""
import http.client, os, re, socket, statistics, subprocess, sys, tempfile, time



def pika_consumer(port, queue, messages, prefetch, ack_every, seconds):
    import pika

    messages, ack_every, seconds = int(messages), int(ack_every), float(seconds)
    parameters = pika.ConnectionParameters("localhost", int(port))
    channel = pika.BlockingConnection(parameters).channel()
    channel.basic_qos(prefetch_count=int(prefetch))
    state = {"read": 0, "began": 0.0}

    def on_message(channel, method, properties, body):
        if state["read"] == 0:
            state["began"] = time.monotonic()
        state["read"] += 1
        if state["read"] % ack_every == 0:
            channel.basic_ack(method.delivery_tag, multiple=ack_every > 1)
        late = state["read"] % 256 == 0 and time.monotonic() - state["began"] > seconds
        if state["read"] >= messages or late:
            channel.stop_consuming()

    channel.basic_consume(queue, on_message, arguments={"x-stream-offset": "first"})
    channel.start_consuming()
    print("run", state["read"], int((time.monotonic() - state["began"]) * 1e9), flush=True)
    os._exit(0)


def cpu_seconds(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{pid}/status").read())[1]) / 1024


class Run:
    def __init__(self, messages, seconds, cpu, peak, whole):
        self.rate, self.cpu_us, self.peak, self.whole = messages / seconds, cpu * 1e6 / messages, peak, whole


def peer(command, messages):
    """A consumer that says itself what it did; its processor time includes its start."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    cpu = peak = 0.0
    while process.poll() is None:
        try:
            cpu, peak = cpu_seconds(process.pid), peak_mib(process.pid)
        except (FileNotFoundError, TypeError):
            pass  # It is ending.
        time.sleep(0.01)
    said = process.stdout.read().split()
    if process.returncode != 0 or said[:1] != ["run"]:
        raise SystemExit(f"{command[0]} failed: {process.returncode} {said}")
    read = int(said[1])
    return Run(read, int(said[2]) / 1e9, cpu, peak, read >= messages)


def rillway(binary, uri, stream, messages, limit):
    home = tempfile.TemporaryDirectory()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        admin = free.getsockname()[1]
    open(f"{home.name}/rillway.toml", "w").write(f"""
        admin = {{ listen = "127.0.0.1:{admin}" }}
        state_dir = "state"
        [broker]
        uri = "{uri}"
        [[consumer]]
        name = "c"
        stream = "{stream}"
        start = "first"
        sink = {{ type = "null" }}
    """)
    log = open(f"{home.name}/log", "w")
    process = subprocess.Popen([binary, "run", "-c", "rillway.toml"], cwd=home.name, stdout=subprocess.DEVNULL, stderr=log)
    connection = http.client.HTTPConnection("127.0.0.1", admin)

    def look():
        connection.request("GET", "/metrics")
        text = connection.getresponse().read()
        found = re.search(rb"rillway_written_messages_total\{[^}]*\} (\d+)", text)
        return time.monotonic(), int(found[1]) if found else 0

    try:
        first, last = None, (0.0, 0)
        while last[1] < messages and (first is None or last[0] - first[0] < limit):
            if process.poll() is not None:
                raise SystemExit(open(f"{home.name}/log").read())
            try:
                last = look()
            except (ConnectionError, http.client.HTTPException):
                connection.close()
            if first is None and last[1] > 0:
                first = last
            time.sleep(0.005)
        read, seconds = last[1] - first[1], last[0] - first[0]
        return Run(read, seconds, cpu_seconds(process.pid), peak_mib(process.pid), last[1] >= messages)
    finally:
        process.kill()
        process.wait()
        for line in open(f"{home.name}/log"):
            if " INFO " not in line:
                print("# its log:", line.strip(), file=sys.stderr)


def publish(binary, port, stream, size, messages):
    command = [binary, "publish", stream, "--create", "--uri", f"rabbitmq-stream://guest:guest@localhost:{port}/%2f", "--batch", "400"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for number in range(messages):
        process.stdin.write(b'{"i":%0*d}\n' % (size - 6, number + 10 ** (size - 7)))
    process.stdin.close()
    if process.wait() != 0:
        raise SystemExit("publishing failed")


def table(size, messages, runs):
    print(f"\n**{size} B: {messages} messages**\n")
    print("| | messages/s | lowest to highest | CPU µs/message | peak MiB | × lapin, 1,000 |")
    print("|---|--:|--:|--:|--:|--:|")
    rate = lambda name: statistics.median(run.rate for run in runs[name])
    for name, all in runs.items():
        rates = [run.rate for run in all]
        cut = "" if all[0].whole else " (stopped at its time limit)"
        cpu, peak = statistics.median(run.cpu_us for run in all), max(run.peak for run in all)
        ratio = rate(name) / rate("lapin, prefetch 1,000")
        print(f"| {name}{cut} | {rate(name):,.0f} | {min(rates):,.0f} – {max(rates):,.0f} | {cpu:.2f} | {peak:.0f} | {ratio:.2f} |", flush=True)


def main(binary, lapin, amqp_port, stream_port, rounds, seconds, *cases):
    pika = [sys.executable, __file__, "pika"]
    for case in cases:
        size, _, messages = case.partition("x")
        size, messages = int(size), int(messages or 400_000)
        stream = f"bench-amqp-{size}-{os.getpid()}"
        print(f"# publishing {messages} messages of {size} B", file=sys.stderr)
        publish(binary, stream_port, stream, size, messages)
        amqp = f"amqp://guest:guest@localhost:{amqp_port}/%2f"
        limit = float(seconds)
        peers = {"rillway, `amqp://`": lambda: rillway(binary, amqp, stream, messages, limit)}
        for name, command in [("lapin", [lapin]), ("pika", pika)]:
            for prefetch, every in [(100, 1), (1000, 1), (1000, 500)]:
                how = f"{name}, prefetch {prefetch:,}" + (f", acks of {every}" if every > 1 else "")
                call = command + [amqp_port, stream, str(messages), str(prefetch), str(every), seconds]
                peers[how] = lambda call=call: peer(call, messages)
        runs = {name: [] for name in peers}
        for number in range(int(rounds)):
            for name, run in peers.items():
                runs[name].append(run())
                print(f"# {size} B, round {number + 1}: {name}: {runs[name][-1].rate:,.0f}/s", file=sys.stderr)
        table(size, messages, runs)


if __name__ == "__main__":
    if sys.argv[1:2] == ["pika"]:
        pika_consumer(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
