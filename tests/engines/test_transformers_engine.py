"""The reference engine against transformers' own `generate`, on the real default model in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from playground.core.engine import Batch
from playground.core.plan import Plan, footprint_of, plan_for
from playground.core.spec import DEFAULT_MODEL, Protocol, RunSpec
from playground.engines import engine_class
from playground.measure.estimate import estimate
from playground.measure.machine import probe
from playground.measure.quality import score_quality
from playground.models.resolve import peek
from playground.techniques import techniques

PROMPTS = ("What is the capital of France?", "Write one sentence about the sea, the moon and an old lighthouse.", "Count to ten.")


def plan(model: str = DEFAULT_MODEL, **knobs: Any) -> Plan:
    spec = RunSpec(model=model, device="cpu", knobs=knobs)
    return plan_for(spec, techniques(), engine_class("transformers"), probe())


@pytest.fixture(scope="module")
def engine() -> Iterator[Any]:
    loaded = engine_class("transformers")()
    loaded.load(plan(precision="fp32"), lambda event: None)
    yield loaded
    loaded.close()


def greedy(engine: Any, kv_cache: str, rows: tuple[tuple[int, ...], ...], tokens: int, ignore_eos: bool = True) -> list[list[int]]:
    engine.setup(plan(precision="fp32", kv_cache=kv_cache))
    out: list[list[int]] = [[] for _ in rows]
    for tick in engine.generate(Batch(rows, tokens, ignore_eos=ignore_eos)):
        for row, ids in zip(out, tick.tokens, strict=True):
            row.extend(ids)
    return out


def reference(engine: Any, ids: tuple[int, ...], tokens: int) -> list[int]:
    import torch

    given = torch.tensor([ids])
    out = engine.model.generate(given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=tokens, pad_token_id=0)
    return out[0, len(ids) :].tolist()


@pytest.fixture(scope="module")
def generated(engine: Any) -> list[int]:
    """What `generate` writes to the second prompt, past any end of text."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.model.generation_config, "eos_token_id", None)
        return reference(engine, engine.prepare(PROMPTS[1], True)[1], 32)


@pytest.mark.slow
@pytest.mark.parametrize(("kv_cache", "tokens"), [("dynamic", 32), ("static", 32), ("off", 12)])
def test_greedy_tokens_equal_those_of_generate_for_every_cache_setting(
    engine: Any, generated: list[int], kv_cache: str, tokens: int
) -> None:
    _, ids = engine.prepare(PROMPTS[1], True)
    assert len(generated) >= tokens
    assert greedy(engine, kv_cache, (ids,), tokens)[0] == generated[:tokens]


@pytest.mark.slow
def test_the_end_of_text_token_ends_a_row_as_in_generate(engine: Any) -> None:
    _, ids = engine.prepare(PROMPTS[0], True)
    expected = reference(engine, ids, 64)
    assert len(expected) < 64, "the question must have a short answer for this test to say anything"
    assert greedy(engine, "dynamic", (ids,), 64, ignore_eos=False)[0] == expected


@pytest.fixture(scope="module")
def alone(engine: Any) -> list[list[int]]:
    """The text of each prompt in a batch of its own."""
    return [greedy(engine, "dynamic", (engine.prepare(prompt, True)[1],), 12)[0] for prompt in PROMPTS]


@pytest.mark.slow
@pytest.mark.parametrize(("kv_cache", "tokens"), [("dynamic", 12), ("static", 12), ("off", 6)])
def test_a_padded_row_gives_the_text_of_the_row_alone(engine: Any, alone: list[list[int]], kv_cache: str, tokens: int) -> None:
    rows = tuple(engine.prepare(prompt, True)[1] for prompt in PROMPTS)
    assert len({len(row) for row in rows}) > 1, "the rows must differ in length"
    assert greedy(engine, kv_cache, rows, tokens) == [row[:tokens] for row in alone]


@pytest.mark.slow
def test_rows_that_end_early_fall_silent_while_the_others_go_on(engine: Any) -> None:
    rows = tuple(engine.prepare(prompt, True)[1] for prompt in PROMPTS[:2])
    together = greedy(engine, "dynamic", rows, 24, ignore_eos=False)
    assert together == [greedy(engine, "dynamic", (row,), 24, ignore_eos=False)[0] for row in rows]
    assert len(together[0]) < len(together[1])


@pytest.mark.slow
def test_scores_are_the_log_probabilities_of_the_model(engine: Any) -> None:
    import torch

    _, ids = engine.prepare("The quick brown fox jumps over the lazy dog.", False)
    with torch.no_grad():
        expected = torch.log_softmax(engine.model(torch.tensor([ids])).logits[0, :-1].double(), dim=-1)
    scores = engine.score(ids)
    assert scores.shape == (len(ids) - 1, engine.model.config.vocab_size)
    assert torch.allclose(scores.double(), expected, atol=1e-4)
    assert torch.allclose(scores.exp().sum(dim=-1), torch.ones(len(ids) - 1), atol=1e-4)


@pytest.mark.slow
def test_the_default_model_knows_the_capital_of_france(engine: Any) -> None:
    _, ids = engine.prepare("What is the capital of France?", True)
    piece = engine.pieces()
    text = "".join(piece(token) for token in greedy(engine, "dynamic", (ids,), 12)[0])
    assert "Paris" in text


