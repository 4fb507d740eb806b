"""What event stream, worker process and live page cost: tokens per second of the same engine and work with and without them.

Alternates in one run: bare (a process that only iterates the engine, no events, no page) and live (the app, a browser that shows the
run). Prints each round, both medians and their ratio. Run it on a quiet machine::

    python tests/bench/overhead.py --rounds 7 --tokens 96
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "browser")]

from driver import CHROMIUM_FLAGS, Server, choose_engine, chromium_path, open_page, run, set_number, status, wait_done  # noqa: E402
from playwright.sync_api import expect, sync_playwright  # noqa: E402

from playground.core.engine import Batch  # noqa: E402
from playground.core.plan import plan_for  # noqa: E402
from playground.core.spec import RunSpec, Workload  # noqa: E402
from playground.engines import engine_class  # noqa: E402
from playground.measure.machine import probe  # noqa: E402
from playground.results.store import Store  # noqa: E402
from playground.techniques import techniques  # noqa: E402


def bare(tokens: int, passes: int) -> None:
    """The bare side: for each line on stdin, one warm-up and some passes; prints their tokens per second as JSON."""
    plan = plan_for(RunSpec(workload=Workload(max_new_tokens=tokens)), techniques(), engine_class("transformers"), probe())
    engine = engine_class("transformers")()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    _, ids = engine.prepare(plan.spec.workload.prompts[0], True)
    batch = Batch((ids,), tokens)
    print("ready", flush=True)
    for _ in sys.stdin:
        rates = []
        for number in range(passes + 1):
            time.sleep(engine.settle_s)  # as a run does before each timed pass
            start = time.perf_counter_ns()
            for tick in engine.generate(batch):
                last = tick.t_ns
            if number:
                rates.append(tokens / ((last - start) / 1e9))
        print(json.dumps(rates), flush=True)


def opened(browser: Any, server: Server, tokens: int, passes: int) -> Any:
    """A visitor's page, set to this work."""
    page = open_page(browser, server.url)
    choose_engine(page, "transformers")  # as the bare side, whatever is usual on this machine
    set_number(page, "max-new-tokens", tokens)
    set_number(page, "repeats", passes)
    set_number(page, "warmups", 1)
    if page.locator("#quality input").is_checked():
        page.locator("#quality input").uncheck()
    return page


def live(page: Any, home: Path) -> list[float]:
    """The live side: the visitor presses Run and watches; the rates come from the stored events of both (equal) variants."""
    run(page)
    expect(status(page)).to_have_class(re.compile("running|waiting"), timeout=20_000)  # not the end of the run before
    wait_done(page, 600_000)
    newest = Store(home / "results.sqlite").history(limit=1)[0]["id"]
    runs = Store(home / "results.sqlite").load(newest).runs
    return [float(item.result["metrics"]["output_tokens_per_s"]["value"]) for item in runs if item.result]


def alone_rates(child: Any) -> list[float]:
    """Tokens per second of the passes that the bare side makes now."""
    child.stdin.write("go\n")
    child.stdin.flush()
    rates: list[float] = json.loads(child.stdout.readline())
    return rates


def main() -> None:
    """Alternate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.bare:
        return bare(args.tokens, args.passes)
    home = Path(tempfile.mkdtemp(prefix="overhead-"))
    if cache := os.environ.get("PLAYGROUND_HOME"):
        (home / "models").symlink_to(Path(cache) / "models")
    os.environ["PLAYGROUND_HOME"] = str(home)
    command = [sys.executable, __file__, "--bare", "--tokens", str(args.tokens), "--passes", str(args.passes)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin
    assert child.stdout
    assert child.stdout.readline().strip() == "ready"
    server = Server(home)
    ratios, sides = [], ([], [])  # type: ignore[var-annotated]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_FLAGS)
        page = opened(browser, server, args.tokens, args.passes)
        for number in range(args.rounds + 1):
            before = alone_rates(child)
            watched = statistics.median(live(page, home))
            alone = statistics.median([*before, *alone_rates(child)])  # on both sides of the live run, so that a slow drift cancels
            if number:  # the first round loads the worker and is left out
                sides[0].append(alone)
                sides[1].append(watched)
                ratios.append(watched / alone)
                print(
                    f"round {number}: bare {alone:.2f} tokens/s, live page {watched:.2f} tokens/s, ratio {watched / alone:.3f}", flush=True
                )
        browser.close()
    server.stop()
    child.stdin.close()
    child.wait()
    print(f"median: bare {statistics.median(sides[0]):.2f}, live page {statistics.median(sides[1]):.2f} tokens/s")
    print(f"median ratio {statistics.median(ratios):.3f} of {len(ratios)} rounds, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
