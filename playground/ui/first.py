"""Scripts that must run before any of Gradio's, since it keeps its own references to the browser's functions: assets/first/*.js. A small
ASGI layer puts them first into the head of the index page.

Example::

    blocks.launch(app_kwargs={"middleware": [Middleware(FirstScripts)]})
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from playground.core.places import ASSETS

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


def scripts() -> bytes:
    """Every script of assets/first as a tag of its own."""
    texts = (path.read_text(encoding="utf-8") for path in sorted((ASSETS / "first").glob("*.js")))
    return "".join(f"<script>{text}</script>" for text in texts).encode()


class FirstScripts:
    """ASGI layer: the index page with the scripts first in its head; every other answer passes untouched."""

    def __init__(self, app: Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]) -> None:
        self._app = app
        self._scripts = scripts()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Gather the index page, which Gradio sends whole, and send it on with the scripts."""
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
                await send(_sized(start, page := body.replace(b"<head>", b"<head>" + self._scripts, 1)))
                await send({"type": "http.response.body", "body": page})

        await self._app(scope, receive, hold)


def _sized(start: Message, body: bytes) -> Message:
    headers = [(name, value) for name, value in start["headers"] if name.lower() != b"content-length"]
    return {**start, "headers": [*headers, (b"content-length", str(len(body)).encode())]}
