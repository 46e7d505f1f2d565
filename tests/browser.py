"""Drives Debian's chromium over its debugging port."""

import json
import os
import shutil
import subprocess
import threading
from contextlib import contextmanager

import websocket

from tools.survey import serve

NAMES = ("chromium", "chromium-browser")
OPTIONS = """--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --hide-scrollbars --no-first-run
--disable-background-networking --disable-component-update --disable-extensions --disable-sync --mute-audio
--remote-allow-origins=* --remote-debugging-port=0"""


def chromium():
    """The browser's path, or None."""
    return next((path for name in NAMES if (path := shutil.which(name, path=f"{os.defpath}:/usr/bin"))), None)


@contextmanager
def served(folder):
    """The address of a site while it is served."""
    made = serve.server(folder, 0)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://{serve.HOST}:{made.server_port}"
    made.shutdown()
    made.server_close()


class Tab:
    """One tab; `events` are what the browser reported since the last page was asked for."""

    def __init__(self, address):
        self.socket = websocket.create_connection(address, timeout=120, max_size=None)
        self.number, self.events, self.session = 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        self.socket.send(json.dumps(message | ({"sessionId": self.session} if self.session else {})))
        while True:
            answer = json.loads(self.socket.recv())
            if answer.get("id") == self.number:
                assert "error" not in answer, f"{method}: {answer['error']}"
                return answer["result"]
            self.events.append(answer)

    def look(self, width, height=900, scheme="light"):
        """Be a screen of this width whose owner likes this colour scheme."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, address):
        self.events = []
        self.call("Page.navigate", url=address)
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(json.loads(self.socket.recv()))

    def run(self, script):
        """The value of an expression, awaited."""
        asked = {"expression": script, "awaitPromise": True, "returnByValue": True}
        result = self.call("Runtime.evaluate", **asked)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def complaints(self, origin):
        """What went wrong since the page was asked for: errors on the console, failed requests, requests elsewhere."""
        found = []
        for event in self.events:
            about = event.get("params", {})
            if event.get("method") == "Runtime.exceptionThrown":
                found.append(about["exceptionDetails"]["text"])
            elif event.get("method") == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
            elif event.get("method") == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning"):
                found.append(str(about["args"]))
            elif event.get("method") == "Network.requestWillBeSent":
                url = about["request"]["url"]
                found += [] if url.startswith((f"{origin}/", "data:", "blob:")) else [f"asks for {url}"]
        return found


@contextmanager
def browser(folder):
    """A tab of a fresh chromium whose profile is kept in a folder."""
    command = [chromium(), *OPTIONS.split(), f"--user-data-dir={folder}", "about:blank"]
    environment = os.environ | {"HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        said = []
        for line in process.stderr:
            said.append(line)
            if line.startswith("DevTools listening on "):
                break
        else:
            raise RuntimeError("chromium did not start: " + "".join(said)[-2000:])
        threading.Thread(target=process.stderr.read, daemon=True).start()  # or it would wait for a reader
        yield Tab(line.split()[-1])
    finally:
        process.terminate()
        process.wait(timeout=30)
