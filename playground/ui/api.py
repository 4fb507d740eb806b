"""The stable names for `gradio_client` and MCP: `/run`, `/sweep`, `/estimate`, `/history`. They use the same jobs and store as the page.

Docstrings and types are what clients and agents read of them: Gradio takes the text up to "Args:", then of each
argument and of what is returned one line. Example::

    client = Client("http://localhost:7860")
    client.predict({"model": "shape:tiny", "knobs": {"precision": "fp32"}}, api_name="/run")["metrics"]["itl_s"]
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypedDict, get_type_hints

import gradio as gr

from playground.core.plan import complete
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.presets import growths, judged, specs_from, sweep_from
from playground.results.growth import judge_growth
from playground.results.history import Filters
from playground.results.listing import KINDS, STATUSES, Line
from playground.results.sweep_document import SweepDocument, sweep_document
from playground.run.forecast import estimate_of
from playground.ui.api_types import experiment_type, knobs_in_words, one_of, spec_type, sweep_type, technique_type
from playground.ui.form import labels
from playground.ui.handlers import App, check, title_of
from playground.ui.sweeping import checked

POLL_S = 0.1
SEVERAL = ("variants", "baseline", "variant")
KNOBS = "KNOBS"  # in a docstring: the place of every knob with its default


class Sizes(TypedDict):
    """Estimated memory in bytes; `total_bytes`: on the device, without `kv_host_bytes`, what of the KV cache lies in host memory; `note`:
    what the estimate leaves out, or ""."""

    weights_bytes: int
    kv_cache_bytes: int
    kv_host_bytes: int
    activation_bytes: int
    total_bytes: int
    note: str


def add_api(app: App) -> None:
    """Register the endpoints in the Blocks that is being built."""
    world = app.world
    _offer(_run(app), "api", 16, experiment=experiment_type(world))
    _offer(_sweep(app), "api", 16, plan=sweep_type(world))
    _offer(_estimate(app), "estimates", 8, spec=spec_type(world))
    _offer(_history(app), "lists", 8, technique=technique_type(world.techniques), status=one_of("", *STATUSES), kind=one_of("", *KINDS))


def answer_agents_in_json(blocks: gr.Blocks) -> None:
    """Give agents JSON, from the launch on: Gradio gives them Python's own text of an answer, with None and single quotes."""
    if server := blocks.mcp_server_obj:
        text = server.types.TextContent
        server.postprocess_output_data = lambda data, _: [text(type="text", text=json.dumps(value, ensure_ascii=False)) for value in data]


def _offer(fn: Callable[..., Any], group: str, limit: int, **types: Any) -> None:
    """One endpoint under its function's name. `types`: of parameters, where only the registries know them."""
    fn.__annotations__ = {**get_type_hints(fn), **types}  # real types: Gradio does not read the text of a return annotation
    gr.api(fn, api_name=fn.__name__, concurrency_id=group, concurrency_limit=limit)


def _run(app: App) -> Callable[..., Any]:
    async def run(experiment: dict[str, Any]) -> dict[str, Any]:
        """Load a language model on this machine, generate text with it, and measure latency, memory, throughput, energy and quality.

        An experiment is one variant, or a baseline and up to three further variants, which are compared with it. It runs after those before
        it and may take minutes. One variant: {"model": "shape:tiny", "knobs": {"precision": "fp32"}, "workload": {"prompts": ["Hello"]}}.
        Several: {"baseline": {...as above...}, "variant": [{"precision": "bf16"}, {"kv_cache": "off"}]}, where each entry of "variant" has
        only what differs (knobs, model, engine, device, label); or {"variants": [{...}, {...}]} with whole variants, the first being the
        baseline. Models: smollm2-135m-instruct (default), a hub id, a local folder, a .gguf file, or shape:NAME, an architecture with
        random weights. What a machine or engine cannot do is refused with the reason before anything starts. A result has the status, the
        error, the evidence that each setting took effect, metrics with intervals, the outputs, and a verdict. Knobs and defaults: KNOBS.

        Args:
            experiment: One variant, or "baseline" with "variant", or "variants". Whatever is left out has its default.

        Returns:
            For one variant its result, for several {"results": [...], "claims": [what is said of such changes, and whether it holds]}.
        """
        with _spoken():
            specs = _specs(app, experiment)
            job = app.jobs.submit(title_of(specs), specs)
        while not job.done.is_set():
            await asyncio.sleep(POLL_S)
        several = any(name in experiment for name in SEVERAL)
        return {"results": job.results, "claims": judged(job.results)} if several else dict(job.results[0])

    run.__doc__ = (run.__doc__ or "").replace(KNOBS, knobs_in_words(app.world.techniques))
    return run


