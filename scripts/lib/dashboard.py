"""Draws the Grafana dashboard from its own JSON and queries, and a Prometheus that answers them.

    dashboard.py DASHBOARD.json PROMETHEUS_URL OUTPUT.svg [SECONDS]

Not Grafana's renderer: the same panels, places, queries, units and thresholds, drawn more simply. Python's own library
is all that it needs.
"""

import json
import re
import sys
import time
import urllib.parse
import urllib.request
from xml.sax.saxutils import escape

COLUMN, ROW, GAP, HEAD = 60, 34, 4, 20
COLOURS = ["#3f8f4f", "#d8a01d", "#4a7fc1", "#d0662b", "#b5483f", "#7b5fb0", "#2f9c95", "#9a7d4f", "#c25a94", "#5b6b7a"]
NAMED = {"green": "#3f8f4f", "orange": "#d9822b", "red": "#c0392b", "blue": "#4a7fc1"}
LEGEND_MAX = 4


def main(path, prometheus, output, seconds=60):
    dashboard = json.load(open(path))
    seconds = int(seconds)
    now = time.time()
    step = max(seconds / 120, 0.2)
    ask = Prometheus(prometheus, now, seconds, step)
    drawn, bottom = [], 0
    for panel in dashboard["panels"]:
        at = panel["gridPos"]
        x, y, w, h = at["x"] * COLUMN, at["y"] * ROW, at["w"] * COLUMN - GAP, at["h"] * ROW - GAP
        bottom = max(bottom, y + h)
        drawn.append(f'<g transform="translate({x},{y})">{draw(panel, w, h, ask)}</g>')
    with open(output, "w") as file:
        file.write(
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{24 * COLUMN}" height="{bottom + GAP}" '
            f'font-family="Helvetica, Arial, sans-serif" font-size="11">'
            f'<rect width="100%" height="100%" fill="#f4f5f5"/>{"".join(drawn)}</svg>\n'
        )


class Prometheus:
    def __init__(self, address, now, seconds, step):
        self.address, self.now, self.seconds, self.step = address, now, seconds, step

    def get(self, path, **parameters):
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}") as answer:
            found = json.load(answer)["data"]["result"]
        for one in found:
            # The tests' streams have names of their own for each run.
            one["metric"] = {k: re.sub(r"-\d+-[0-9a-f]{6,}-\d+$", "", v) for k, v in one["metric"].items()}
        return found

    def filled(self, query):
        query = re.sub(r"\$(instance|consumer|stream)\b", ".*", query)
        return query.replace("$__rate_interval", "5s").replace("$__range", f"{self.seconds}s")

    def instant(self, target):
        return self.get("query", query=self.filled(target["expr"]), time=self.now)

    def range(self, target):
        start = self.now - self.seconds
        return self.get("query_range", query=self.filled(target["expr"]), start=start, end=self.now, step=self.step)


def draw(panel, w, h, ask):
    if panel["type"] == "row":
        return text(4, 20, panel["title"], size=13, weight="bold")
    frame = f'<rect width="{w}" height="{h}" fill="#fff" stroke="#ddd"/>' + text(8, 15, panel["title"], weight="bold")
    kind = {"stat": stat, "table": table, "timeseries": series}[panel["type"]]
    return frame + kind(panel, w, h, ask)


def text(x, y, words, size=11, weight="normal", anchor="start", fill="#333"):
    return (
        f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{fill}">{escape(str(words))}</text>'
    )


def shown(value, unit):
    if unit == "s":
        for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
            if abs(value) >= size:
                return f"{value / size:.1f} {name}"
        return f"{value:.2g} s" if abs(value) < 10 else f"{value:.0f} s"
    if unit == "percentunit":
        return f"{100 * value:.2g} %" if 0 < value < 0.1 else f"{100 * value:.0f} %"
    base, ends = (1024, ["", " KiB", " MiB", " GiB"]) if unit in ("bytes", "Bps") else (1000, ["", " K", " Mil", " Bil"])
    n = 0
    while abs(value) >= base and n < 3:
        value, n = value / base, n + 1
    return f"{value:.3g}{ends[n]}{'/s' if unit == 'Bps' else ''}"


def unit_of(panel):
    return panel["fieldConfig"]["defaults"].get("unit", "short")


