"""Sampling against transformers' own warpers: which tokens are kept, with which probabilities, and how often each is drawn."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from playground.core.engine import Batch
from playground.engines.sampling import greedy, kind_of, narrowed, sample, sample_all

VOCABULARY = 500


def logits(rows: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 4


def settings(temperature: float, top_k: int = 0, top_p: float = 1.0) -> tuple[Any, Any, Any]:
    return torch.tensor(temperature), torch.tensor(top_k), torch.tensor(top_p)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def as_transformers(scores: torch.Tensor, temperature: float, top_k: int = 0, top_p: float = 1.0) -> torch.Tensor:
    """Probabilities as `generate` would draw from, in its order of warpers."""
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warped: torch.Tensor = LogitsProcessorList(warpers)(None, scores)  # type: ignore[arg-type]
    return warped.softmax(dim=-1)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
@pytest.mark.parametrize("top_k", [0, 1, 7, 100, VOCABULARY, 10 * VOCABULARY])
@pytest.mark.parametrize("top_p", [1e-9, 0.3, 0.9, 0.999, 1.0])
def test_what_is_kept_and_its_probabilities_are_those_of_transformers(temperature: float, top_k: int, top_p: float) -> None:
    scores = logits()
    expected = as_transformers(scores, temperature, top_k, top_p)
    weights = narrowed(scores, *settings(temperature, top_k, top_p))
    assert torch.equal(weights > 0, expected > 0)
    assert torch.allclose(weights / weights.sum(dim=-1, keepdim=True), expected, rtol=1e-4, atol=1e-7)


def test_top_p_is_a_share_of_what_top_k_left() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    first_two_of_all = narrowed(scores, *settings(1.0, 0, 0.6))
    assert (first_two_of_all > 0).tolist() == [[True, True, False, False]]
    one_of_two = narrowed(scores, *settings(1.0, 2, 0.6))  # 0.5 of 0.8 is 0.625
    assert (one_of_two > 0).tolist() == [[True, False, False, False]]


def test_a_nucleus_that_is_reached_exactly_takes_no_further_token() -> None:
    scores = torch.tensor([[0.125, 0.5, 0.25, 0.125]]).log()
    assert (narrowed(scores, *settings(1.0, 0, 0.75)) > 0).tolist() == [[False, True, True, False]]


def test_of_equal_tokens_exactly_top_k_stay_and_top_k_1_is_greedy() -> None:
    equal = torch.zeros(2, 6)
    assert (narrowed(equal, *settings(1.0, 2)) > 0).tolist() == [[True, True, False, False, False, False]] * 2
    assert (narrowed(equal, *settings(1.0, 0, 0.5)) > 0).sum(dim=-1).tolist() == [3, 3]
    pair = torch.tensor([[0.0, 3.0, 1.0, 3.0]])
    assert {sample(pair, *settings(1.0, 1), seeded(seed)).item() for seed in range(20)} == {greedy(pair).item()} == {1}


@pytest.mark.parametrize("top_p", [1e-9, 1e-60])
def test_a_tiny_top_p_leaves_the_most_likely_token(top_p: float) -> None:
    scores = logits(rows=50)
    assert torch.equal(sample(scores, *settings(10.0, 0, top_p), seeded()), greedy(scores))


@pytest.mark.parametrize("temperature", [1e-6, 1e-38, 1e-60])
def test_a_temperature_near_0_is_greedy_and_never_no_number(temperature: float) -> None:
    scores = logits(rows=50)
    for chosen in (sample_all(scores, torch.tensor(temperature), seeded()), sample(scores, *settings(temperature, 9, 0.9), seeded())):
        assert torch.equal(chosen, greedy(scores))


def chi_square(drawn: torch.Tensor, expected: torch.Tensor) -> tuple[float, int]:
    """The statistic and its degrees of freedom; tokens of which fewer than 8 are expected count together."""
    counts, wanted = torch.bincount(drawn, minlength=len(expected)).double(), expected.double() * len(drawn)
    common = wanted >= 8
    counts = torch.cat((counts[common], counts[~common].sum()[None]))
    wanted = torch.cat((wanted[common], wanted[~common].sum()[None]))
    counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    return float(((counts - wanted) ** 2 / wanted).sum()), len(wanted) - 1


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (20, 1.0), (0, 0.9), (30, 0.8)])
def test_tokens_are_drawn_as_often_as_their_probability_says(top_k: int, top_p: float) -> None:
    draws, temperature = 40_000, 2.0
    scores = logits(rows=1, seed=5)
    many = scores.expand(draws, -1)
    drawn = sample(many, *settings(temperature, top_k, top_p), seeded(1))
    statistic, freedom = chi_square(drawn, as_transformers(scores, temperature, top_k, top_p)[0])
    assert freedom >= 5
    assert abs(statistic - freedom) < 4 * math.sqrt(2 * freedom)
    wrong, freedom = chi_square(drawn, as_transformers(scores, 1.7, top_k, top_p)[0].clamp(min=1e-9))
    assert wrong - freedom > 8 * math.sqrt(2 * freedom), "this test would not see a wrong temperature"


def test_no_token_that_was_left_out_is_ever_drawn() -> None:
    scores = logits(rows=1, seed=2)
    allowed = set(as_transformers(scores, 5.0, 10, 0.95)[0].nonzero().flatten().tolist())
    assert set(sample(scores.expand(20_000, -1), *settings(5.0, 10, 0.95), seeded()).tolist()) == allowed


@pytest.mark.parametrize("narrow", [False, True])
def test_a_seed_repeats_its_tokens_and_another_gives_others(narrow: bool) -> None:
    scores = logits(rows=64)

    def draw(seed: int) -> list[int]:
        temperature, top_k, top_p = settings(3.0, 50, 0.95)
        chosen = sample(scores, temperature, top_k, top_p, seeded(seed)) if narrow else sample_all(scores, temperature, seeded(seed))
        assert chosen.dtype == torch.int64
        return list(chosen.tolist())

    assert draw(1) == draw(1) != draw(2)


def test_rows_are_independent() -> None:
    draws = 20_000
    scores = torch.tensor([0.5, 0.3, 0.2]).log().expand(2 * draws, -1)
    pairs = sample_all(scores, torch.tensor(1.0), seeded(3)).view(2, draws)
    together = torch.bincount(pairs[0] * 3 + pairs[1], minlength=9)
    expected = torch.outer(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.5, 0.3, 0.2])).flatten()
    statistic = float(((together - draws * expected) ** 2 / (draws * expected)).sum())
    assert statistic < 26.1, "chi-square with 8 degrees of freedom, 1 in 1,000"
    own = narrowed(logits(rows=4), *settings(1.0, 5, 0.9))
    alone = torch.cat([narrowed(row[None], *settings(1.0, 5, 0.9)) for row in logits(rows=4)])
    assert torch.equal(own, alone)


def test_leaving_nothing_out_draws_the_same_tokens_as_the_way_without_the_sort() -> None:
    scores = logits(rows=200)
    drawn = sample_all(scores, torch.tensor(1.5), seeded(4))
    assert torch.equal(sample(scores, *settings(1.5), seeded(4)), drawn)
    kept = narrowed(scores, *settings(1.5, 0, 0.95)).gather(1, drawn[:, None]).squeeze(1) > 0
    assert 0.8 < kept.float().mean() < 1
    assert torch.equal(sample(scores, *settings(1.5, 0, 0.95), seeded(4))[kept], drawn[kept])


def test_a_seed_draws_what_torch_multinomial_draws() -> None:
    scores = logits(rows=200)
    expected = torch.multinomial(torch.softmax(scores / 1.5, dim=-1), 1, generator=seeded(7)).squeeze(1)
    assert torch.equal(sample_all(scores, torch.tensor(1.5), seeded(7)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_drawn_from_in_float32(dtype: torch.dtype) -> None:
    scores = logits().to(dtype)
    weights = narrowed(scores, *settings(0.7, 40, 0.9))
    assert weights.dtype == torch.float32
    assert torch.equal(weights, narrowed(scores.float(), *settings(0.7, 40, 0.9)))


def test_settings_of_one_element_do_as_those_without_a_dimension() -> None:
    scores = logits()
    temperature, top_k, top_p = settings(0.7, 40, 0.9)
    assert torch.equal(
        sample(scores, temperature[None], top_k[None], top_p[None], seeded()), sample(scores, *settings(0.7, 40, 0.9), seeded())
    )
    assert torch.equal(sample_all(scores, temperature[None], seeded()), sample_all(scores, temperature, seeded()))


def test_nothing_in_a_draw_needs_to_know_a_value() -> None:
    """On the meta device tensors have shapes and no values: what reads one, as a synchronisation does, fails there."""
    scores = torch.empty(3, VOCABULARY, device="meta")
    temperature, top_k, top_p = (setting.to("meta") for setting in settings(0.7, 40, 0.9))
    for chosen in (sample(scores, temperature, top_k, top_p), sample_all(scores, temperature), greedy(scores)):
        assert (chosen.shape, chosen.dtype) == ((3,), torch.int64)


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({}, "greedy"),
        ({"temperature": 0.5}, "all"),
        ({"temperature": 0.5, "top_k": 3}, "narrowed"),
        ({"temperature": 0.5, "top_p": 0.9}, "narrowed"),
    ],
)
def test_the_sort_is_saved_where_nothing_is_left_out(given: dict[str, Any], kind: str) -> None:
    assert kind_of(Batch(((1,),), 1, **given)) == kind
