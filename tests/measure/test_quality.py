"""Quality figures against an independent computation and hand values, with a model that is a table."""

import math
import weakref
from itertools import pairwise

import numpy as np
import pytest
from full_disk import files_end_at
from table_model import TableModel, random_table

from playground.core.engine import Engine
from playground.core.problem import Problem
from playground.core.spec import Protocol
from playground.measure.evaluation import evaluation_text
from playground.measure.quality import COMPARISONS, FLOORS, score_quality
from playground.models.offline import installed_default

torch = pytest.importorskip("torch")

FULL = Protocol(evaluation="full")
BASE, OTHER = random_table(60, 1), random_table(60, 2)


def own(text, evaluation="short"):
    return Protocol(text=text, evaluation=evaluation)


def log_softmax(table):
    """float64 log-probabilities of a table of logits, by numpy alone."""
    logits = table.numpy().astype(float)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def windows_of(engine, text, size):
    ids = engine.prepare(text, False)[1]
    return [ids[start : start + size] for start in range(0, len(ids), size)]


def expected_ppl(engine, table, text, size=512):
    """One cross entropy over all tokens but each window's first."""
    pairs = [pair for ids in windows_of(engine, text, size) for pair in pairwise(ids)]
    return math.exp(-np.mean([log_softmax(table)[before, after] for before, after in pairs]))


def expected_kl(engine, p_table, q_table, texts, size=512):
    """KL of every position of all texts, and whether the top tokens agree."""
    p, q = log_softmax(p_table), log_softmax(q_table)
    seen = [token for text in texts for ids in windows_of(engine, text, size) for token in ids[:-1]]
    return (np.exp(p) * (p - q)).sum(axis=1)[seen], (p.argmax(axis=1) == q.argmax(axis=1))[seen]


def test_the_english_text_is_long_enough_and_plain():
    text = evaluation_text("english")
    assert len(text.split()) >= 1700
    assert text.isascii()


def test_the_chinese_text_is_long_enough_for_a_thousand_tokens():
    text = evaluation_text("chinese")
    assert sum("\u4e00" <= character <= "\u9fff" for character in text) >= 1600


def test_the_english_text_has_two_thousand_tokens_of_the_default_model():
    default = installed_default()
    if default is None:
        pytest.skip("the default model is not on this machine")
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_file(str(default.folder / "tokenizer.json"))
    assert len(tokenizer.encode(evaluation_text("english")).ids) >= 2000
    assert len(tokenizer.encode(evaluation_text("chinese")).ids) >= 1000


def test_the_short_evaluation_is_one_window_of_english_and_says_what_it_leaves_out():
    engine = TableModel(BASE)
    values, missing, about = score_quality(engine, Protocol())
    assert engine.asked[0] == (engine.prepare(evaluation_text("english"), False)[1][:512], False)
    assert values["ppl"] == pytest.approx(expected_ppl(engine, BASE, evaluation_text("english")[:512]), rel=1e-6)
    assert "English only" in missing["ppl_chinese"]
    assert "no questions" in missing["question_accuracy"]
    assert about == ("the first 512 tokens of the product's English text; windows of 512 tokens, stride 512 (no overlap), 511 positions")


def test_the_full_evaluation_agrees_with_an_independent_computation(tmp_path):
    texts = [evaluation_text("english"), evaluation_text("chinese")]
    _, missing, _ = score_quality(TableModel(BASE), FULL, save_to=tmp_path / "deep")
    assert all("this is the baseline" in missing[name] for name in COMPARISONS)
    engine = TableModel(OTHER)
    values, missing, about = score_quality(engine, FULL, reference=tmp_path / "deep")
    kl, agree = expected_kl(engine, BASE, OTHER, texts)
    assert values["kld_mean"] == pytest.approx(kl.mean(), rel=1e-5)
    assert values["kld_p99"] == pytest.approx(np.percentile(kl, 99), rel=1e-5)
    assert values["top1_agreement"] == pytest.approx(agree.mean())
    assert values["ppl"] == pytest.approx(expected_ppl(engine, OTHER, texts[0]), rel=1e-6)
    assert values["ppl_chinese"] == pytest.approx(expected_ppl(engine, OTHER, texts[1]), rel=1e-6)
    assert set(missing) == set(FLOORS)
    assert f"{len(kl):,} positions" in about
    assert f"English text ({len(texts[0]):,} tokens)" in about
    assert "120 multiple-choice questions" in about


