"""CPU threads: a run has the number that it asks for, and the next one torch's own again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from playground.core.engine import Batch, Engine
from playground.core.machine import Gpu, Machine
from playground.core.plan import Plan, load_key, plan_for, refusal
from playground.core.spec import RunSpec
from playground.engines import engines
from playground.measure.machine import probe
from playground.techniques import hardware, techniques

THREADS = 7
TEXT = Batch(((7, 8, 9),), 4)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    number = torch.get_num_threads()
    yield
    torch.set_num_threads(number)


def planned(kind: type[Engine], **knobs: Any) -> Plan:
    spec = RunSpec(model="shape:tiny", engine=kind.name, device="cpu", knobs={"precision": "fp32", **knobs})
    return plan_for(spec, techniques(), kind, probe())


@pytest.mark.parametrize("name", ["transformers", "graph"])
def test_each_run_of_a_loaded_model_has_its_own_number_of_threads(name: str) -> None:
    kind, own, known = engines()[name], hardware.own_threads(), techniques()["hardware"]
    engine, plain, many = kind(), planned(kind), planned(kind, cpu_threads=THREADS)
    assert load_key(plain.spec, techniques()) == load_key(many.spec, techniques()), "one worker serves both"
    engine.load(plain, lambda event: None)
    texts = []
    for plan, wanted in ((many, THREADS), (plain, own), (many, THREADS)):
        engine.setup(plan)
        texts.append([tick.tokens for tick in engine.generate(TEXT)])
        assert torch.get_num_threads() == wanted
        finding = engine.evidence(known, plan)
        assert finding.ok
        assert f"computes with {wanted} thread" in finding.text
    assert texts[0] == texts[1] == texts[2]
    engine.close()
    assert torch.get_num_threads() == own, "the process has its own number again"


def test_another_number_than_the_one_asked_for_is_no_proof() -> None:
    hardware.own_threads()
    torch.set_num_threads(5)
    evidence = techniques()["hardware"].evidence_for_transformers
    assert not evidence({"cpu_threads": 6}, None).ok
    assert not evidence({"cpu_threads": 0}, None).ok or hardware.own_threads() == 5
    assert evidence({"cpu_threads": 5}, None).ok


@pytest.mark.parametrize("name", ["transformers", "graph"])
def test_threads_are_refused_where_the_gpu_computes(name: str) -> None:
    gpu = Machine("h", "cpu", 2, 8, 4, "cuda", (Gpu("H200", "u", (9, 0), 1, 1, "1"),), packages=probe().packages)
    knobs = {**planned(engines()["transformers"]).spec.knobs, "cpu_threads": 2}
    reason = techniques()["hardware"].requires(knobs, gpu, "cuda")
    assert reason is not None
    assert "leave cpu_threads at 0, or choose the device cpu" in reason
    assert techniques()["hardware"].requires({**knobs, "cpu_threads": 0}, gpu, "cuda") is None
    spec = planned(engines()["transformers"], cpu_threads=2).spec.replace(engine=name)
    assert "cpu_threads" not in (refusal(spec, techniques(), engines()[name], gpu) or "")


def test_more_threads_promise_a_shorter_first_token_and_no_saved_byte() -> None:
    expect = techniques()["hardware"].expect
    assert expect({"cpu_threads": 4}, {"cpu_threads": 2}) == {"ttft_s": "down", "weights_bytes": "same", "kv_cache_bytes": "same"}
    assert expect({"cpu_threads": 2}, {"cpu_threads": 4})["ttft_s"] == "up"
    assert "ttft_s" not in expect({"cpu_threads": 4}, {"cpu_threads": 0}), "how many torch chooses depends on the machine"


def test_threads_leave_other_techniques_that_clean_up_after_a_run_alone() -> None:
    kind = engines()["transformers"]
    engine, plan = kind(), planned(kind, cpu_threads=THREADS, serving="one_by_one", requests=3, requests_per_s=0.0)
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    list(engine.generate(TEXT))
    assert engine.evidence(techniques()["serving"], plan).ok
    engine.close()
