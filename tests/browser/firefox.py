"""Debian's Firefox, driven through WebDriver BiDi, which it speaks by itself: no driver beside it."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LIMIT_S = 90.0  # machines that run these tests may be busy
RIGHT = "\ue014"


class Firefox:
    """One window. `value` gives what a JavaScript expression is, awaited; `events` is what the browser told."""

    def __init__(self, socket: Any) -> None:
        self._socket, self._numbers = socket, itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self.command("session.new", capabilities={})
        self.command("session.subscribe", events=["log.entryAdded", "network.beforeRequestSent"])
        self._context = self.command("browsingContext.getTree")["contexts"][0]["context"]

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; raises RuntimeError with Firefox's words."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("type") == "event":
                self.events.append(message)
            elif message.get("id") == number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['message']}")
                return message["result"]

    def open(self, address: str) -> None:
        self.command("browsingContext.navigate", context=self._context, url=address, wait="complete")

    def value(self, expression: str) -> Any:
        made = self.command(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({expression})) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
        )
        if made["type"] == "exception":
            raise RuntimeError(f"{expression}: {made['exceptionDetails']['text']}")
        return json.loads(made["result"]["value"])

    def wait(self, condition: str) -> None:
        """Until the expression is true."""
        end = time.monotonic() + LIMIT_S
        while not self.value(condition):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.1)

    def text(self, selector: str) -> str:
        self.wait(f"!!document.querySelector({selector!r})")
        return str(self.value(f"document.querySelector({selector!r}).innerText"))

    def press(self, *keys: str) -> None:
        """One key after the other."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._act({"type": "key", "id": "keys", "actions": strokes})

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of the element."""
        x, y = self.value(
            f"""(() => {{ const found = document.querySelector({selector!r});
            found.scrollIntoView({{ block: "center" }});
            const box = found.getBoundingClientRect();
            return [box.x + box.width / 2, box.y + box.height / 2].map(Math.round); }})()"""
        )
        moves: list[dict[str, Any]] = [{"type": "pointerMove", "x": x, "y": y}]
        moves += [{"type": kind, "button": 0} for kind in ("pointerDown", "pointerUp")]
        self._act({"type": "pointer", "id": "mouse", "actions": moves})

    def _act(self, actions: dict[str, Any]) -> None:
        self.command("input.performActions", context=self._context, actions=[actions])

    def problems(self, home: str) -> list[str]:
        """Errors and warnings of the console, and requests to other places than `home`."""
        params = [(event["method"], event["params"]) for event in self.events]
        logged = [told["text"] for method, told in params if method == "log.entryAdded" and told["level"] != "info"]
        asked = [told["request"]["url"] for method, told in params if method == "network.beforeRequestSent"]
        return logged + [url for url in asked if not url.startswith((home, "data:", "blob:"))]


@contextmanager
def firefox(binary: str, profile: Path) -> Iterator[Firefox]:
    """Start it without a window and with a fresh profile, and end it."""
    import websocket

    command = [binary, "--headless", "--no-remote", "--profile", str(profile), "--remote-debugging-port", "0"]
    log = profile / "log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            socket = websocket.create_connection(
                f"{_address(process, log)}/session", timeout=LIMIT_S, suppress_origin=True
            )
            try:
                yield Firefox(socket)
            finally:
                socket.close()
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + LIMIT_S
    while process.poll() is None and time.monotonic() < end:
        if found := re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text(encoding="utf-8")):
            return found[1]
        time.sleep(0.1)
    raise RuntimeError(f"Firefox did not start: {log.read_text(encoding='utf-8')[-2000:]}")