def test_perplexity_weighs_tokens_and_not_windows():
    text = "abcdefg" * 90  # a window of 512 tokens and one of 118
    engine = TableModel(BASE)
    values, _, _ = score_quality(engine, own(text))
    assert [len(ids) for ids, _ in engine.asked[:2]] == [512, 118]
    assert values["ppl"] == pytest.approx(expected_ppl(engine, BASE, text), rel=1e-6)
    by_window = [expected_ppl(engine, BASE, text[:512]), expected_ppl(engine, BASE, text[512:])]
    assert values["ppl"] != pytest.approx(math.sqrt(by_window[0] * by_window[1]), rel=1e-6)


def test_two_positions_by_hand(tmp_path):
    # Characters 0 and 1 of a vocabulary of three, of which the third never comes.
    never = -30.0
    half = torch.tensor([[math.log(0.5), math.log(0.5), never], [math.log(0.25), math.log(0.75), never], [0.0, 0.0, 0.0]])
    turned = half.clone()
    turned[1] = torch.tensor([math.log(0.75), math.log(0.25), never])
    text = own("\x00\x01\x00", "short")
    score_quality(Raw(half), text, save_to=tmp_path)
    values, _, _ = score_quality(Raw(turned), text, reference=tmp_path)
    # KL of the second position: 0.25 ln(1/3) + 0.75 ln 3 = 0.5 ln 3; the text's probabilities are 0.5 and 0.75
    assert values["kld_mean"] == pytest.approx(0.25 * math.log(3), rel=1e-6)
    assert values["ppl"] == pytest.approx(1 / math.sqrt(0.5 * 0.75), rel=1e-6)
    assert values["top1_agreement"] == 0.5


class Raw(TableModel):
    """Reads the characters' codes as they are."""

    def prepare(self, prompt, chat):
        return prompt, tuple(ord(character) for character in prompt)


def test_the_baseline_against_itself_is_zero(tmp_path):
    score_quality(TableModel(BASE), Protocol(), save_to=tmp_path)
    values, _, _ = score_quality(TableModel(BASE), Protocol(), reference=tmp_path)
    assert (values["kld_mean"], values["kld_p99"], values["top1_agreement"]) == (0, 0, 1)


def test_no_divergence_is_below_zero_when_only_the_last_bits_differ(tmp_path):
    score_quality(TableModel(BASE), Protocol(), save_to=tmp_path)
    values, _, _ = score_quality(TableModel(BASE + 1.0), Protocol(), reference=tmp_path)
    assert 0 <= values["kld_mean"] < 1e-9


def test_the_noise_floor_is_the_texts_beginning_token_by_token_against_all_at_once():
    noise = random_table(60, 3) * 0.01
    engine = TableModel(BASE, noise=noise)
    values, _, _ = score_quality(engine, FULL)
    text = evaluation_text("english")[:128]
    kl, agree = expected_kl(engine, BASE, BASE + noise, [text])
    assert values["kld_mean_floor"] == pytest.approx(kl.mean(), rel=1e-3)
    assert values["kld_p99_floor"] == pytest.approx(np.percentile(kl, 99), rel=1e-3)
    assert values["top1_agreement_floor"] == pytest.approx(agree.mean())
    together, single = (expected_ppl(engine, table, text) for table in (BASE, BASE + noise))
    assert values["ppl_floor"] == pytest.approx(abs(together - single), rel=1e-3)
    assert [stepwise for _, stepwise in engine.asked].count(True) == 1


