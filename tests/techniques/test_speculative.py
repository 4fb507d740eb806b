"""Speculative decoding: the text of plain decoding in fewer passes, exact ends, honest numbers, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.plan import Plan, complete, plan_for
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL, RunSpec
from playground.engines import engine_class
from playground.engines.draft import same_tokens
from playground.measure.machine import probe
from playground.measure.metrics import METRICS
from playground.measure.trace import Trace
from playground.measure.values import Missing
from playground.models.tokenizer import ByteTokenizer
from playground.techniques import techniques
from playground.techniques.speculation import looked_up

LOOKUP = {"speculative": "prompt_lookup"}
DRAFT = {"speculative": "draft", "draft_model": "shape:tiny"}
REPETITIVE = (
    "Repeat this list exactly, without any change: 1. Mercury is small. 2. Venus is hot. 3. Earth has life. 4. Mars is red. "
    "5. Saturn has rings. 6. Neptune is blue."
)


def plan(model: str = "shape:tiny", **knobs: Any) -> Plan:
    spec = RunSpec(model=model, device="cpu", knobs={"precision": "fp32", **knobs})
    return plan_for(spec, techniques(), engine_class("transformers"), probe())


def loaded(model: str = "shape:tiny", **knobs: Any) -> Any:
    engine = engine_class("transformers")()
    engine.load(plan(model, **knobs), lambda event: None)
    return engine


@pytest.fixture(scope="module")
def tiny() -> Iterator[Any]:
    """With itself as draft, whose output head is then disturbed, so that it is right at times."""
    import torch

    engine = loaded(**DRAFT)
    with torch.no_grad():
        head = engine.draft.get_output_embeddings().weight
        head += 0.012 * torch.randn(head.shape, generator=torch.Generator().manual_seed(1))
    yield engine
    engine.close()


def written(engine: Any, batch: Batch, **knobs: Any) -> list[int]:
    engine.setup(plan(**knobs))
    return [token for tick in engine.generate(batch) for token in tick.tokens[0]]


def counts(engine: Any, **knobs: Any) -> Any:
    return engine.counts(techniques()["speculative"], plan(**knobs))


@pytest.fixture(scope="module")
def default_model() -> Iterator[Any]:
    engine = loaded(DEFAULT_MODEL)
    yield engine
    engine.close()


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "count", "at_most"), [(REPETITIVE, 32, 16), ("Write a short story about a lighthouse.", 20, 20)])
def test_the_default_model_writes_the_same_with_prompt_lookup_in_fp32(default_model: Any, prompt: str, count: int, at_most: int) -> None:
    batch = Batch((default_model.prepare(prompt, True)[1],), count)
    plain = written(default_model, batch)
    assert written(default_model, batch, **LOOKUP) == plain
    found = counts(default_model, **LOOKUP)
    assert found["speculated_tokens"] == count
    assert found["target_passes"] + found["accepted_tokens"] == count
    assert found["target_passes"] <= at_most


@pytest.mark.parametrize("draft_tokens", [1, 2, 5, 32])
@pytest.mark.parametrize("how", [LOOKUP, DRAFT], ids=["lookup", "draft"])
def test_the_text_is_that_of_plain_decoding_however_many_tokens_are_proposed(tiny: Any, how: dict[str, Any], draft_tokens: int) -> None:
    batch = Batch(((7, 8, 9, 7, 8),), 90)
    plain = written(tiny, batch)
    assert written(tiny, batch, **how, draft_tokens=draft_tokens) == plain
    found = counts(tiny, **how)
    assert 0 < found["accepted_tokens"] < found["drafted_tokens"]
    assert found["target_passes"] + found["accepted_tokens"] == 90
    assert tiny.cache.get_seq_length() == 5 + 90 - 1


@pytest.mark.parametrize("how", [LOOKUP, DRAFT], ids=["lookup", "draft"])
def test_it_ends_with_the_end_of_text_token_also_where_that_was_proposed(tiny: Any, how: dict[str, Any], monkeypatch: Any) -> None:
    prompt = (7, 8)
    plain = written(tiny, Batch((prompt,), 40))
    for end in (plain[5], plain[13], plain[-1]):
        monkeypatch.setattr(tiny, "tokenizer", SimpleNamespace(eos_ids=frozenset({end})))
        expected = plain[: plain.index(end) + 1]
        assert written(tiny, Batch((prompt,), 40, ignore_eos=False), **how) == expected
        assert tiny.cache.get_seq_length() == len(prompt) + len(expected) - 1


def test_a_draft_that_is_the_model_itself_has_all_tokens_accepted_and_counts_as_weights() -> None:
    engine = loaded(**DRAFT)
    written(engine, Batch(((7, 8, 9),), 37), **DRAFT)
    found = engine.evidence(techniques()["speculative"], plan(**DRAFT))
    assert found.ok
    assert found.text.startswith("37 tokens in 7 passes of the target, 30 of 30 drafted tokens accepted")  # 1, then 6 x (5 + 1)
    one = 164_160 * 4
    assert one * 2 <= engine.memory()["weights_bytes"] < one * 2.01
    told = engine.counts(techniques()["draft_model"], plan(**DRAFT))
    assert one <= told["draft_weights_bytes"] < one * 1.01
    assert "164,160 parameters in float32" in engine.evidence(techniques()["draft_model"], plan(**DRAFT)).text
    assert counts(engine, **DRAFT)["draft_kv_bytes"] > 0
    with pytest.raises(Problem, match="ask for more tokens"):  # 1 token, then all 3 others, and no step is left to profile
        engine.profile(Batch(((7, 8, 9),), 4))
    engine.close()


def test_a_text_in_which_nothing_could_be_looked_up_is_no_proof(tiny: Any) -> None:
    written(tiny, Batch(((7, 8),), 3), **LOOKUP)
    found = tiny.evidence(techniques()["speculative"], plan(**LOOKUP))
    assert not found.ok
    assert "0 of 0 drafted tokens" in found.text


def test_counts_of_the_warm_up_are_forgotten(tiny: Any) -> None:
    written(tiny, Batch(((7, 8, 9),), 20), **DRAFT)
    tiny.reset_peaks()
    list(tiny.generate(Batch(((7, 8, 9),), 20)))
    assert counts(tiny, **DRAFT)["speculated_tokens"] == 20


def test_a_cycle_is_profiled_as_the_decode_step(tiny: Any) -> None:
    tiny.setup(plan(**DRAFT))
    profile = tiny.profile(Batch(((7, 8, 9),), 64))
    assert profile.cached_tokens >= 3 + 16 - 1
    assert profile.parts["attention"] > 0


@pytest.mark.parametrize(
    ("ids", "longest", "count", "expected"),
    [
        ([1, 2, 3, 4, 2], 3, 2, [3, 4]),
        ([1, 2, 9, 1, 2, 8, 1, 2], 2, 1, [8]),  # the later of two occurrences
        ([1, 2, 9, 5, 2, 8, 1, 2], 2, 1, [9]),  # two tokens before one
        ([4, 4, 4, 4], 3, 2, [4]),  # three tokens go on with one only
        ([4, 4, 4, 4], 1, 3, [4, 4, 4]),
        ([1, 2, 3], 3, 5, []),
        ([1, 1], 3, 0, []),
        ([1], 3, 5, []),
    ],
)
def test_the_lookup_finds_what_followed(ids: list[int], longest: int, count: int, expected: list[int]) -> None:
    assert looked_up(ids, longest, count) == expected


def test_drawn_tokens_and_other_settings_that_cannot_be_are_refused_with_the_way_out(tiny: Any) -> None:
    with pytest.raises(Problem, match="set the temperature to 0") as caught:
        written(tiny, replace(Batch(((7, 8),), 8), temperature=0.7), **LOOKUP)
    assert caught.value.kind == "user"
    with pytest.raises(Problem, match="Set batch_size to 1"):
        complete(RunSpec(knobs={**LOOKUP, "batch_size": 2}), techniques())
    for kv_cache in ("static", "off"):
        with pytest.raises(Problem, match="set kv_cache to dynamic"):
            plan(**LOOKUP, kv_cache=kv_cache)
    graph = RunSpec(model="shape:tiny", engine="graph", device="cpu", knobs=LOOKUP)
    with pytest.raises(Problem, match="choose the engine transformers"):
        plan_for(graph, techniques(), engine_class("graph"), probe())
    with pytest.raises(Problem, match="applies to speculative=draft"):
        complete(RunSpec(knobs={**LOOKUP, "draft_model": "shape:tiny"}), techniques())


def test_a_draft_must_be_named_also_on_a_model_that_an_earlier_run_loaded(tiny: Any) -> None:
    with pytest.raises(Problem, match="needs a draft") as caught:
        tiny.setup(plan(speculative="draft"))
    assert caught.value.kind == "user"


def test_a_draft_with_other_tokens_is_refused_and_both_vocabularies_are_named() -> None:
    with pytest.raises(Problem, match=r"draft small has 300 tokens and that of the model 512: ") as caught:
        same_tokens(ByteTokenizer(512), ByteTokenizer(300), "the draft small", "the model cannot check tokens")
    assert caught.value.kind == "user"

    class Shifted(ByteTokenizer):
        def encode(self, text: str) -> tuple[int, ...]:
            return tuple(token + 1 for token in super().encode(text))

    with pytest.raises(Problem, match="512 tokens and that of the model 512, but the two split"):
        same_tokens(ByteTokenizer(512), Shifted(512), "the draft other", "the model cannot check tokens")
    same_tokens(ByteTokenizer(512), ByteTokenizer(512), "the draft same", "")


def measured(name: str, **given: float) -> Any:
    return METRICS[name].measure(Trace(RunSpec(), counts=given), None)


def test_metrics_are_ratios_of_the_counts() -> None:
    given = {"target_passes": 31, "speculated_tokens": 64, "drafted_tokens": 155, "accepted_tokens": 33}
    assert measured("acceptance_rate", **given) == 33 / 155
    assert measured("tokens_per_pass", **given) == 64 / 31
    assert measured("draft_time_share", **given, draft_s=2.0, draft_prompt_s=1.0, target_s=9.0) == 0.25
    assert measured("draft_bytes", draft_weights_bytes=1000, draft_kv_bytes=24) == 1024


def test_the_break_even_is_that_of_theorem_3_8() -> None:
    given = {"target_passes": 41, "cycles": 40, "drafted_tokens": 200, "plain_pass_s": 0.1}
    c, k = 0.2, 5
    low, high = 0.0, 1.0
    for _ in range(60):  # the acceptance a of one token at which (1 - a^(k+1)) / (1 - a) = k c + 1
        a = (low + high) / 2
        low, high = (a, high) if sum(a**power for power in range(k + 1)) < k * c + 1 else (low, a)
    expected = sum(low**power for power in range(1, k + 1)) / k  # of k drafted tokens the share that is then accepted
    assert measured("break_even_acceptance", **given, cycle_s=40 * 0.1 * (k * c + 1)) == pytest.approx(expected)
    assert measured("break_even_acceptance", **given, cycle_s=40 * 0.1 * (k * 1.5 + 1)) == pytest.approx(1.5)  # never reached


def test_a_run_without_proposals_says_why_it_has_no_acceptance() -> None:
    assert "no tokens are proposed" in measured("acceptance_rate").reason
    assert isinstance(measured("break_even_acceptance", target_passes=3), Missing)
    assert "no draft model" in measured("draft_bytes").reason
