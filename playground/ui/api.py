"""The stable names for `gradio_client` and MCP: `/run`, `/estimate`, `/history`. They use the same jobs and store as the page.

Example::

    client = Client("http://localhost:7860")
    client.predict({"model": "shape:tiny", "knobs": {"precision": "fp32"}}, api_name="/run")["metrics"]["itl_s"]
"""

from __future__ import annotations

import asyncio
from typing import Any

import gradio as gr

from playground.core.plan import complete
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.presets import judged, specs_from
from playground.run.forecast import estimate_of
from playground.ui.form import labels
from playground.ui.handlers import App, check, title_of

POLL_S = 0.1
SEVERAL = ("variants", "baseline", "variant")


def add_api(app: App) -> None:
    """Register the three endpoints in the Blocks that is being built."""

    async def run(experiment: dict) -> dict:  # type: ignore[type-arg]
        """Run one variant (a spec), or several ({"variants": [spec, ...]}, the first is the baseline), and wait for the results.

        One spec gives one result; several give {"results": [result, ...], "claims": [...]}: what the presets claim of these changes.
        """
        specs = _specs(app, experiment)
        job = app.jobs.submit(title_of(specs), specs)
        while not job.done.is_set():
            await asyncio.sleep(POLL_S)
        several = any(name in experiment for name in SEVERAL)
        return {"results": job.results, "claims": judged(job.results)} if several else dict(job.results[0])

    def estimate(spec: dict) -> dict:  # type: ignore[type-arg]
        """Estimated memory of a spec before loading, in bytes: weights, KV cache, activations, total."""
        one = _specs(app, spec)[0]
        found = estimate_of(one, app.facts.of, app.world.techniques, app.world.machine)
        if found is None:
            raise gr.Error(f"The size of {one.model} is not known before it has been fetched.", print_exception=False)
        return {
            "weights_bytes": found.weights_bytes,
            "kv_cache_bytes": found.kv_cache_bytes,
            "activation_bytes": found.activation_bytes,
            "total_bytes": found.total_bytes,
            "note": found.note,
        }

    def history(limit: int = 50) -> list:  # type: ignore[type-arg]
        """The newest runs with their headline metrics."""
        return app.store.history(limit)

    gr.api(run, api_name="run", concurrency_id="api", concurrency_limit=16)
    gr.api(estimate, api_name="estimate", concurrency_id="form", concurrency_limit=8)
    gr.api(history, api_name="history", concurrency_id="form", concurrency_limit=8)


def _specs(app: App, given: Any) -> list[RunSpec]:
    try:
        specs = [complete(spec, app.world.techniques, app.world.defaults(spec)) for spec in specs_from(given)]
        names = labels(specs, app.world)
        specs = [spec.replace(label=spec.label or name) for spec, name in zip(specs, names, strict=True)]
        check(app, specs)
    except Problem as problem:
        raise gr.Error(problem.message, print_exception=False) from problem
    return specs
