"""The explorer's page, or another one, in a headless Chromium, spoken to over two pipes in the DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

ARGUMENTS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--no-first-run", "--hide-scrollbars", "--lang=en", "--remote-debugging-pipe"]


def find_chromium():
    """The browser's path, or None."""
    return next(filter(None, (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))), None)


class Page:
    """A browser with one page. The browser ends with the `with` block."""

    def __init__(self, file):
        self.address = Path(file).resolve().as_uri()
        self.asked = []       # addresses that the browser was asked for
        self.complaints = []  # what the page threw, or printed as an error
        self.number = 0
        self.session = None

    def __enter__(self):
        to_browser, self.write_end = os.pipe()
        self.read_end, from_browser = os.pipe()
        self.profile = tempfile.TemporaryDirectory(prefix="explorer-")
        # The browser reads descriptor 3 and writes descriptor 4.
        command = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "chromium", find_chromium(), *ARGUMENTS,
                   f"--user-data-dir={self.profile.name}"]
        self.browser = subprocess.Popen(command, pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_browser)
        os.close(from_browser)
        self.answers = os.fdopen(self.read_end, "rb")
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(domain + ".enable")
        return self

    def __exit__(self, *_):
        os.close(self.write_end)
        self.browser.kill()
        self.browser.wait()
        self.answers.close()
        shutil.rmtree(self.profile.name, ignore_errors=True)
        self.profile._finalizer.detach()  # it is gone already, apart from what a dying browser still writes

    def send(self, method, **parameters):
        """One command and its answer; what happens in between is noted."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        text = json.dumps(message).encode() + b"\0"
        while text:
            text = text[os.write(self.write_end, text):]
        while True:
            answer = self.receive()
            if answer.get("id") != self.number:
                self.note(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']}")
            return answer["result"]

    def receive(self):
        text = bytearray()
        while (letter := self.answers.read(1)) != b"\0":
            if not letter:
                raise RuntimeError("the browser is gone")
            text += letter
        return json.loads(text)

    def note(self, event):
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(parameters["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.complaints.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.complaints.append(str(parameters["args"]))

    def run(self, expression):
        """The value of an expression in the page; of a promise, what it becomes."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description") or answer["exceptionDetails"]["text"])
        return answer["result"].get("value")

    def open(self, words=""):
        """Opens the page anew at a link, and waits until it has drawn everything."""
        self.send("Page.navigate", url="about:blank")
        self.send("Page.navigate", url=self.address + "#" + words)
        self.run("""new Promise(done => {
          const look = () => document.documentElement?.dataset.ready === "yes" ? done(true) : setTimeout(look, 10);
          look();
        })""")

    def load(self):
        """Opens the page anew, one that is drawn as it is loaded."""
        self.send("Page.navigate", url=self.address)
        self.run("""new Promise(done => {
          const look = () => requestAnimationFrame(() => requestAnimationFrame(() => done(true)));
          document.readyState === "complete" ? look() : addEventListener("load", look);
        })""")

    def set_size(self, width, height):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500)

    def set_dark(self, dark):
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def press(self, key, text=""):
        """A key, down and up, at whatever has the focus."""
        codes = {"Tab": 9, "Enter": 13, " ": 32, "ArrowLeft": 37, "ArrowRight": 39, "ArrowUp": 38, "ArrowDown": 40}
        code = codes.get(key, ord(key[0].upper()))
        text = text or {"Enter": "\r", " ": " "}.get(key, key if len(key) == 1 else "")
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code, **({"text": text} if text and kind == "keyDown" else {}))

    def picture(self, path):
        """The page as it is, to its end."""
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.send("Page.captureScreenshot", captureBeyondViewport=True, clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1})
        Path(path).write_bytes(base64.b64decode(shot["data"]))
