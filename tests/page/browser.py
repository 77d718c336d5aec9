"""Looks at the status page in a real browser: what it shows, how it looks, and what its buttons do.

    browser.py CHROMIUM URL TOKEN FOLDER

Writes screenshots into FOLDER. Ends with 0 if everything was as it should be; else with the first thing that was not.
"""

import base64
import json
import pathlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request

import websocket

CHROMIUM, URL, TOKEN, FOLDER = sys.argv[1:]
LONG = 30


class Browser:
    """A page of a browser, driven by the DevTools protocol."""

    def __init__(self):
        self.data = tempfile.TemporaryDirectory()
        arguments = [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--remote-debugging-port=0", f"--user-data-dir={self.data.name}", "about:blank",
        ]
        self.process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for line in self.process.stderr:
            if "DevTools listening on ws://" in line:
                port = line.split("ws://")[1].split("/")[0].split(":")[1].strip()
                break
        else:
            sys.exit("the browser did not start")
        made = urllib.request.Request(f"http://127.0.0.1:{port}/json/new?about:blank", method="PUT")
        page = json.load(urllib.request.urlopen(made))
        self.socket = websocket.create_connection(page["webSocketDebuggerUrl"], suppress_origin=True, timeout=LONG)
        self.number, self.events = 0, []
        for domain in ["Page", "Runtime", "Network", "Log", "DOM"]:
            self.call(f"{domain}.enable")

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.number:
                assert "error" not in message, (method, message)
                return message["result"]
            self.events.append(message)

    def js(self, code):
        result = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, (code, result["exceptionDetails"])
        return result["result"].get("value")

    def until(self, what, code):
        began = time.monotonic()
        while time.monotonic() - began < LONG:
            value = self.js(code)
            if value:
                return value
            time.sleep(0.02)
        said = self.js("[...document.querySelectorAll('dialog[open]'), document.body].map(e => e.innerText).join('\\n')")
        sys.exit(f"not within {LONG} s: {what}; the page says: {said[:2000]}")

    def open(self, width, height, scheme):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.call("Page.navigate", url=URL)
        self.until("the page is loaded", "document.readyState == 'complete' && !!document.querySelector('#status li')")

    def shoot(self, name):
        # The tests' streams have names of their own for each run. What the page reads has to stay as it is.
        self.js("""(() => { const all = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
          window.changed = [];
          while (all.nextNode()) {
            const node = all.currentNode, text = node.data.replace(/page-(\\w+)-\\d+-[0-9a-f]+-\\d+/g, '$1');
            if (text !== node.data) { window.changed.push([node, node.data]); node.data = text; }
          } })()""")
        data = self.call("Page.captureScreenshot", format="png")["data"]
        self.js("window.changed.forEach(([node, text]) => { node.data = text; })")
        (pathlib.Path(FOLDER) / f"{name}.png").write_bytes(base64.b64decode(data))

    def key(self, key, code):
        for kind in ["keyDown", "keyUp"]:
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def close(self):
        self.socket.close()
        self.process.kill()
        self.process.wait()


def state_of(name):
    """What the API says."""
    consumers = json.load(urllib.request.urlopen(f"{URL}api/v1/consumers"))["consumers"]
    return next(one["state"] for one in consumers if one["name"] == name)


def until_state(name, state):
    began = time.monotonic()
    while state_of(name) != state:
        assert time.monotonic() - began < LONG, f"{name} is {state_of(name)}, not {state}"
        time.sleep(0.01)


CONTRAST = """
(() => {
  const light = c => { const [r, g, b] = c.map(v => { v /= 255; return v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; });
    return .2126 * r + .7152 * g + .0722 * b; };
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length == 3 || c[3] > 0) return c.slice(0, 3); } return [255, 255, 255]; };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType == 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || ['SCRIPT', 'STYLE'].includes(e.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color).slice(0, 3)), light(behind(e))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) low.push([e.className || e.tagName, e.textContent.slice(0, 30), ratio.toFixed(2)]);
  }
  return low;
})()
"""