@pytest.fixture
def tiny() -> Any:
    loaded = engine_class("transformers")()
    loaded.load(plan("shape:tiny", precision="fp32"), lambda event: None)
    return loaded


def test_sampling_repeats_with_its_seed_and_changes_with_another(tiny: Any) -> None:
    tiny.setup(plan("shape:tiny", precision="fp32"))

    def sample(seed: int) -> list[int]:
        return [tick.tokens[0][0] for tick in tiny.generate(Batch(((1, 2, 3),), 16, temperature=1.0, seed=seed))]

    assert sample(1) == sample(1)
    assert sample(1) != sample(2)


def test_a_draw_from_one_token_is_the_greedy_text_and_from_few_another_that_repeats(tiny: Any) -> None:
    tiny.setup(plan("shape:tiny", precision="fp32"))

    def text(**sampling: Any) -> list[int]:
        return [tick.tokens[0][0] for tick in tiny.generate(Batch(((1, 2, 3),), 16, **sampling))]

    assert text(temperature=5.0, top_k=1) == text(temperature=5.0, top_p=1e-9) == text()
    few = text(temperature=5.0, seed=1, top_k=3)
    assert few == text(temperature=5.0, seed=1, top_k=3) != text()
    assert few != text(temperature=5.0, seed=1)


def test_a_static_cache_is_kept_between_passes_of_one_shape_and_starts_empty(tiny: Any) -> None:
    tiny.setup(plan("shape:tiny", precision="fp32", kv_cache="static"))
    batch = Batch(((1, 2, 3),), 8)
    first = [tick.tokens for tick in tiny.generate(batch)]
    cache = tiny.cache
    assert [tick.tokens for tick in tiny.generate(batch)] == first
    assert tiny.cache is cache
    list(tiny.generate(Batch(((1, 2, 3, 4),), 8)))
    assert tiny.cache is not cache


def test_an_abandoned_generation_leaves_the_engine_usable(tiny: Any) -> None:
    tiny.setup(plan("shape:tiny", precision="fp32"))
    batch = Batch(((5, 6),), 8)
    whole = [tick.tokens for tick in tiny.generate(batch)]
    half = tiny.generate(batch)
    next(half)
    half.close()
    assert [tick.tokens for tick in tiny.generate(batch)] == whole


@pytest.mark.parametrize("kv_cache", ["dynamic", "static", "off"])
def test_one_output_token_is_a_legal_run_whose_evidence_holds(tiny: Any, kv_cache: str) -> None:
    one = plan("shape:tiny", precision="fp32", kv_cache=kv_cache)
    tiny.setup(one)
    assert len(list(tiny.generate(Batch(((1, 2, 3),), 1)))) == 1
    assert all(tiny.evidence(technique, one).ok for technique in one.techniques)


def test_the_kv_cache_is_counted_at_its_largest_not_at_the_last_batch(tiny: Any) -> None:
    tiny.setup(plan("shape:tiny", precision="fp32"))
    list(tiny.generate(Batch(((1,) * 20, (2,) * 20), 5)))
    list(tiny.generate(Batch(((3,),), 5)))
    layers, kv_heads, head_dim, bytes_a_number = 2, 2, 16, 4
    assert tiny.memory()["kv_cache_bytes"] == 2 * layers * kv_heads * head_dim * bytes_a_number * (20 + 5 - 1) * 2
    tiny.reset_peaks()
    assert tiny.memory()["kv_cache_bytes"] == 0


def test_scoring_token_by_token_gives_the_same_numbers_as_all_at_once(tiny: Any) -> None:
    import torch

    ids = tuple(range(3, 40))
    assert torch.allclose(tiny.score(ids, stepwise=True), tiny.score(ids), atol=1e-5)


@pytest.mark.slow
def test_the_noise_floor_of_fp32_is_nothing_and_that_of_bf16_is_not(engine: Any) -> None:
    half = engine_class("transformers")()
    half.load(plan(precision="bf16"), lambda event: None)
    floors = []
    for each in (engine, half):
        values, missing, _ = score_quality(each, Protocol(text="The mill by the river had stood for two hundred years. " * 5))
        assert not {"kld_mean_floor", "top1_agreement_floor", "ppl_floor"} & set(missing)
        floors.append(values)
    half.close()
    assert floors[0]["kld_mean_floor"] < 1e-6
    assert floors[0]["top1_agreement_floor"] == 1
    assert floors[1]["kld_mean_floor"] > 1e-5
    assert floors[1]["ppl_floor"] > floors[0]["ppl_floor"]


@pytest.mark.slow
def test_what_the_estimate_predicts_for_the_default_model_is_what_is_there(engine: Any) -> None:
    _, ids = engine.prepare(PROMPTS[0], True)
    engine.setup(plan(precision="fp32"))
    engine.reset_peaks()
    list(engine.generate(Batch((ids,), 10)))
    found = estimate(peek(DEFAULT_MODEL).config, footprint_of(RunSpec(knobs={"precision": "fp32"}), techniques()), len(ids), 10)
    assert found.weights_bytes == pytest.approx(engine.memory()["weights_bytes"], rel=0.05)
    assert found.kv_cache_bytes == pytest.approx(engine.memory()["kv_cache_bytes"], rel=0.05)
