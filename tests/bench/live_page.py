"""What an update of the live page costs as the run goes on: eight variants of 4,096 tokens, first to last.

Submits the run through the API, opens it from the history in a browser, and takes for every update the time of the browser's main thread
(CPU time: scripts, style, layout) and the size of what is drawn. Then folds the stored events again, in updates of the same width, and
takes what fold, charts and columns cost the server. An update must not cost more because more was drawn before: exits with 1 where the
last ones cost more than `--limit` times the first hundred's median. Run it on a quiet machine::

    python tests/bench/live_page.py --variants 8 --tokens 4096
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

from driver import CHROMIUM_FLAGS, LONG_MS, Server, chromium_path, open_page, open_tab, status  # noqa: E402
from gradio_client import Client  # noqa: E402
from playwright.sync_api import Page, expect, sync_playwright  # noqa: E402

from playground.results.store import Store  # noqa: E402
from playground.ui.handlers import UPDATE_S  # noqa: E402
from playground.ui.live import live_json  # noqa: E402
from playground.ui.results import Shown, columns_html  # noqa: E402
from playground.ui.view import fold, start  # noqa: E402

FIRST, LAST = 100, 20
COUNT_UPDATES = """() => {
    window.updates = 0;
    window.drawing_ms = 0;
    const react = Plotly.react;
    Plotly.react = (plot, ...rest) => {
        if (plot.closest('[data-panel="latency"]')) window.updates += 1;
        const began = performance.now();
        const done = react(plot, ...rest);
        window.drawing_ms += performance.now() - began;
        return done;
    };
}"""

LOOK = """() => [window.updates, window.drawing_ms, document.querySelector('#columns').innerHTML.length,
    document.querySelector('#status .status').className]"""


@dataclass(frozen=True)
class Cost:
    """Of one update: ms of the browser's main thread, and of them those in Plotly; `characters` of the columns' HTML."""

    main_ms: float
    plotly_ms: float
    characters: int


def experiment(variants: int, tokens: int, step_ms: float) -> dict[str, Any]:
    """Equal variants of the scripted engine under different names: a warm-up, which is drawn, and a timed pass, which is left alone."""
    protocol = {"warmups": 1, "repeats": 1, "energy": False, "quality": False, "profile": False}
    spec = {
        "model": f"script:step_ms={step_ms:g},context=100000",
        "engine": "fake",
        "workload": {"prompts": ["What is slow?"], "max_new_tokens": tokens},
        "protocol": protocol,
    }
    return {"variants": [{**spec, "label": f"variant {number + 1}"} for number in range(variants)]}


def opened(page: Page) -> None:
    """Show the run that goes on, as a visitor does who comes later."""
    open_tab(page, "History")
    page.locator("#history-list [data-do=open]").first.click(timeout=LONG_MS)
    page.wait_for_function("window.Plotly && document.querySelector('#live-charts .js-plotly-plot')", timeout=LONG_MS)
    expect(status(page)).to_have_class("status running v0", timeout=LONG_MS)


def watched(page: Page) -> list[Cost]:
    """The cost of each update until the run is over; updates that come between two looks share theirs equally."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable", {"timeDomain": "threadTicks"})
    page.evaluate(COUNT_UPDATES)

    def look() -> tuple[int, float, float, int, str]:
        metrics = {entry["name"]: entry["value"] for entry in session.send("Performance.getMetrics")["metrics"]}
        updates, drawing, characters, words = page.evaluate(LOOK)
        return updates, metrics["TaskDuration"] * 1000, drawing, characters, words

    costs: list[Cost] = []
    before = look()
    while "running" in before[4] or "waiting" in before[4]:
        page.wait_for_timeout(UPDATE_S * 1000)
        now = look()
        count = now[0] - before[0]
        if count:
            costs += [Cost((now[1] - before[1]) / count, (now[2] - before[2]) / count, now[3])] * count
            before = now
        before = (*before[:4], now[4])
    return costs[:-1]  # the last one draws the results


def served(home: Path) -> list[float]:
    """What each update costs the server, in ms: the stored events folded again, cut where the page would have drawn."""
    store = Store(home / "results.sqlite")
    runs = store.load(store.history(limit=1)[0]["id"]).runs
    state = Shown(start([run.spec.label for run in runs]), [run.spec.label for run in runs], status="running")
    events = sorted(((run.index, event) for run in runs for event in run.events), key=lambda pair: pair[1].t_ns)
    store.close()
    costs: list[float] = []
    until, began, view = events[0][1].t_ns, time.process_time(), state.view
    for pair in events:
        if pair[1].t_ns > until:
            live_json(view)
            columns_html(Shown(view, state.names, status="running"))
            costs.append((time.process_time() - began) * 1000)
            until, began = pair[1].t_ns + int(UPDATE_S * 1e9), time.process_time()
        view = fold(view, pair)
    return costs


def told(name: str, costs: Sequence[float], unit: str = "ms") -> float:
    """Print the first hundred's median, the last ones' and their ratio, which is returned."""
    first, last = statistics.median(costs[:FIRST]), statistics.median(costs[-LAST:])
    print(f"{name}: first {FIRST} {first:,.1f} {unit}, last {LAST} {last:,.1f} {unit}, ratio {last / first:.2f} ({len(costs)} updates)")
    return last / first


def main() -> int:
    """Run, watch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--step-ms", type=float, default=2.5)
    parser.add_argument("--limit", type=float, default=1.5)
    args = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="live-page-"))
    server = Server(home)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_FLAGS)
        page = open_page(browser, server.url)
        answer = Client(server.url, verbose=False).submit(experiment(args.variants, args.tokens, args.step_ms), api_name="/run")
        opened(page)
        costs = watched(page)
        browser.close()
    results = answer.result()["results"]
    assert [result["status"] for result in results] == ["done"] * args.variants
    server.stop()
    told("columns in the page", [cost.characters / 1000 for cost in costs], "thousand characters")
    told("Plotly", [cost.plotly_ms for cost in costs])
    ratios = [told("browser, main thread", [cost.main_ms for cost in costs]), told("server", served(home))]
    return int(max(ratios) > args.limit)


if __name__ == "__main__":
    sys.exit(main())
