"""Where two texts depart, and the probability of both tokens there, against a table of known probabilities."""

import math

import pytest
from table_model import TableModel, random_table

from playground.core.engine import Engine
from playground.core.problem import Problem
from playground.measure.departure import departures, first_departure, save_outputs

torch = pytest.importorskip("torch")

BASE, OTHER = random_table(20, 1), random_table(20, 2)
PROMPTS = [(1, 2, 3), (4, 5)]
THEIRS = [(6, 7, 8, 9), (10, 11, 12)]


def probability(table, last, token):
    return float(torch.softmax(table[last].double(), dim=0)[token])


def name(token):
    return f"<{token}>"


def test_the_first_departure_is_the_first_different_token():
    assert first_departure((1, 2, 3), (1, 5, 3)) == 1
    assert first_departure((4, 2), (1, 2)) == 0
    assert first_departure((1, 2, 3), (1, 2, 3)) is None
    assert first_departure((1, 2), (1, 2, 3)) is None


def test_a_departure_tells_both_tokens_and_their_probabilities_in_both_models(tmp_path):
    assert save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS) == ""
    engine = TableModel(OTHER)
    found, reason = departures(engine, tmp_path, PROMPTS, [(6, 7, 13, 9), (10, 11, 12)], name)
    assert reason == ""
    (event,) = found
    assert (event.row, event.position, event.ours, event.theirs) == (0, 2, 13, 8)
    assert (event.ours_text, event.theirs_text) == ("<13>", "<8>")
    assert event.p_ours == pytest.approx(probability(OTHER, 7, 13), rel=1e-5)
    assert event.p_theirs == pytest.approx(probability(OTHER, 7, 8), rel=1e-5)
    assert event.baseline_p_ours == pytest.approx(probability(BASE, 7, 13), rel=1e-5)
    assert event.baseline_p_theirs == pytest.approx(probability(BASE, 7, 8), rel=1e-5)
    assert [ids for ids, _ in engine.asked] == [(1, 2, 3, 6, 7, 13)]  # nothing beyond the departure, nothing for the equal text


def test_the_first_token_may_be_the_one_that_departs(tmp_path):
    save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS)
    found, _ = departures(TableModel(OTHER), tmp_path, PROMPTS, [(0, 1), (10, 3)], name)
    assert [(event.row, event.position) for event in found] == [(0, 0), (1, 1)]
    assert found[0].baseline_p_theirs == pytest.approx(probability(BASE, 3, 6), rel=1e-5)


def test_the_same_prompt_in_many_rows_is_compared_once_and_only_four_prompts_are(tmp_path):
    engine = TableModel(BASE)
    prompts = [(number % 6 + 1,) for number in range(12)]
    save_outputs(engine, tmp_path, prompts, [(7, 8)] * 12)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["output-0", "output-1", "output-2", "output-3"]
    found, reason = departures(engine, tmp_path, prompts, [(9, 8)] * 12, name)
    assert [event.row for event in found] == [0, 1, 2, 3]
    assert reason == ""


def test_outputs_are_compared_in_their_first_256_tokens(tmp_path):
    engine = TableModel(BASE)
    same, late = (7,) * 300, (7,) * 270 + (8,) * 30
    save_outputs(engine, tmp_path, [(1,)], [same])
    assert len(engine.asked[0][0]) == 257
    found, reason = departures(engine, tmp_path, [(1,)], [late], name)
    assert found == []
    assert "first 256 tokens" in reason
    found, reason = departures(engine, tmp_path, [(1,)], [(7,) * 255 + (8,) * 45], name)
    assert [event.position for event in found] == [255]


def test_a_prompt_that_is_too_long_is_left_out_with_its_reason(tmp_path):
    prompts = [(1,) * 1023, (2,)]
    reason = save_outputs(TableModel(BASE), tmp_path, prompts, [(7, 8), (7, 8)])
    assert "1,024 tokens" in reason
    found, reason = departures(TableModel(BASE), tmp_path, prompts, [(8, 8), (8, 8)], name)
    assert [event.row for event in found] == [1]
    assert "kept no output" in reason


def test_other_prompts_or_another_vocabulary_give_a_reason(tmp_path):
    save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS)
    found, reason = departures(TableModel(BASE), tmp_path, [(1, 2), (4, 5)], [(9, 9), (10, 11, 12)], name)
    assert found == []
    assert "saw other tokens" in reason
    wider = TableModel(torch.cat([BASE, torch.zeros(20, 5)], dim=1))
    found, reason = departures(wider, tmp_path, PROMPTS, [(9, 9), (9, 9)], name)
    assert found == []
    assert "20 entries and this model's 25" in reason


def test_a_baseline_that_kept_nothing_or_a_damaged_file_gives_a_reason(tmp_path):
    assert departures(TableModel(BASE), tmp_path / "none", PROMPTS, THEIRS, name) == ([], "the baseline kept no output to compare with")
    save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS)
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:150])
    found, reason = departures(TableModel(BASE), tmp_path, PROMPTS, [(9,), (9,)], name)
    assert found == []
    assert "cannot be read" in reason


def test_a_full_disk_is_a_reason_and_leaves_nothing(tmp_path):
    (tmp_path / "output-0.part").symlink_to("/dev/full")
    reason = save_outputs(TableModel(BASE), tmp_path, PROMPTS[:1], THEIRS[:1])
    assert "the disk is full" in reason
    assert list(tmp_path.iterdir()) == []


def test_an_engine_without_log_probabilities_and_numbers_that_overflowed_are_problems_for_the_caller(tmp_path):
    class Plain(TableModel):
        def score(self, token_ids, stepwise=False):
            return Engine.score(self, token_ids, stepwise)

    with pytest.raises(Problem, match="gives no log-probabilities"):
        save_outputs(Plain(BASE), tmp_path, PROMPTS, THEIRS)
    save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS)
    broken = BASE.clone()
    broken[3] = math.nan
    with pytest.raises(Problem, match="not finite"):
        departures(TableModel(broken), tmp_path, PROMPTS, [(9,), (9,)], name)


def test_stop_takes_effect_before_the_next_text(tmp_path):
    class Stopped(Exception):
        pass

    def stop():
        raise Stopped

    with pytest.raises(Stopped):
        save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS, check=stop)
    save_outputs(TableModel(BASE), tmp_path, PROMPTS, THEIRS)
    with pytest.raises(Stopped):
        departures(TableModel(BASE), tmp_path, PROMPTS, [(9,), (9,)], name, check=stop)