def test_a_variant_measures_no_noise_floor(tmp_path):
    score_quality(TableModel(BASE), Protocol(), save_to=tmp_path)
    engine = TableModel(OTHER)
    values, missing, _ = score_quality(engine, Protocol(), reference=tmp_path)
    assert all("on the baseline" in missing[name] for name in FLOORS)
    assert not set(FLOORS) & set(values)
    assert not any(stepwise for _, stepwise in engine.asked)


def test_windows_follow_the_context_and_repeat_the_start_token():
    engine = TableModel(BASE, head=(59,))
    score_quality(engine, own("x" * 20), context_length=8)
    x = ord("x") % 59
    assert [ids for ids, _ in engine.asked[:3]] == [(59, *[x] * 7), (59, *[x] * 7), (59, *[x] * 6)]
    _, _, about = score_quality(engine, own("x" * 20), context_length=8)
    assert "(20 tokens; at most 8,192 are scored); windows of 8 tokens, each begun by the tokenizer's start token, stride 7" in about
    assert "20 positions" in about


def test_a_text_of_the_users_takes_the_place_of_both_and_is_cut_at_8192_tokens():
    engine = TableModel(BASE)
    values, missing, about = score_quality(engine, own("Some text of mine. " * 500, "full"))
    assert sum(len(ids) for ids, rows in engine.asked[:16]) == 8192
    assert values["questions"] == 120
    assert "your own text" in missing["ppl_chinese"]
    assert "8,192 tokens; at most 8,192 are scored" in about
    assert values["ppl"] == pytest.approx(expected_ppl(engine, BASE, ("Some text of mine. " * 500)[:8192]), rel=1e-6)


def test_a_last_window_of_a_single_token_is_left_out():
    engine = TableModel(BASE)
    values, _, _ = score_quality(engine, own("y" * 513))
    assert [len(ids) for ids, _ in engine.asked] == [512, 128, 128]  # the window, and twice for the floor
    assert values["ppl"] > 0


def test_a_text_of_one_token_has_no_quality():
    values, missing, _ = score_quality(TableModel(BASE), own("y"))
    assert values == {}
    assert "fewer than two tokens" in missing["ppl"]
    assert "fewer than two tokens" in missing["ppl_floor"]


def test_never_more_than_one_window_waits_for_the_next(tmp_path):
    seen = []

    class Counting(TableModel):
        def score(self, token_ids, stepwise=False):
            text = len(token_ids) > 300  # neither a question nor the floor
            assert not text or not [window for window in seen if window() is not None]
            logprobs = super().score(token_ids, stepwise)
            seen.extend([weakref.ref(logprobs)] if text else [])
            return logprobs

    score_quality(Counting(BASE), FULL, save_to=tmp_path)
    score_quality(Counting(OTHER), FULL, reference=tmp_path)
    assert len(seen) > 40  # windows of both runs


def test_stop_takes_effect_between_windows():
    class Stopped(Exception):
        pass

    engine = TableModel(BASE)

    def check():
        if len(engine.asked) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        score_quality(engine, FULL, check=check)
    assert len(engine.asked) == 2


