"""Judged claims on the page: below the verdicts of a run that is over, also of one from the history, and nowhere else."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from playground.core.machine import Machine
from playground.core.spec import Protocol, RunSpec, Workload
from playground.engines import engines
from playground.results.html.claims import claims_html
from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.techniques import techniques
from playground.ui.availability import World
from playground.ui.handlers import App, stored, watch
from playground.ui.results import Shown, columns_html

EVIL = "<script>alert(1)</script>"
MACHINE = Machine("host", "cpu", 2, 16 * 10**9, 8 * 10**9, no_cuda="no driver", packages={"torch": "2.13"})


def judged(**more: Any) -> dict[str, Any]:
    item = {"sentence": "It is faster.", "source": "a text", "variant": "bf16", "number": 1, "metric": "itl_s"}
    return {**item, "outcome": "supported", "text": "Latency fell.", "why": "", **more}


def test_a_claim_is_said_once_with_its_source_and_each_variant_answers() -> None:
    html = claims_html([judged(), judged(variant="fp16", number=2, outcome="contradicted", why="The launches decide.")])
    assert html.count("It is faster.") == html.count("<cite>a text</cite>") == 1
    assert claims_html([judged(), judged(source="another")]).count("It is faster.") == 2
    assert '<b>bf16</b> <b class="outcome supported">supported</b> Latency fell.</li>' in html
    assert '<b class="outcome contradicted">contradicted</b> Latency fell. <small>Why: The launches decide.</small>' in html


def test_what_is_not_decided_is_so_on_this_machine() -> None:
    assert '<b class="outcome not">not decided on this machine</b>' in claims_html([judged(outcome="not decided")])


def test_texts_are_escaped_and_nothing_is_shown_where_nothing_is_claimed() -> None:
    html = claims_html([judged(sentence=EVIL, source=EVIL, variant=EVIL, text=EVIL, why=EVIL)])
    assert EVIL not in html
    assert html.count("&lt;script&gt;") == 5
    assert claims_html([]) == ""
    assert 'class="claims"' not in columns_html(Shown())


def test_a_run_is_judged_when_it_is_over_and_again_when_it_is_opened_from_the_history(tmp_path: Path) -> None:
    specs = [
        RunSpec("script:step_ms=1", "fake", knobs={"batch_size": rows}, label=f"batch {rows}", workload=Workload(("a",), 4),
                protocol=Protocol(warmups=0, repeats=2, energy=False, quality=False, profile=False))
        for rows in (1, 4)
    ]  # fmt: skip
    store = Store(tmp_path / "results.sqlite")
    jobs = Jobs(store)
    app = App(jobs, store, World(techniques(), engines(), MACHINE))
    try:
        job = jobs.submit("batches", specs)

        async def states() -> list[Shown]:
            return [state async for state in watch(app, job.id, 0, "page")]

        with ThreadPoolExecutor(1) as threads:  # this thread may have a loop already, of the browser tests
            seen = threads.submit(asyncio.run, states()).result()
    finally:
        jobs.close()
    assert all(not state.claims for state in seen if not state.over)
    (claim,) = seen[-1].claims
    assert (claim["variant"], claim["metric"]) == ("batch 4", "output_tokens_per_s")
    assert claim["outcome"] != "contradicted"  # four rows a step of the scripted engine; two short repeats may leave it open
    assert "Batching raises throughput." in columns_html(seen[-1])
    assert list(stored(app, job.id, 0).claims) == [claim]
