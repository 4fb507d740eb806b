"""Slows the browser's animation frames while a run uses the CPU and nobody touches the page: Gradio 6 leaves a requestAnimationFrame loop
running for good, and on a small machine that takes 5 to 9 % of a core from the model that is being measured.

Gradio keeps its own reference to requestAnimationFrame before any script of the page's `head` runs, so the script has to be the first of
the index page: a small ASGI layer puts it there. The device strip sets the mark that the script looks at (assets/device_strip.js).

Example::

    blocks.launch(app_kwargs={"middleware": [Middleware(SlowFrames)]})
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

FRAME_MS = 250
AWAKE_MS = 1000  # after a touch or a key the page draws at the screen's own rate for so long
SCRIPT = f"""<script>(() => {{
  const frame = window.requestAnimationFrame.bind(window);
  const cancel = window.cancelAnimationFrame.bind(window);
  const waiting = new Map();
  let last = 0;
  let touched = -Infinity;
  const slow = () => document.documentElement.dataset.busy === "yes" && performance.now() - touched > {AWAKE_MS};
  const draw = (id) => {{
    const [timer, drawing] = waiting.get(id);
    clearTimeout(timer);
    waiting.delete(id);
    frame(drawing);
  }};
  window.requestAnimationFrame = (drawing) => {{
    if (!slow()) return frame(drawing);
    const id = --last; // the browser's own are positive
    waiting.set(id, [setTimeout(() => draw(id), {FRAME_MS}), drawing]);
    return id;
  }};
  window.cancelAnimationFrame = (id) => {{
    if (!waiting.has(id)) return cancel(id);
    clearTimeout(waiting.get(id)[0]);
    waiting.delete(id);
  }};
  const wake = () => {{
    touched = performance.now();
    if (waiting.size) [...waiting.keys()].forEach(draw);
  }};
  const inputs = ["pointerdown", "pointermove", "touchmove", "keydown", "wheel"];
  inputs.forEach((input) => addEventListener(input, wake, {{ capture: true, passive: true }}));
}})();</script>""".encode()

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class SlowFrames:
    """ASGI layer: the index page with `SCRIPT` first in its head; every other answer passes untouched."""

    def __init__(self, app: Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Gather the index page, which Gradio sends whole, and send it on with the script."""
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != f"{scope.get('root_path', '')}/":
            await self._app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def hold(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                await send(_sized(start, page := body.replace(b"<head>", b"<head>" + SCRIPT, 1)))
                await send({"type": "http.response.body", "body": page})

        await self._app(scope, receive, hold)


def _sized(start: Message, body: bytes) -> Message:
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    return {**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