def test_progress_counts_every_token_that_is_scored(tmp_path):
    for folders in ({"save_to": tmp_path}, {"reference": tmp_path}):
        engine, seen = TableModel(BASE), []
        score_quality(engine, FULL, progress=lambda done, total, seen=seen: seen.append((done, total)), **folders)
        assert len(seen) == len(engine.asked)
        assert seen[-1][0] == seen[-1][1] == sum(len(ids) for ids, _ in engine.asked)
        assert [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_other_tokens_another_vocabulary_or_another_evaluation_cannot_be_compared(tmp_path):
    score_quality(TableModel(BASE), own("some words"), save_to=tmp_path)
    values, missing, _ = score_quality(TableModel(BASE), own("other words"), reference=tmp_path)
    assert "other tokens" in missing["kld_mean"]
    assert "ppl" in values
    wider = torch.cat([BASE, torch.zeros(60, 5)], dim=1)
    _, missing, _ = score_quality(TableModel(wider), own("some words"), reference=tmp_path)
    assert "60 entries" in missing["top1_agreement"]
    assert "65" in missing["top1_agreement"]
    _, missing, _ = score_quality(TableModel(BASE), Protocol(), reference=tmp_path)
    assert "left no log-probabilities" in missing["kld_p99"]


def test_a_comparison_that_breaks_off_in_a_later_window_has_no_figures(tmp_path):
    score_quality(TableModel(BASE), Protocol(), save_to=tmp_path)
    values, missing, _ = score_quality(TableModel(OTHER), FULL, reference=tmp_path)
    assert not set(COMPARISONS) & set(values)
    assert all("left no log-probabilities" in missing[name] for name in COMPARISONS)
    assert {"ppl", "ppl_chinese", "questions_right"} <= set(values)


def test_numbers_that_overflowed_are_missing_with_their_count():
    broken = BASE.clone()
    broken[ord("a") % 59, 7] = float("nan")
    broken[ord("b") % 59, 0] = float("-inf")
    values, missing, _ = score_quality(TableModel(broken), own("zaxbz"))
    assert values == {}
    for name in ("ppl", "ppl_chinese", "kld_mean", "ppl_floor"):
        assert "2 of 4 positions" in missing[name]


def test_an_engine_without_log_probabilities_gives_its_reason_for_everything():
    class Plain(TableModel):
        def score(self, token_ids, stepwise=False):
            return Engine.score(self, token_ids, stepwise)

    values, missing, _ = score_quality(Plain(BASE), FULL)
    assert values == {}
    for name in ("ppl", "ppl_chinese", *COMPARISONS, *FLOORS, "question_accuracy"):
        assert "gives no log-probabilities" in missing[name]


class Crowded(TableModel):
    """Has no memory for a cache."""

    def score(self, token_ids, stepwise=False):
        if stepwise:
            raise Problem("oom", "no memory left")
        return super().score(token_ids)


def test_any_other_failure_of_the_engine_is_raised():
    with pytest.raises(Problem, match="no memory left"):
        score_quality(Crowded(BASE), Protocol())


def test_a_failure_that_the_caller_explains_costs_its_own_figures_only():
    values, missing, _ = score_quality(Crowded(BASE), FULL, explain=lambda error: f"sorry: {error}")
    assert {"ppl", "ppl_chinese", "questions_right"} <= set(values)
    assert missing["kld_mean_floor"] == "sorry: no memory left"


def test_a_full_disk_costs_the_comparison_only(tmp_path):
    # Linux's device that is always full stands where the second window is written.
    (tmp_path / "own-1.part").symlink_to("/dev/full")
    text = own("word " * 200)
    values, missing, _ = score_quality(TableModel(BASE), text, save_to=tmp_path)
    assert {"ppl", "kld_mean_floor"} <= set(values)
    assert missing["kld_mean"] == "the baseline's log-probabilities could not be stored: the disk is full"
    assert list(tmp_path.iterdir()) == []
    _, missing, _ = score_quality(TableModel(BASE), text, reference=tmp_path)
    assert "left no log-probabilities" in missing["kld_mean"]


def test_a_write_that_breaks_off_leaves_no_file(tmp_path):
    with files_end_at(4096):
        _, missing, _ = score_quality(TableModel(BASE), own("word " * 20), save_to=tmp_path)
    assert "could not be stored: the disk takes no file of that size" in missing["kld_mean"]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_the_baseline_is_a_reason_and_not_a_crash(tmp_path):
    score_quality(TableModel(BASE), Protocol(), save_to=tmp_path)
    file = tmp_path / "english-0"
    file.write_bytes(file.read_bytes()[:5000])
    values, missing, _ = score_quality(TableModel(BASE), Protocol(), reference=tmp_path)
    assert "cannot be read" in missing["kld_mean"]
    assert "ppl" in values


def test_a_text_that_is_impossible_to_a_model_has_no_perplexity_and_everything_else():
    values, missing, _ = score_quality(TableModel(BASE * 1e4), own("What is this?"))
    assert "too large for a number" in missing["ppl"]
    assert "ppl" not in values
    assert values["top1_agreement_floor"] == 1
