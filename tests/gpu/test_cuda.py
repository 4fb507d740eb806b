"""What only a CUDA device can show: every precision and quantization with its evidence, the order of memory numbers, out of memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from playground.core.events import Done, Evidence, Failed, Gauge, Memory
from playground.core.spec import Protocol, RunSpec, Workload
from playground.run.runner import Runner


@pytest.fixture
def runner() -> Iterator[Runner]:
    made = Runner()
    yield made
    made.close()


def events_of(runner: Runner, model: str, tokens: int = 8, **knobs: Any) -> list[Any]:
    spec = RunSpec(
        model=model,
        device="cuda",
        knobs=knobs,
        workload=Workload(("The quick brown fox",), max_new_tokens=tokens),
        protocol=Protocol(warmups=1, repeats=2, quality=False),
    )
    return [event for event in runner.run(spec, cancel=threading.Event()) if event is not None]


@pytest.mark.parametrize(
    "knobs",
    [
        {"precision": "fp32"},
        {"precision": "fp16"},
        {"precision": "bf16"},
        {"precision": "fp16", "quantization": "int8"},
        {"precision": "bf16", "quantization": "nf4"},
        {"precision": "bf16", "quantization": "fp4", "double_quantization": True},
        {"kv_cache": "off"},
        {"kv_cache": "static"},
        {"batch_size": 8},
        {"attention": "eager"},
        {"kv_cache": "offloaded"},
        {"kv_cache": "quantized", "kv_backend": "fp8"},
        {"kv_cache": "window", "kv_window": 16},
        {"offload": "cpu"},
        {"offload": "pinned"},
        {"precision": "fp32", "autocast": "bf16"},
        {"precision": "bf16", "torchao": "fp8"},
        {"precision": "bf16", "prune": "two_four"},
        {"kv_cache": "static", "compile": "reduce_overhead"},
    ],
    ids=str,
)
def test_every_setting_runs_on_the_gpu_with_its_evidence(runner: Runner, knobs: dict[str, Any]) -> None:
    events = events_of(runner, "shape:qwen3-0.6b", **knobs)
    assert isinstance(events[-1], Done), events[-1]
    evidence = {event.technique: event for event in events if isinstance(event, Evidence)}
    assert evidence
    assert all(event.ok for event in evidence.values())


def test_memory_numbers_keep_their_order(runner: Runner) -> None:
    events = events_of(runner, "shape:llama-3.2-1b", tokens=128, precision="bf16")
    memory = next(event.values for event in events if isinstance(event, Memory) and event.stage == "timed")
    gauges = [event.values for event in events if isinstance(event, Gauge)]
    assert memory["weights_bytes"] + memory["kv_cache_bytes"] <= memory["peak_allocated_bytes"] <= memory["peak_reserved_bytes"]
    used = max(values["device_used_bytes"] for values in gauges if "device_used_bytes" in values)
    assert memory["peak_reserved_bytes"] <= used
    for process in (values["process_bytes"] for values in gauges if "process_bytes" in values):
        assert process <= used


def test_out_of_memory_is_a_result_and_the_next_run_works(runner: Runner) -> None:
    events = events_of(runner, "shape:llama-3.1-8b", tokens=30_000, precision="fp32", kv_cache="static", batch_size=256)
    assert isinstance(events[-1], Failed)
    assert events[-1].kind == "oom"
    assert isinstance(events_of(runner, "shape:qwen3-0.6b")[-1], Done)