def stat(panel, w, h, ask):
    found = ask.instant(panel["targets"][0])
    value = float(found[0]["value"][1])
    colour = "green"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if step["value"] is None or value >= step["value"]:
            colour = step["color"]
    box = f'<rect x="1" y="{HEAD}" width="{w - 2}" height="{h - HEAD - 1}" fill="{NAMED[colour]}"/>'
    words = shown(value, unit_of(panel))
    return box + text(w / 2, HEAD + (h - HEAD) / 2 + 12, words, size=34, weight="bold", anchor="middle", fill="#fff")


def table(panel, w, h, ask):
    rows = {}
    organize = next(t for t in panel["transformations"] if t["id"] == "organize")["options"]["renameByName"]
    names = list(organize.values())
    for target in panel["targets"]:
        for one in ask.instant(target):
            key = tuple(one["metric"].get(label, "") for label in ("instance", "consumer", "stream"))
            rows.setdefault(key, {})[organize[f"Value #{target['refId']}"]] = float(one["value"][1])
    drawn = []
    # The first three are words, and wider.
    places = [8 + (w / 12) * (1.5 * min(n, 3) + max(n - 3, 0) * 1.25) for n in range(len(names))]
    for n, name in enumerate(names):
        drawn.append(text(places[n], HEAD + 16, name, weight="bold", fill="#666"))
    units = {"Lag": "s"}
    by_ready = sorted(rows.items(), key=lambda row: (row[1].get("Ready", 0), row[0]))
    for nth, (key, values) in enumerate(by_ready[: int((h - HEAD - 20) / 20)]):
        y = HEAD + 36 + nth * 20
        cells = list(key) + [values.get(name) for name in names[3:]]
        for n, cell in enumerate(cells):
            fill = "#333"
            if names[n] == "Ready":
                cell, fill = ("yes", NAMED["green"]) if cell else ("no", NAMED["red"])
            elif isinstance(cell, float):
                cell = f"{cell:.0f}" if names[n] == "Durable offset" else shown(cell, units.get(names[n], "short"))
            drawn.append(text(places[n], y, "" if cell is None else cell, fill=fill))
    return "".join(drawn)


def bends(points):
    """The points without those between two of the same height."""
    inner = zip(points, points[1:], points[2:])
    return points[:1] + [b for a, b, c in inner if not a[1] == b[1] == c[1]] + points[1:][-1:]


def series(panel, w, h, ask):
    lines = []
    for target in panel["targets"]:
        for one in ask.range(target):
            label = re.sub(r"\{\{(\w+)\}\}", lambda m: one["metric"].get(m[1], ""), target["legendFormat"])
            points = [(t, float(v)) for t, v in one["values"] if v not in ("NaN", "+Inf", "-Inf")]
            if points:
                lines.append((label.strip(), points))
    lines.sort(key=lambda line: -max(v for _, v in line[1]))
    values = [v for _, points in lines for _, v in points] or [0]
    low, high = min(0, min(values)), max(values) or 1
    high += (high - low) * 0.08
    legends = min(len(lines), LEGEND_MAX) + (len(lines) > LEGEND_MAX)
    left, top, right, bottom = 62, HEAD + 8, w - 10, h - 20 - 14 * legends
    y_of = lambda v: bottom - (v - low) / (high - low) * (bottom - top)
    x_of = lambda t: right - (ask.now - t) / ask.seconds * (right - left)
    unit, drawn = unit_of(panel), []
    for n in range(4):
        value = low + (high - low) * n / 3
        y = y_of(value)
        drawn.append(f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#e5e5e5"/>')
        drawn.append(text(left - 4, y + 4, shown(value, unit), size=10, anchor="end", fill="#777"))
    for seconds, anchor in ((ask.seconds, "start"), (0, "end")):
        words = f"{seconds} s ago" if seconds else "now"
        drawn.append(text(x_of(ask.now - seconds), bottom + 13, words, size=10, anchor=anchor, fill="#777"))
    for n, (label, points) in reversed(list(enumerate(lines))):
        colour = COLOURS[n % len(COLOURS)]
        path = " ".join(f"{x},{y}" for x, y in bends([(f"{x_of(t):.0f}", f"{y_of(v):.1f}") for t, v in points]))
        drawn.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if n < LEGEND_MAX:
            y = bottom + 28 + 14 * n
            drawn.append(f'<rect x="{left}" y="{y - 7}" width="10" height="4" fill="{colour}"/>')
            drawn.append(text(left + 15, y, label, size=10))
    if len(lines) > LEGEND_MAX:
        more = f"and {len(lines) - LEGEND_MAX} more"
        drawn.append(text(left + 15, bottom + 28 + 14 * LEGEND_MAX, more, size=10, fill="#777"))
    return "".join(drawn)


main(*sys.argv[1:])
