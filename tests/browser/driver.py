"""What a person does on the page, as functions over a Playwright page. Used by every browser test.

Example::

    choose_engine(page, "Scripted"); choose_model(page, "script:step_ms=20"); differ(page, 1, "Precision", "fp32"); run(page)
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
LONG_MS = 60_000


def chromium_path() -> str | None:
    """A Chromium on this machine; None leaves the choice to Playwright's own."""
    return next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


def free_port() -> int:
    """A port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """app.py as a subprocess on a free port, or on one that it had before, with its own $PLAYGROUND_HOME."""

    def __init__(self, home: Path, port: int = 0) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.log = home / "server.log"
        environment = {**os.environ, "PLAYGROUND_HOME": str(home), "PYTHONUNBUFFERED": "1"}
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "app.py", "--port", str(self.port)], cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _wait(self, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while "is ready" not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < end, f"the server did not start:\n{self.log.read_text()}"
            time.sleep(0.1)

    def kill(self) -> None:
        """End it at once, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it as Ctrl-C would."""
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def open_page(browser: Browser, url: str, width: int = 1440, height: int = 900) -> Page:
    """A page of a new visitor (own storage), ready to be used."""
    page = browser.new_context(viewport={"width": width, "height": height}).new_page()
    page.set_default_timeout(2 * LONG_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.__dict__["errors"] = errors
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url} {request.failure}"))
    page.__dict__["console"] = said
    page.goto(url)
    wait_usable(page)
    return page


def close_without_errors(pages: Sequence[Page]) -> None:
    """Close the pages; a script error on any of them fails the test."""
    errors = [error for page in pages for error in page.__dict__["errors"]]
    for page in pages:
        page.context.close()
    assert not errors, errors


def wait_usable(page: Page) -> None:
    """Until controls react: the first refresh has come back."""
    expect(page.get_by_role("button", name="Run", exact=True)).to_be_enabled(timeout=LONG_MS)
    expect(page.locator("#estimate")).not_to_be_empty(timeout=LONG_MS)


# Late enough for a slow machine: a page that waited for no more than 5 s had the older answer stand over the newer one.
SLOW_REPLY = """(() => {
    const send = window.fetch.bind(window);
    window.fetch = async (...asked) => {
        const reply = await send(...asked);
        if (!window.slowDone && asked[1]?.body?.startsWith?.(BEGINS)) {
            await new Promise((done) => setTimeout(done, 6500));
            window.slowDone = true;
        }
        return reply;
    };
})();"""


SLOW_CLOSE = """(() => {
    const send = window.fetch.bind(window);
    const wait = () => new Promise((done) => setTimeout(done, 1000));
    window.fetch = async (...asked) => {
        const answer = await send(...asked);
        if (!String(asked[0]?.url ?? asked[0]).includes("/queue/data")) return answer;
        const slow = new TransformStream({
            async transform(text, out) {
                const at = text.indexOf('data: {"msg":"close_stream"');
                if (at < 0) return out.enqueue(text);
                if (at) out.enqueue(text.slice(0, at));
                await wait();
                out.enqueue(text.slice(at));
                window.closings = (window.closings || 0) + 1;
            },
        });
        const body = answer.body.pipeThrough(new TextDecoderStream()).pipeThrough(slow).pipeThrough(new TextEncoderStream());
        return new Response(body, {status: answer.status, headers: answer.headers});
    };
})();"""


def open_with(page: Page, script: str) -> None:
    """Open the page anew with a script that runs before all of its own."""
    page.add_init_script(script)
    page.reload()
    wait_usable(page)


def close_late(page: Page) -> None:
    """Open the page anew so that it hears late that the server has closed a stream of answers."""
    open_with(page, SLOW_CLOSE)


def reply_late(page: Page, begins: str) -> Callable[[], None]:
    """Open the page anew so that the reply to the first event whose request begins so comes late; what is given waits until it has come
    and its answer is drawn."""
    open_with(page, SLOW_REPLY.replace("BEGINS", json.dumps(begins)))

    def answered() -> None:
        page.wait_for_function("window.slowDone")
        page.wait_for_timeout(1000)

    return answered


def choose_engine(page: Page, title: str) -> None:
    """Pick an engine in the advanced section of the model."""
    if not page.locator("#engine").is_visible():
        page.get_by_role("button", name="Engine and device").click()
    page.locator("#engine").get_by_text(title, exact=True).click()


def open_tab(page: Page, title: str) -> None:
    """Go to a tab of the page."""
    page.get_by_role("tab", name=title, exact=True).click()


def choose_model(page: Page, name: str, elem_id: str = "model", title: str = "") -> None:
    """Type a model's name and wait until the form has taken it; it shows the `title` of one of the catalogue."""
    box = page.locator(f"#{elem_id} input")
    box.click()
    box.fill(name)
    box.press("Enter")
    box.blur()
    expect(box).to_have_value(title or name)


