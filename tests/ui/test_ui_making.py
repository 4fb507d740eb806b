"""What the tab "Make" shows of a training, from its events."""

from __future__ import annotations

import json

from playground.core.events import Failed, Phase
from playground.core.making import Made, TrainStep
from playground.run.recipes import recipes
from playground.ui.making import MakingView, fold, loss_json, made_html, progress_html
from playground.ui.series import Series


def shown(*events, status="running"):
    """The view after these events."""
    view = MakingView(status=status)
    for event in events:
        view = fold(view, event)
    return view


def test_a_training_shows_its_step_its_loss_and_the_time_that_is_left():
    steps = [TrainStep(i, i, 40, 4.0 - i / 10, 2.5 * (40 - i)) for i in range(1, 11)]
    view = shown(Phase(0, "train", "40 steps"), *steps)
    html = progress_html(view)
    assert "Step 10 of 40 · loss 3 nats a token · 1 min 15 s left" in html
    assert 'aria-valuenow="25"' in html
    figure = json.loads(loss_json(view))["groups"][0]["panels"][0]["figure"]
    assert figure["data"][0]["x"] == list(range(1, 11))
    assert figure["data"][0]["y"][0] == 3.9
    assert figure["layout"]["xaxis"]["range"] == [0, 40]


def test_nothing_is_drawn_before_the_first_step_and_nothing_said_before_a_job():
    assert loss_json(MakingView()) == progress_html(MakingView()) == ""
    assert Series().points == ()


def test_a_failure_says_that_nothing_was_kept_and_shows_no_bar():
    html = progress_html(shown(Failed(1, "user", "The disk <filled> up.", "log"), status="failed"))
    assert "The disk &lt;filled&gt; up.</strong> Nothing was kept." in html
    assert "progressbar" not in html


def test_what_was_made_is_told_with_its_change_and_nothing_in_its_name_is_markup():
    facts = {
        "name": "a",
        "kind": "adapter",
        "base": {"model": "<b>"},
        "seconds": 62.0,
        "perplexity": {"held-out": {"before": 40.0, "after": 10.0}},
    }
    html = made_html(shown(Made(1, "made:a", facts)).made.facts, recipes()["adapt"])
    assert "−75 %" in html
    assert "1 min 2 s in all" in html
    assert "&lt;b&gt;" in html
    assert "<b>." not in html
