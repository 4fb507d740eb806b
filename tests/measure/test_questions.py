"""The questions that the product asks, and how an answer is read from likelihoods."""

import math
from collections import Counter

import numpy as np
import pytest
from table_model import TableModel, random_table

from playground.core.problem import Problem
from playground.core.spec import Protocol
from playground.measure.quality import score_quality
from playground.measure.questions import Asked, Question, encode, is_right, likelihoods, questions

torch = pytest.importorskip("torch")

FULL = Protocol(evaluation="full", text="own words")


def test_there_are_at_least_a_hundred_different_questions_with_four_different_options():
    asked = questions()
    assert len(asked) >= 110
    assert len({question.ask for question in asked}) == len(asked)
    for question in asked:
        assert question.ask.strip() == question.ask
        assert len({option.strip().casefold() for option in question.options}) == 4, question.ask
        assert all(option.strip() == option != "" for option in question.options)


def test_the_right_places_are_evenly_spread_so_that_guessing_one_place_gains_nothing():
    places = Counter(question.answer for question in questions())
    assert set(places) == {0, 1, 2, 3}
    assert max(places.values()) - min(places.values()) <= 1


def test_length_alone_does_not_give_the_right_option_away():
    asked = questions()
    shortest = sum(min(range(4), key=lambda option, q=q: len(q.options[option])) == q.answer for q in asked)
    longest = sum(max(range(4), key=lambda option, q=q: len(q.options[option])) == q.answer for q in asked)
    assert shortest < 0.4 * len(asked)
    assert longest < 0.4 * len(asked)


def by_hand(table, model, question):
    """Sum of the log-probabilities of " option" after the prompt, by numpy alone."""
    logits = table.numpy().astype(float)
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    sums = []
    for option in question.options:
        ids = model.prepare(question.prompt + " " + option, False)[1]
        start = len(model.prepare(question.prompt, False)[1])
        sums.append(sum(logprobs[ids[place - 1], ids[place]] for place in range(start, len(ids))))
    return sums


def test_likelihoods_and_the_share_of_right_answers_agree_with_an_independent_computation():
    table = random_table(60, 5)
    model = TableModel(table)
    right = 0
    for question in questions():
        sums = by_hand(table, model, question)
        assert likelihoods(encode(model, question), model.score) == pytest.approx(sums, rel=1e-5)
        right += int(np.argmax(sums)) == question.answer
    values, _, about = score_quality(model, FULL)
    assert (values["questions_right"], values["questions"]) == (right, len(questions()))
    assert "guessing: 25%" in about


class Words(TableModel):
    """A token is a word with the space before it; "Answer: paris" is one token, so the tokenizer merges across the border."""

    vocabulary = ("<start>", "Answer:", " rome", " oslo", "Answer: paris", " new", " york", "Question:")

    def prepare(self, prompt, chat):
        words = prompt.replace("Question: capital?\n", "Question:|").replace("Answer: paris", "Answer:_paris").replace(" ", "| ")
        return prompt, tuple(self.vocabulary.index(word.replace("_", " ")) for word in words.split("|"))


def test_a_tokenizer_that_merges_across_the_border_is_compared_from_the_same_token_for_all_options():
    model = Words(random_table(8, 1))
    asked = encode(model, Question("capital?", ("rome", "paris", "new york", "oslo"), 1))
    assert asked.options == ((7, 1, 2), (7, 4), (7, 1, 5, 6), (7, 1, 3))
    assert asked.start == 1
    logprobs = torch.log_softmax(model.logits, dim=-1)
    assert likelihoods(asked, model.score) == pytest.approx(
        [
            float(logprobs[7, 1] + logprobs[1, 2]),
            float(logprobs[7, 4]),
            float(logprobs[7, 1] + logprobs[1, 5] + logprobs[5, 6]),
            float(logprobs[7, 1] + logprobs[1, 3]),
        ]
    )


def test_options_of_one_token_share_one_forward_pass():
    tokens = {"Rome": (1, 2, 3), "Oslo": (1, 2, 4), "Bonn": (1, 2, 5), "York": (1, 2, 6, 7)}
    model = TableModel(random_table(8, 1))
    model.prepare = lambda text, chat: (text, tokens.get(text[-4:], (1, 2)))
    asked = encode(model, Question("Which?", ("Rome", "Oslo", "Bonn", "York"), 0))
    assert asked.sources == (3, 3, 3, 3)
    assert asked.tokens == 4
    logprobs = torch.log_softmax(model.logits, dim=-1)
    found = likelihoods(asked, model.score)
    assert found == pytest.approx([float(logprobs[2, token]) for token in (3, 4, 5)] + [float(logprobs[2, 6] + logprobs[6, 7])])
    assert len(model.asked) == 1


def scored(*probabilities):
    """A question with one token an option (ids 1 to 4) and these probabilities."""
    rows = torch.tensor([[1e-9, *probabilities]]).log()
    return Asked(1, 1, ((0, 1), (0, 2), (0, 3), (0, 4)), (0, 0, 0, 0)), lambda ids: rows


def test_only_the_likeliest_option_counts_and_a_tie_is_wrong():
    assert is_right(*scored(0.2, 0.5, 0.2, 0.1))
    assert not is_right(*scored(0.5, 0.2, 0.2, 0.1))
    assert not is_right(*scored(0.4, 0.4, 0.1, 0.1))


def test_an_answer_without_a_finite_likelihood_is_refused():
    with pytest.raises(Problem, match="not finite"):
        is_right(*scored(0.2, math.nan, 0.2, 0.1))


def test_a_context_that_is_too_short_for_a_question_costs_the_questions_only():
    values, missing, _ = score_quality(TableModel(random_table(60, 5)), FULL, context_length=32)
    assert "context holds 32" in missing["question_accuracy"]
    assert "ppl" in values