def differ(page: Page, column: int, label: str, option: str) -> None:
    """Make a variant differ from the baseline in one knob."""
    box = page.locator(f"#differs-{column} input")
    box.click()
    page.get_by_role("option", name=label, exact=True).click()
    expect(page.locator(f"#differs-{column}")).to_contain_text(label)  # chosen; below it is what the server makes of that
    box.press("Escape")
    knob = page.locator(f"#setup-{column} fieldset").filter(has=page.get_by_text(label, exact=True))
    knob.get_by_text(option, exact=True).click()
    expect(page.locator(f"#summary-{column}")).to_contain_text(option)


def write_prompts(page: Page, *prompts: str) -> None:
    """Fill in the prompts, one a line."""
    page.locator("#prompts textarea").fill("\n".join(prompts))


def set_number(page: Page, elem_id: str, value: float) -> None:
    """Fill in one of the numbers of the form; those of the protocol are in a section that is opened."""
    if elem_id in ("warmups", "repeats", "rounds", "price-per-hour"):
        open_protocol(page)
    box = page.locator(f"#{elem_id} input")
    box.fill(f"{value:g}")
    box.blur()


def set_text(page: Page, elem_id: str, value: str) -> None:
    """Fill in a line of text and leave it."""
    box = page.locator(f"#{elem_id}").locator("input, textarea").first
    box.fill(value)
    box.blur()


def open_protocol(page: Page) -> None:
    """Open the protocol's details, if they are closed."""
    if not page.locator("#repeats").is_visible():
        page.get_by_role("button", name="Protocol details").click()
        expect(page.locator("#repeats")).to_be_visible()


def choose_protocol(page: Page, name: str) -> None:
    """Pick one of the named protocols."""
    page.locator("#protocol").get_by_text(name, exact=True).click()


def run(page: Page) -> None:
    """Press Run."""
    page.get_by_role("button", name="Run", exact=True).click()


def status(page: Page) -> Any:
    """The line beside Run and Stop."""
    return page.locator("#status .status")


def wait_done(page: Page, timeout_ms: int = LONG_MS) -> None:
    """Until the whole experiment is done."""
    expect(status(page)).to_have_class("status done v0", timeout=timeout_ms)


def column(page: Page, index: int) -> Any:
    """The result column of a variant."""
    return page.locator(f"#columns article.v{index}")


def points(page: Page, panel: str = "latency") -> int:
    """Points drawn in a live panel, over all lines."""
    return int(
        page.evaluate(
            """(panel) => {
                const plot = document.querySelector(`#live-charts [data-panel="${panel}"] .plot`);
                return plot && plot.data ? plot.data.reduce((sum, line) => sum + (line.x || []).length, 0) : 0;
            }""",
            panel,
        )
    )


def wait_points(page: Page, more_than: int, panel: str = "latency") -> int:
    """Until a live panel has more points; returns how many."""
    end = time.monotonic() + LONG_MS / 1000
    while (now := points(page, panel)) <= more_than:
        assert time.monotonic() < end, f"no more than {now} points in {panel}"
        page.wait_for_timeout(100)
    return now
