"""How long a large history takes: opening the store, its first page, filtered pages, and one experiment with its events.

Makes a file of runs with generated events (a few experiments through the store, copied until there are enough; every copy has chunks,
result and metrics of its own) and prints median and worst of several openings. Example::

    python tests/bench/history.py --runs 5000 --ticks 2000
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from playground.core.events import BatchEnd, BatchStart, Done, Event, Gauge, Loaded, Output, Phase, Tick  # noqa: E402
from playground.core.plan import complete  # noqa: E402
from playground.core.spec import RunSpec, Workload  # noqa: E402
from playground.results.history import Filters  # noqa: E402
from playground.results.result import result  # noqa: E402
from playground.results.store import Store, open_store  # noqa: E402
from playground.techniques import techniques  # noqa: E402
from playground.ui.tabs.history import look  # noqa: E402
from playground.ui.view import fold, start  # noqa: E402

MS = 1_000_000
PASSES = 4
TEMPLATES = 20
WORDS = ("Precision ladder", "KV cache", "Batch size", "Quantization", "Serving")


def events(ticks: int, chance: random.Random, machine: dict[str, str]) -> Iterator[Event]:
    """A run of four passes with this many ticks in all, and four gauges a second."""
    now, pieces = 0, tuple(f" w{number}" for number in range(ticks // PASSES))
    ids = tuple(chance.randrange(49_152) for _ in pieces)
    yield Loaded(now, 1.5, {"source": "generated", "device": "cuda" if machine["gpu"] else "cpu", "config": {}}, machine)
    yield Phase(now, "timed")
    for number in range(PASSES):
        yield BatchStart(now, "timed" if number else "warmup", max(0, number - 1), (0,), (32,))
        for token in ids:
            now += int(chance.gauss(20, 1) * MS)
            yield Tick(now, ((token,),))
            if chance.random() < 0.08:
                yield Gauge(now, "parent", {"cpu_percent": chance.uniform(0, 100), "rss_bytes": chance.uniform(1e9, 2e9)})
        yield BatchEnd(now)
    yield Output(now, 0, "a prompt", ids, pieces)
    yield Done(now)


def specs(chance: random.Random) -> list[RunSpec]:
    """A baseline and a variant that differ in their number format."""
    given = {"batch_size": chance.choice((1, 1, 8)), "kv_cache": chance.choice(("dynamic", "off"))}
    model = chance.choice(("smollm2-135m-instruct", "shape:llama-3.2-1b", "shape:llama-3.1-8b"))
    work = Workload(max_new_tokens=64)
    return [
        complete(RunSpec(model=model, knobs={**given, "precision": name}, workload=work, label=name), techniques())
        for name in ("fp32", "bf16")
    ]


def templates(store: Store, ticks: int, chance: random.Random) -> None:
    """Some experiments, each made through the store as a real one is."""
    for number in range(TEMPLATES):
        machine = {"host": "bench", "cpu": "AMD EPYC", "gpu": chance.choice(("", "NVIDIA H200", "NVIDIA H100"))}
        pair = specs(chance)
        experiment = store.create(f"{WORDS[number % len(WORDS)]} {number}", pair)
        before = None
        for index, spec in enumerate(pair):
            found = list(events(ticks, chance, machine))
            store.begin(experiment, index)
            for part in itertools.batched(found, 100) if sys.version_info >= (3, 12) else _parts(found, 100):
                store.append(experiment, index, part)
            status = chance.choice(("done", "done", "done", "failed"))
            store.finish(experiment, index, {**result(spec, found, before), "status": status})
            before = (spec, found)


def _parts(items: list[Event], size: int) -> Iterator[list[Event]]:
    return (items[place : place + size] for place in range(0, len(items), size))


def multiply(store: Store, runs: int) -> None:
    """Copy the experiments, each with rows of its own in every table, until there are `runs` runs."""
    with store._database.writing() as connection:
        made = [row["id"] for row in connection.execute("SELECT id FROM experiments")]
        columns = {
            table: [row["name"] for row in connection.execute(f"PRAGMA table_info({table})") if row["name"] not in ("number", "experiment")]
            for table in ("experiments", "runs", "chunks", "metrics")
        }
        for number in range(len(made), runs // 2):
            source, target = made[number % len(made)], f"copy{number:04d}"
            for table, names in columns.items():
                key = "id" if table == "experiments" else "experiment"
                kept = ", ".join(name for name in names if name != "id")
                connection.execute(f"INSERT INTO {table} ({key}, {kept}) SELECT ?, {kept} FROM {table} WHERE {key} = ?", (target, source))


def timed(what: str, times: int, call: Callable[[], Any]) -> float:
    """Median and worst of `times` calls, in milliseconds; returns the median."""
    seen = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        seen.append((time.perf_counter() - begun) * 1e3)
    print(f"{what:<58} median {statistics.median(seen):8.1f} ms   worst {max(seen):8.1f} ms", flush=True)
    return statistics.median(seen)


def opened(path: Path) -> None:
    """What a start of the page does: open, then the first page."""
    store = open_store(path)
    assert len(store.earlier.page()["experiments"]) == 50
    store.close()


def whole(store: Store, experiment: str) -> None:
    """What opening an earlier experiment does: load it, read its events and fold them into what the page shows."""
    found = store.load(experiment)
    view = start([run.spec.label for run in found.runs])
    for run in found.runs:
        for event in run.events:
            view = fold(view, (run.index, event))


def main() -> int:
    """Make the file and measure; returns 1 where the history took longer to open than --limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5000)
    parser.add_argument("--ticks", type=int, default=2000)
    parser.add_argument("--times", type=int, default=9)
    parser.add_argument("--limit", type=float, default=300.0, help="milliseconds that opening the tab may take")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="history-") as folder:
        path = Path(folder) / "results.sqlite"
        store = Store(path)
        templates(store, args.ticks, random.Random(0))
        multiply(store, args.runs)
        store.close()
        print(f"{args.runs} runs of {args.ticks} ticks, two an experiment: {path.stat().st_size / 1e6:.0f} MB", flush=True)
        first = timed("opening the store, and its first page", args.times, lambda: opened(path))
        timed("opening the store", args.times, lambda: open_store(path).close())
        store = open_store(path)
        app, sought = SimpleNamespace(store=store), [""] * len(fields(Filters))
        tab = timed("what the tab History does when it is opened", args.times, lambda: look(app, 0, *sought))
        timed("first page (50 experiments)", args.times, store.earlier.page)
        kinds = Filters(model="shape:llama-3.2-1b", technique="kv_cache", status="done")
        timed("model, technique and status", args.times, lambda: store.earlier.page(kinds))
        timed("words", args.times, lambda: store.earlier.page(Filters(text="ladder llama")))
        timed("device, and the last of its pages", args.times, lambda: store.earlier.page(Filters(device="NVIDIA H200"), offset=500))
        newest = store.history(1)[0]["id"]
        timed("one experiment of two runs, its events read", args.times, lambda: [run.events for run in store.load(newest).runs])
        timed("the same, read and folded for the page", args.times, lambda: whole(store, newest))
        store.close()
    return int(max(first, tab) > args.limit)


if __name__ == "__main__":
    sys.exit(main())
