"""Quality figures against an independent computation and hand values, with a scripted engine."""

import math
import resource

import numpy as np
import pytest

from playground.core.engine import Engine
from playground.core.problem import Problem
from playground.measure.quality import evaluation_text, score_quality

torch = pytest.importorskip("torch")


class Scripted(Engine):
    """Gives fixed token ids and fixed log-probabilities."""

    title = "Scripted"

    def __init__(self, ids, logprobs):
        self.ids, self.logprobs, self.asked = tuple(ids), logprobs, ()

    def prepare(self, prompt, chat):
        assert prompt == evaluation_text()
        assert chat is False
        return prompt, self.ids

    def score(self, token_ids):
        self.asked = tuple(token_ids)
        return self.logprobs[: len(token_ids) - 1]


def random_logprobs(positions, vocabulary, seed):
    logits = torch.randn(positions, vocabulary, generator=torch.Generator().manual_seed(seed)) * 3
    return torch.log_softmax(logits, dim=-1)


@pytest.fixture
def kept(tmp_path):
    """A baseline of 100 positions and 50 entries: its ids, log-probabilities and file."""
    ids = torch.randint(0, 50, (101,), generator=torch.Generator().manual_seed(1)).tolist()
    logprobs = random_logprobs(100, 50, 2)
    path = tmp_path / "deep" / "baseline.npy"
    _, missing, _ = score_quality(Scripted(ids, logprobs), None, path)
    assert set(missing) == {"kld_mean", "kld_p99", "top1_agreement"}
    return ids, logprobs, path


def test_the_text_is_long_enough_and_plain():
    text = evaluation_text()
    assert 600 < len(text.split()) < 900
    assert text.isascii()


def test_figures_agree_with_an_independent_computation(kept):
    ids, theirs, path = kept
    ours = random_logprobs(100, 50, 3)
    values, missing, about = score_quality(Scripted(ids, ours), path, None)
    p, q = theirs.numpy().astype(float), ours.numpy().astype(float)
    kld = (np.exp(p) * (p - q)).sum(axis=1)
    assert missing == {}
    assert values["kld_mean"] == pytest.approx(kld.mean(), rel=1e-9)
    assert values["kld_p99"] == pytest.approx(np.percentile(kld, 99), rel=1e-9)
    assert values["top1_agreement"] == pytest.approx((p.argmax(1) == q.argmax(1)).mean())
    assert values["ppl"] == pytest.approx(math.exp(-np.mean([q[i, ids[i + 1]] for i in range(100)])))
    assert "101 tokens" in about


def test_two_positions_by_hand(tmp_path):
    path = tmp_path / "baseline.npy"
    half = torch.tensor([[0.5, 0.5], [0.25, 0.75]]).log()
    score_quality(Scripted([0, 1, 0], half), None, path)
    values, _, _ = score_quality(Scripted([0, 1, 0], torch.tensor([[0.5, 0.5], [0.75, 0.25]]).log()), path, None)
    # KL of the second position: 0.25 ln(1/3) + 0.75 ln 3 = 0.5 ln 3; the text's probabilities are 0.5 and 0.75
    assert values["kld_mean"] == pytest.approx(0.25 * math.log(3), rel=1e-6)
    assert values["ppl"] == pytest.approx(1 / math.sqrt(0.5 * 0.75), rel=1e-6)
    assert values["top1_agreement"] == 0.5


def test_the_baseline_against_itself_is_zero(kept):
    ids, logprobs, path = kept
    values, _, _ = score_quality(Scripted(ids, logprobs), path, None)
    assert values["kld_mean"] == 0
    assert values["kld_p99"] == 0
    assert values["top1_agreement"] == 1


def test_at_most_512_tokens_and_never_more_than_the_context():
    engine = Scripted(range(600), random_logprobs(599, 600, 1))
    score_quality(engine, None, None)
    assert len(engine.asked) == 512
    score_quality(engine, None, None, 64)
    assert engine.asked == tuple(range(64))


def test_other_tokens_or_another_vocabulary_cannot_be_compared(kept):
    ids, logprobs, path = kept
    values, missing, _ = score_quality(Scripted([*ids[:-1], (ids[-1] + 1) % 50], logprobs), path, None)
    assert "other tokens" in missing["kld_mean"]
    assert "ppl" in values
    _, missing, _ = score_quality(Scripted(ids, random_logprobs(100, 60, 3)), path, None)
    assert "50 entries" in missing["top1_agreement"]
    assert "60" in missing["top1_agreement"]


def test_numbers_that_overflowed_are_missing_with_their_count(kept):
    ids, logprobs, path = kept
    broken = logprobs.clone()
    broken[3, 7] = float("nan")
    broken[90, 0] = float("-inf")
    values, missing, _ = score_quality(Scripted(ids, broken), path, None)
    assert values == {}
    assert "2 of 100 positions" in missing["ppl"]
    assert "2 of 100 positions" in missing["kld_mean"]


def test_an_engine_without_log_probabilities_gives_its_reason():
    class Plain(Scripted):
        def score(self, token_ids):
            return Engine.score(self, token_ids)

    values, missing, _ = score_quality(Plain([1, 2, 3], None), None, None)
    assert values == {}
    assert "gives no log-probabilities" in missing["ppl"]


def test_any_other_failure_of_the_engine_is_raised():
    class Full(Scripted):
        def score(self, token_ids):
            raise Problem("oom", "no memory left")

    with pytest.raises(Problem, match="no memory left"):
        score_quality(Full([1, 2, 3], None), None, None)


def test_a_full_disk_costs_the_comparison_only(tmp_path):
    # Linux's device that is always full stands where the file is written.
    (tmp_path / "baseline.npy.part").symlink_to("/dev/full")
    values, missing, _ = score_quality(Scripted([0, 1, 0], random_logprobs(2, 2, 1)), None, tmp_path / "baseline.npy")
    assert "ppl" in values
    assert missing["kld_mean"] == "the baseline's log-probabilities could not be stored: the disk is full"
    assert list(tmp_path.iterdir()) == []
    _, missing, _ = score_quality(Scripted([0, 1, 0], random_logprobs(2, 2, 1)), tmp_path / "baseline.npy", None)
    assert "left no log-probabilities" in missing["kld_mean"]


def test_a_write_that_breaks_off_leaves_no_file(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        _, missing, _ = score_quality(Scripted(range(101), random_logprobs(100, 200, 1)), None, tmp_path / "baseline.npy")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "could not be stored: File too large" in missing["kld_mean"]
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_of_the_baseline_is_a_reason_and_not_a_crash(kept):
    ids, logprobs, path = kept
    path.write_bytes(path.read_bytes()[:2000])
    values, missing, _ = score_quality(Scripted(ids, logprobs), path, None)
    assert "cannot be read" in missing["kld_mean"]
    assert "ppl" in values
