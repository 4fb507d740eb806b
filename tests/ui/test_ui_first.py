"""The index page gets its scripts first, and nothing else is touched."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from playground.core.places import ASSETS
from playground.ui.first import FirstScripts, scripts


def answer(path: str, *bodies: bytes, root: str = "") -> tuple[dict, bytes]:
    """Headers and body that arrive through the layer for an application that answers with these pieces."""
    sent: list[dict] = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(sum(map(len, bodies))).encode())]})
        for number, body in enumerate(bodies, 1):
            await send({"type": "http.response.body", "body": body, "more_body": number < len(bodies)})

    async def send(message):
        sent.append(message)

    call = FirstScripts(app)({"type": "http", "method": "GET", "path": path, "root_path": root}, None, send)
    with ThreadPoolExecutor(1) as threads:  # the browser tests leave an event loop in this thread
        threads.submit(asyncio.run, call).result()
    return dict(sent[0]["headers"]), b"".join(message.get("body", b"") for message in sent[1:])


def test_the_index_page_begins_its_head_with_the_scripts_and_says_its_new_length():
    headers, body = answer("/", b"<html><he", b"ad><script>gradio</script></head></html>")
    assert body == b"<html><head>" + scripts() + b"<script>gradio</script></head></html>"
    for path in (ASSETS / "first").iterdir():
        assert path.read_bytes() in body
    assert headers[b"content-length"] == str(len(body)).encode()


def test_a_page_under_a_root_path_is_found_too():
    assert scripts() in answer("/app/", b"<head></head>", root="/app")[1]


def test_every_other_answer_passes_as_it_is():
    headers, body = answer("/gradio_api/info", b"<head>", b"{}")
    assert (body, headers[b"content-length"]) == (b"<head>{}", b"8")