def shows(browser):
    """What is wrong is first; everything is labelled; nothing else is loaded."""
    levels = browser.js("[...document.querySelectorAll('ul.list>li>details')].map(d => d.className)")
    order = ["bad", "warn", "ok", "quiet"]
    assert len(levels) == 30, levels
    assert levels == sorted(levels, key=order.index), levels
    assert [levels.count(level) for level in order] == [1, 1, 27, 1], levels
    rows = browser.js("[...document.querySelectorAll('ul.list>li summary')].map(s => s.innerText)")
    assert "halted" in rows[0] and "running, lagging" in rows[1] and "passive" in rows[-1], (rows[0], rows[1], rows[-1])
    verdict = browser.js("document.querySelector('.verdict').innerText")
    assert verdict == "2 of 30 consumers need attention: 1 has halted and 1 lags.", verdict
    assert browser.js("document.title") == "(2) rillway: 2 of 30 need attention"
    assert browser.js("document.querySelectorAll('h1').length") == 1
    assert browser.js("[...document.querySelectorAll('th')].every(th => th.scope)")
    assert browser.js("[...document.querySelectorAll('svg')].every(svg => svg.getAttribute('aria-label'))")
    assert browser.js("document.documentElement.lang") == "en"


def loads_in_one_request(browser):
    sent = [e["params"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    others = [(e["type"], e["request"]["url"]) for e in sent if e["type"] not in ("Document", "Fetch")]
    others = [one for one in others if not one[1].startswith("data:")]
    assert not others, others
    assert sum(e["type"] == "Document" for e in sent) == 1, sent
    wrong = [e for e in browser.events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
    assert not wrong, wrong


def looks(browser):
    for width, height, device in [(1280, 640, "desktop"), (360, 740, "phone")]:
        for scheme in ["light", "dark"]:
            browser.open(width, height, scheme)
            shows(browser)
            low = browser.js(CONTRAST)
            assert not low, (device, scheme, low)
            browser.shoot(f"status-{device}-{scheme}")
            loads_in_one_request(browser)
            # Also with everything unfolded.
            wide = browser.js("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} px wide on {width} px"
            browser.js("document.querySelectorAll('details').forEach(d => d.open = true)")
            wide = browser.js("document.documentElement.scrollWidth")
            assert wide <= width, f"{wide} px wide on {width} px, unfolded"
            low = browser.js(CONTRAST)
            assert not low, (device, scheme, low)


def stays_open(browser):
    """A consumer that was unfolded by the keyboard stays so, and keeps the focus, when the page is refreshed."""
    browser.open(1280, 900, "light")
    browser.js("document.querySelector('summary').focus()")
    browser.key("Enter", 13)
    browser.until("it is unfolded", "document.querySelector('details').open")
    browser.js("window.before = document.getElementById('status'); 0")
    browser.until("the page is refreshed", "document.getElementById('status') !== window.before")
    assert browser.js("document.querySelector('details').open"), "it was folded by the refresh"
    assert browser.js("document.activeElement === document.querySelector('summary')"), "the focus is lost"


def button(verb, name):
    return f"document.querySelector('button[data-verb={verb}][data-name=\"{name}\"]')"


def told(browser, text):
    browser.until(f"it says {text!r}", f"document.getElementById('told').innerText.includes({json.dumps(text)})")


def enter(browser, token):
    browser.until("it asks for the token", "document.getElementById('ask').open")
    browser.js(f"document.getElementById('ask-token').value = {json.dumps(token)}; "
               "document.querySelector('#ask-form button').click()")


def commands(browser):
    """Without the token nothing happens; with it, the state is shown with the second refresh at the latest."""
    browser.open(1280, 900, "light")
    name = "consumer-07"
    row = f"document.querySelector('details[data-key=\"{name}\"]')"
    browser.js(f"{row}.open = true; {button('pause', name)}.click()")
    browser.until("it asks for the token", "document.getElementById('ask').open")
    browser.js("document.getElementById('ask-no').click()")
    told(browser, "because it needs the token")
    assert state_of(name) == "running"
    browser.js(f"{button('pause', name)}.click()")
    enter(browser, "not-the-token-of-this-server")
    browser.until("it says that it was wrong", "document.getElementById('ask-why').innerText.includes('not the token')")
    assert state_of(name) == "running"
    enter(browser, TOKEN)
    until_state(name, "paused")
    began = time.monotonic()
    fetches = "performance.getEntriesByType('resource').filter(e => new URL(e.name).pathname == '/').length"
    before = browser.js(fetches)
    browser.until("the page shows the pause", f"{row}.querySelector('.state b').innerText == 'paused'")
    took, needed = time.monotonic() - began, browser.js(fetches) - before
    print(f"paused: shown after {took:.2f} s, {needed} refreshes")
    # One that had begun before the change, and the next one; they are a second apart.
    assert needed <= 2, f"{needed} refreshes"
    told(browser, "pause done")
    assert browser.js("Object.values(sessionStorage).join() + Object.values(localStorage).join()") == TOKEN
    # The token is not asked for again.
    browser.js(f"{button('resume', name)}.click()")
    until_state(name, "running")
    browser.until("the page shows it", f"{row}.querySelector('.state b').innerText == 'running'")
    browser.js(f"{button('commit', name)}.click()")
    told(browser, "commit done")


def value_of(name, key):
    consumers = json.load(urllib.request.urlopen(f"{URL}api/v1/consumers"))["consumers"]
    return next(one[key] for one in consumers if one["name"] == name)


def received(name):
    """Messages that it has received since the daemon started."""
    lines = urllib.request.urlopen(f"{URL}metrics").read().decode().splitlines()
    found = [l for l in lines if l.startswith("rillway_received_messages_total{") and f'consumer="{name}"' in l]
    return int(found[0].split()[-1])


def until(what, check):
    began = time.monotonic()
    while not check():
        assert time.monotonic() - began < LONG, what
        time.sleep(0.02)


def text_of(browser, id):
    return browser.js(f"document.getElementById('{id}').innerText")


def choose(browser, to, value=None):
    browser.js(f"""(() => {{
      const to = document.getElementById('move-to');
      to.value = {json.dumps(to)};
      to.dispatchEvent(new Event('input', {{ bubbles: true }}));
      const input = document.getElementById('move-{to}');
      if (input) {{ input.value = {json.dumps(value)}; input.dispatchEvent(new Event('input', {{ bubbles: true }})); }}
      document.getElementById('move-look').click();
    }})()""")


def moves(browser):
    """A move is looked at first, and made only then; what is entered afterwards has to be looked at again."""
    browser.open(360, 740, "dark")
    name = "consumer-08"
    until("it has read all", lambda: value_of(name, "lag_messages") == 0)
    before, target = received(name), value_of(name, "durable_offset") - 9
    browser.js(f"document.querySelector('details[data-key=\"{name}\"]').open = true; "
               f"document.querySelector('button[data-move][data-name=\"{name}\"]').click()")
    browser.until("it asks where to", "document.getElementById('move').open")
    assert browser.js("document.getElementById('move-which').hidden"), "a stream has no partitions to choose from"
    choose(browser, "offset", "a hundred")
    browser.until("it says what is wrong", "document.getElementById('move-what').innerText == 'That is not an offset.'")
    choose(browser, "offset", "999,999,999")
    browser.until("it says why not", "document.getElementById('move-what').innerText.includes('offset 999999999')")
    assert browser.js("document.getElementById('move-do').hidden"), text_of(browser, "move-what")
    choose(browser, "offset", str(target))
    browser.until("it says what would be", "document.getElementById('move-what').innerText.includes(' are read again')")
    # Ten, unless the broker's own entries are among the offsets.
    again = int(re.search(r"([\d,]+) messages are read again", text_of(browser, "move-what"))[1])
    assert 1 < again <= 10, text_of(browser, "move-what")
    assert browser.js("document.getElementById('move-do').innerText") == "Move it"
    wide = browser.js("document.documentElement.scrollWidth")
    assert wide <= 360, f"{wide} px wide"
    low = browser.js(CONTRAST)
    assert not low, low
    browser.shoot("status-move-phone-dark")
    browser.js("(() => { const e = document.getElementById('move-offset'); e.value = '5'; "
               "e.dispatchEvent(new Event('input', { bubbles: true })); })()")
    assert browser.js("document.getElementById('move-do').hidden"), "another offset was not looked at"
    assert received(name) == before, "looking has moved it"
    choose(browser, "offset", str(target))
    browser.until("it can be moved", "!document.getElementById('move-do').hidden")
    browser.js("document.getElementById('move-do').click()")
    told(browser, f"{name}: seek done.")
    until("they are read again", lambda: received(name) == before + again)
    # An offset is that of one partition.
    browser.js("(() => { const b = document.querySelector('button[data-move][data-name=\"consumer-27\"]'); "
               "b.closest('details').open = true; b.click(); })()")
    partitions = browser.js("[...document.getElementById('move-stream').options].map(o => o.value)")
    assert len(partitions) == 3 and partitions[0] == "" and partitions[1] < partitions[2], partitions
    choose(browser, "offset", "5")
    browser.until("it wants a partition", "document.getElementById('move-what').innerText.includes('name one')")
    browser.js(f"document.getElementById('move-stream').value = {json.dumps(partitions[2])}")
    choose(browser, "offset", "5")
    browser.until("it says what would be", "document.getElementById('move-what').innerText.includes('15 messages are read again')")
    browser.js("document.getElementById('move-do').click()")
    told(browser, "consumer-27: seek done.")
    # What would be skipped is said on the button too; nothing happens without it.
    browser.js("document.querySelector('button[data-move][data-name=lagging]').click()")
    choose(browser, "next")
    browser.until("it says that messages are skipped", "document.getElementById('move-do').innerText == 'Skip messages, and move it'")
    assert "skipped, and never reach the sink" in text_of(browser, "move-what")
    browser.js("document.getElementById('move-no').click()")
    assert value_of("lagging", "lag_messages") > 0
    verdict = lambda: json.load(urllib.request.urlopen(f"{URL}api/v1/status"))["verdict"]
    until("all that were moved run again", lambda: verdict().startswith("2 of 30 consumers need attention"))


def skips(browser):
    """The message at which a consumer has halted is skipped from its row."""
    browser.open(1280, 900, "light")
    button = "document.querySelector('button[data-skip][data-name=halted]')"
    assert browser.js("document.querySelectorAll('button[data-skip]').length") == 1, "only where something has halted"
    assert "Skip message 0" in browser.js(f"{button}.textContent")
    browser.js(f"{button}.click()")
    assert "The message at offset 0 of halted" in browser.js("document.getElementById('skip-what').textContent")
    browser.js("document.getElementById('skip-no').click()")
    assert state_of("halted") == "halted"
    browser.js(f"{button}.click(); document.getElementById('skip-letter').checked = true; "
               "document.getElementById('skip-do').click()")
    told(browser, "configure `dead_letter`")
    assert state_of("halted") == "halted"
    browser.js(f"{button}.click(); document.getElementById('skip-do').click()")
    until_state("halted", "running")
    told(browser, "halted: skip done.")
    browser.until("the page shows it", "document.querySelectorAll('.verdict')[0].innerText.startsWith('1 of 30')")
    assert browser.js("document.querySelectorAll('button[data-skip]').length") == 0


def without_script(browser):
    browser.call("Emulation.setScriptExecutionDisabled", value=True)
    # To somewhere else first: what is read below is the page that was loaded without a script.
    browser.call("Page.navigate", url="about:blank")
    browser.call("Page.navigate", url=URL)
    began, text = time.monotonic(), ""
    while "consumer-27" not in text or "</html>" not in text:
        assert time.monotonic() - began < LONG, text
        try:
            root = browser.call("DOM.getDocument", depth=1)["root"]["nodeId"]
            text = browser.call("DOM.getOuterHTML", nodeId=root)["outerHTML"]
        except AssertionError:
            pass  # The document was replaced in between.
    verdict = re.findall(r"[^<>]*30 consumers[^<>]*", text)
    assert "2 of 30 consumers need attention" in text, verdict
    assert 'class="js"' not in text, "buttons that do nothing would be shown"
    browser.call("Emulation.setScriptExecutionDisabled", value=False)


browser = Browser()
try:
    looks(browser)
    stays_open(browser)
    commands(browser)
    moves(browser)
    without_script(browser)
    skips(browser)
finally:
    browser.close()