def _sweep(app: App) -> Callable[..., Any]:
    async def sweep(plan: dict[str, Any], wait: bool = True) -> SweepDocument:
        """Vary one or two settings over a grid, run each combination, and say what the curves show; or look at a sweep that there is.

        It runs after what was asked for before it and may take many minutes: with wait = false it answers at once, and {"id": ...} gives
        its state later. "axes" names one or two settings with their values: {"preset": "batch-size"}, or {"baseline": {"model":
        "shape:tiny"}, "variant": [{"label": "no cache", "kv_cache": "off"}], "axes": {"max_new_tokens": "8:64:x2", "batch_size": [1, 4]}}.
        The curves run along the first axis; each value of the second, for each variant, is a line of its own. An axis is a knob,
        prompt_tokens, max_new_tokens, model, engine or device. Whole numbers may be a range: "1:64:x2" is 1, 2, 4 to 64, and "128:512:128"
        is 128, 256, 384, 512. "baseline", "variant" and "variants" are as in `run`, with the same knobs; beside "preset" they stand in
        place of what that has. Without a protocol each run is quick: no quality, no profile. At most 8 lines and 200 runs. A run that does
        not fit into memory is a result, and the larger ones of its line are skipped. The sweep is also on the page, in the tab Sweep, with
        its charts, Pause and Stop.

        Args:
            plan: A preset's name, or "baseline" or "variants", with "axes"; or only "id", for the present state of that sweep.
            wait: Whether to answer when the sweep is over (or was stopped on the page), and not at once. Not used with "id".

        Returns:
            The sweep: id, status, axes, cells, facts (what the curves say), and results: of each cell one as from `run`, or null.
        """
        with _spoken():
            name, fresh = _named(app, plan)
        while fresh and wait and app.sweeps.goes_on(name):
            await asyncio.sleep(POLL_S)
        with _spoken():
            stored = app.sweeps.look(name)
            claims = judge_growth(growths(), stored.plan, stored.cells)
            return sweep_document(replace(stored, status=app.sweeps.status(stored)), claims)

    return sweep


def _named(app: App, plan: Any) -> tuple[str, bool]:
    """The id of the sweep that is meant, and whether it begins now."""
    if not isinstance(plan, dict) or "id" not in plan:
        preset = sweep_from(plan).plan
        specs = preset.specs if len(preset.specs) == 1 else _labelled(app, preset.specs)
        return app.sweeps.begin(checked(app, replace(preset, specs=tuple(specs)))), True
    if len(plan) > 1:
        others = ", ".join(name for name in plan if name != "id")
        raise Problem("user", f"id asks for a sweep that there is, so {others} would have no effect.")
    return str(plan["id"]), False


def _estimate(app: App) -> Callable[..., Any]:
    def estimate(spec: dict[str, Any]) -> Sizes:
        """Estimate the memory that one variant of an experiment needs, before anything is loaded.

        Args:
            spec: The variant, as `run` takes it: model, engine, device, knobs, workload. Whatever is left out has its default.

        Returns:
            Bytes of weights, KV cache, its part in host memory, activations, and the total on the device; a model not fetched yet fails.
        """
        with _spoken():
            one = _specs(app, spec)[0]
            found = estimate_of(one, app.facts.of, app.world.techniques, app.world.machine)
            if found is None:
                raise Problem("user", f"The size of {one.model} is not known before it has been fetched.")
        return Sizes(
            weights_bytes=found.weights_bytes,
            kv_cache_bytes=found.kv_cache_bytes,
            kv_host_bytes=found.kv_host_bytes,
            activation_bytes=found.activation_bytes,
            total_bytes=found.total_bytes,
            note=found.note,
        )

    return estimate


def _history(app: App) -> Callable[..., Any]:
    def history(
        limit: int = 50,
        offset: int = 0,
        text: str = "",
        model: str = "",
        technique: str = "",
        device: str = "",
        status: str = "",
        since: str = "",
        until: str = "",
        kind: str = "",
    ) -> list[Line]:
        """List earlier experiments with the headline metrics of their variants: pinned ones first, then the newest.

        Args:
            limit: How many at most.
            offset: How many to pass over before the first.
            text: Words that all stand in title, label, note or a model's name; "" for any.
            model: A model's name; "" for any.
            technique: A technique of which a variant has a setting that is not the default; "" for any.
            device: The processor or GPU on which a variant ran, by its full name; "" for any.
            status: The status of the whole experiment; "" for any.
            since: The first day, such as 2026-11-27, in UTC; "" for all.
            until: The last day, in UTC; "" for all.
            kind: experiment, or sweep for the runs of sweeps; "" for both.

        Returns:
            Experiments with id, title, label, note, status, techniques, devices, and their variants' metrics in SI units.
        """
        with _spoken():
            filters = Filters(text, model, technique, device, status, since, until, kind)
            return app.store.earlier.page(filters, limit, offset)["experiments"]

    return history


@contextmanager
def _spoken() -> Iterator[None]:
    """What a person should read, as an error that reaches the client."""
    try:
        yield
    except Problem as problem:
        raise gr.Error(problem.message, print_exception=False) from problem


def _specs(app: App, given: Any) -> list[RunSpec]:
    specs = [complete(spec, app.world.techniques, app.world.defaults(spec)) for spec in specs_from(given)]
    specs = _labelled(app, specs)
    check(app, specs)
    return specs


def _labelled(app: App, specs: Sequence[RunSpec]) -> list[RunSpec]:
    return [spec.replace(label=spec.label or name) for spec, name in zip(specs, labels(specs, app.world), strict=True)]
