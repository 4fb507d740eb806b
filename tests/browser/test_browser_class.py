"""Many pages at once, as in front of a class: each watches a run, and the page of whoever comes next still answers."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from driver import LONG_MS, Server, close_without_errors, open_page, open_tab, set_number, set_text
from gradio_client import Client
from playwright.sync_api import Browser, expect

pytestmark = pytest.mark.browser
PAGES = 60  # more than the 40 events that Gradio handles at once by itself


def watch_of(config: dict[str, Any]) -> int:
    """The event that shows a run while it goes on: it starts on its row's control."""
    row = next(part["id"] for part in config["components"] if part["props"].get("elem_id") == "row")
    return next(each["id"] for each in config["dependencies"] if [row, "input"] in [list(target) for target in each["targets"]])


def test_sixty_pages_watch_a_run_and_another_still_answers(browser: Browser, tmp_path: Path) -> None:
    server = Server(tmp_path)  # of its own, since the run goes on until it is killed
    try:
        _watch_and_use(server, browser)
    finally:
        server.kill()


def _watch_and_use(server: Server, browser: Browser) -> None:
    client = Client(server.url, verbose=False)
    protocol = {"warmups": 0, "repeats": 1, "quality": False, "profile": False, "energy": False}
    spec = {"model": "script:step_ms=200,weights_mb=61", "engine": "fake", "workload": {"max_new_tokens": 1500}, "protocol": protocol}
    going = client.submit(spec, api_name="/run")
    experiment, end = "", time.monotonic() + 60
    while not experiment:
        assert time.monotonic() < end, "the run did not begin"
        newest = client.predict(1, api_name="/history")
        experiment = newest[0]["id"] if newest and spec["model"] in str(newest[0]) else ""
    watch = watch_of(client.config)
    for page in range(PAGES):
        body = {"data": [experiment, None], "fn_index": watch, "session_hash": f"class-{page}"}
        headers = {"Content-Type": "application/json", "x-gradio-user": "app"}
        with urlopen(Request(f"{server.url}gradio_api/queue/join", json.dumps(body).encode(), headers)) as answer:
            assert "event_id" in json.load(answer)
    page = open_page(browser, server.url)
    set_number(page, "max-new-tokens", 9)
    expect(page.locator("#share")).to_contain_text("max_new_tokens=9", timeout=LONG_MS)
    open_tab(page, "History")
    set_text(page, "history-text", "weights_mb=61")
    expect(page.locator("#history-list article")).to_have_count(1, timeout=LONG_MS)
    assert not going.done(), "the run that all of them watch was over before the page had answered"
    close_without_errors([page])
