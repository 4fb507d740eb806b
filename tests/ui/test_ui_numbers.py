"""Verdicts, differences, predictions, expectations, floors and provenance on the page, from hand-made result documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from playground.core import events as ev
from playground.core.machine import Machine
from playground.core.plan import complete
from playground.core.problem import Problem
from playground.core.spec import PROTOCOLS, Protocol, RunSpec
from playground.engines import engines
from playground.measure.ceilings import device_key
from playground.models.model import ModelFacts
from playground.results.html.difference import departure_html, difference_html
from playground.results.html.explained import error_words, expectations_html, predictions_html
from playground.results.html.provenance import configuration_html, provenance_html
from playground.results.metrics_table import metrics_html
from playground.results.numbers import floor_of, interval, shown, spread_about, unstable
from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.techniques import techniques
from playground.ui.availability import World
from playground.ui.columns import column_html
from playground.ui.fields import fill, refresh
from playground.ui.form import Draft, draft_of, named_protocol, protocol_name, specs_of
from playground.ui.handlers import App, estimate, remeasure
from playground.ui.results import Shown, columns_html, status_html, table_html
from playground.ui.speed import ceilings_of, speed_html
from playground.ui.strings import SPEED_UNKNOWN
from playground.ui.view import View, fold, start

EVIL = "<script>alert(1)</script>"
MACHINE = Machine("host", "cpu", 2, 16 * 10**9, 8 * 10**9, no_cuda="no driver", packages={"torch": "2.13"})
WORLD = World(techniques(), engines(), MACHINE)
LLAMA = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 1000, "max_position_embeddings": 128,
}  # fmt: skip


def metric(value: float | None, unit: str = "s", **more: Any) -> dict[str, Any]:
    kind = "measured" if value is not None else "not_available"
    return {"value": value, "unit": unit, "n": 3, "ci95": None, "cv": None, "grade": "", "kind": kind, "reason": None, **more}


def document(metrics: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"status": "done", "metrics": metrics or {}, **more}


def ended(*texts: tuple[str, ...]) -> View:
    """A view of variants that are done, each with this output of its first prompt; token ids are those of the words."""
    view = start([f"variant {number}" for number in range(len(texts))])
    words = {word: number for number, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
    for index, text in enumerate(texts):
        view = fold(view, (index, ev.Output(1, 0, "prompt", tuple(words[word] for word in text), text)))
        view = fold(view, (index, ev.Done(2)))
    return view


def column(result: dict[str, Any]) -> str:
    return column_html(ended(("a",)), 0, 0, result, None)


def test_a_protocol_has_the_name_whose_numbers_it_has_and_custom_otherwise() -> None:
    for name in PROTOCOLS:
        draft = replace(Draft(), **named_protocol(name))
        assert protocol_name(draft) == name
        assert specs_of(draft, WORLD)[0].protocol == PROTOCOLS[name]
    assert protocol_name(Draft()) == "quick"
    assert protocol_name(Draft(repeats=4)) == "custom"
    assert protocol_name(Draft(quality=False, energy=False, price_per_hour=2.5)) == "quick"
    assert named_protocol("custom") == {}
    careful = refresh(replace(Draft(), **named_protocol("careful")), WORLD)
    assert careful["protocol"]["value"] == "careful"


def test_every_setting_of_the_protocol_survives_the_form() -> None:
    wanted = Protocol(4, 6, 2, False, False, "full", "A text of my own.", False, 1.25)
    draft = draft_of([complete(RunSpec(protocol=wanted), techniques())], WORLD)
    assert specs_of(draft, WORLD)[0].protocol == wanted
    assert fill(draft, WORLD)["price_per_hour"]["value"] == 1.25
    assert specs_of(Draft(price_per_hour=None), WORLD)[0].protocol.price_per_hour == 0.0
    assert draft_of([RunSpec()], WORLD).price_per_hour is None


def test_a_protocol_that_cannot_be_is_refused_in_words() -> None:
    for changes, sentence in (
        ({"rounds": 5, "repeats": 3}, "rounds must be a whole number from 1 to 3"),
        ({"price_per_hour": -1}, "price_per_hour must be a number of at least 0"),
        ({"rounds": None}, "Rounds must be a whole number, got nothing"),
    ):
        with pytest.raises(Problem, match=sentence):
            specs_of(Draft(**changes), WORLD)


def test_dollars_rates_and_spreads_are_written_for_people() -> None:
    assert [shown(0.4213, "$"), shown(4.27e12, "B/s"), shown(7.8e14, "FLOP/s")] == ["$0.421", "4.27 TB/s", "780 TFLOP/s"]
    assert interval(metric(2.0, "$", ci95=[1.9, 2.1])) == "± $0.10"
    steady = metric(1.0, cv=0.012, grade="excellent", n=5)
    assert spread_about(steady) == "95 % interval over 5 passes, which vary by 1.2 % (excellent)"
    assert spread_about(metric(1.0, n=100)) == "95 % interval, n = 100"
    assert unstable(steady) == ""
    assert unstable(metric(1.0, cv=0.31, grade="unstable")) == "31 %"
    assert floor_of(document({"kld_mean_floor": metric(2e-5, "nats")}), "kld_mean") == 2e-5
    assert floor_of(document(), "kld_mean") is None


@pytest.mark.parametrize(
    ("name", "badge"),
    [
        ("launch", "launch-bound"),
        ("host", "host-bound"),
        ("memory", "memory-bound"),
        ("compute", "compute-bound"),
        ("unknown", "bottleneck not known"),
    ],
)
def test_a_variant_that_is_done_says_what_bounds_it_and_why(name: str, badge: str) -> None:
    html = column(document(verdict={"bottleneck": name, "sentence": "1,462 kernels a token", "prefill": "compute"}))
    assert f'<b class="bound {name}">{badge}</b> 1,462 kernels a token' in html


def test_a_variant_without_a_verdict_or_that_failed_has_an_empty_place_for_it() -> None:
    for result in (document(), document(verdict={}), {**document(verdict={"bottleneck": "launch", "sentence": "x"}), "status": "failed"}):
        assert '<div class="verdict"></div>' in column(result)


def test_repeats_that_vary_too_much_are_told_with_what_to_do() -> None:
    verdict = {"bottleneck": "unknown", "sentence": ""}
    shaky = metric(0.02, cv=0.314, grade="unstable", ci95=[0.01, 0.03])
    html = column(document({"itl_s": shaky}, verdict=verdict))
    assert "unstable: the repeats vary by 31 %; use more repeats: the careful protocol" in html
    assert html.count("unstable: the repeats") == 1
    calm = metric(0.02, cv=0.014, grade="excellent", ci95=[0.019, 0.021])
    assert "unstable" not in column(document({"itl_s": calm, "output_tokens_per_s": calm}, verdict=verdict))


DEPARTURE = {
    "row": 0, "position": 1, "ours_text": " dog", "theirs_text": " cat", "p_ours": 0.41, "p_theirs": 0.38, "baseline_p_ours": None,
    "baseline_p_theirs": 0.5,
}  # fmt: skip


def test_the_first_departure_shows_both_choices_and_what_both_models_thought_of_them() -> None:
    html = departure_html(DEPARTURE)
    assert "The texts part at token 2" in html
    assert "baseline chose <code> cat</code></th><td>0.500</td><td>0.380</td>" in html
    assert 'this variant chose <code> dog</code></th><td><span class="none">not known</span></td><td>0.410</td>' in html
    assert "<script" not in departure_html({**DEPARTURE, "ours_text": EVIL, "theirs_text": EVIL})
    assert "<code>⏎</code>" in departure_html({**DEPARTURE, "ours_text": "\n"})


def test_the_departure_table_stands_under_the_row_it_belongs_to_only() -> None:
    view = ended(("The", " cat"), ("The", " dog"))
    result = document(departures=[DEPARTURE])
    assert "The texts part at token 2" in column_html(view, 1, 0, result, document())
    assert "The texts part" not in column_html(view, 1, 1, result, document())
    assert "The texts part" not in column_html(view, 0, 0, result, None)
    assert "The texts part" not in column_html(view, 1, 0, document(), document())


def test_the_whole_difference_strikes_the_baselines_tokens_out_and_marks_the_variants() -> None:
    html = difference_html(("The", " old", " cat", " sat"), ("The", " cat", " <sat>", "!"))
    assert '<div class="said">The<del> old</del> cat<del> sat</del><ins> &lt;sat&gt;!</ins></div>' in html
    assert difference_html(("a", "b"), ("a", "b")) == ""
    assert "Of the first 1,000 tokens" in difference_html(("a",) * 1200, ("b",) * 3)
    assert "Of the first" not in html


def test_the_difference_waits_until_everything_has_ended() -> None:
    view = ended(("The", " cat"), ("The", " dog"))
    assert "Every difference" in column_html(view, 1, 0, None, None)
    going = View((view.variants[0], view.variants[1], replace(view.variants[0], status="running")))
    assert "Every difference" not in column_html(going, 1, 0, None, None)


def test_in_alternating_rounds_the_variant_that_pauses_says_so() -> None:
    view = start(["A", "B"])
    for item in ((0, ev.Phase(1, "round", "round 1 of 2")), (0, ev.Phase(2, "timed", "timed pass 1 of 2")), (1, ev.Phase(3, "load"))):
        view = fold(view, item)
    now = Shown(view, ("A", "B"), status="running")
    html = columns_html(now)
    assert "Waits for its next round." in html
    assert "Loading the model" in html
    assert "Running B · Loading the model" in status_html(now)
    view = fold(view, (0, ev.Phase(4, "round", "round 2 of 2")))
    assert "Starting · round 2 of 2" in columns_html(Shown(view, ("A", "B"), status="running"))
    assert "Running A" in status_html(Shown(view, ("A", "B"), status="running"))


def test_the_baselines_quality_cells_show_the_noise_floor_and_floors_have_no_rows() -> None:
    base = document({
        "kld_mean": metric(None, "nats", reason="this is the baseline"), "kld_mean_floor": metric(2e-5, "nats"),
        "ppl": metric(12.5, "ppl"), "ppl_floor": metric(0.01, "ppl"), "top1_agreement_floor": metric(0.998, "share"),
    })  # fmt: skip
    other = document({"kld_mean": metric(0.04, "nats"), "kld_mean_floor": metric(None, "nats", reason="measured for the baseline only")})
    html = metrics_html([base, other], ["A", "B"]).split("<table")[1]
    assert "noise floor 2.0e-05 nats" in html
    assert "this is the baseline" not in html
    assert "noise floor ± 0.0100 ppl" in html
    assert "noise floor 99.8 %" in html
    assert "measured for the baseline only" not in html
    assert html.count(">Perplexity<") == 1


def test_cells_tell_how_steady_the_passes_were() -> None:
    good = metric(0.02, cv=0.07, grade="good", ci95=[0.019, 0.021], n=5)
    shaky = metric(0.02, cv=0.31, grade="unstable", ci95=[0.01, 0.03], n=5)
    html = metrics_html([document({"itl_s": good}), document({"itl_s": shaky})], ["A", "B"]).split("<table")[1]
    assert "95 % interval over 5 passes, which vary by 7 % (good)" in html
    assert "<small>unstable: varies by 31 %</small>" in html


PREDICTED = {
    "step_s": {"predicted": 0.0088, "measured": 0.010, "unit": "s", "error": -0.12},
    "weights_bytes": {"predicted": 2.7e8, "measured": 2.7e8, "unit": "B", "error": 0.0},
    "ttft_s": {"predicted": 0.05, "measured": None, "unit": "s", "error": None},
}


def test_predictions_stand_beside_what_was_measured_with_their_error() -> None:
    html = predictions_html([document(prediction=PREDICTED, prediction_reason=""), document(prediction={})], ["A", "B"])
    assert "predicted <b>8.80 ms</b>, measured <b>10 ms</b><small>the prediction is 12 % too low</small>" in html
    assert "the prediction is right within half a percent" in html
    assert 'predicted <b>50 ms</b><small class="none">not measured</small>' in html
    assert html.count("not predicted") == 3
    assert html.index("Decode step") < html.index("Time to first token") < html.index("Weights")
    assert [error_words(0.5), error_words(-0.031)] == ["the prediction is 50 % too high", "the prediction is 3.1 % too low"]


def test_without_predictions_the_reason_is_given_and_old_results_say_nothing() -> None:
    reason = document(prediction={}, prediction_reason=f"the model is not known {EVIL}")
    html = predictions_html([reason, reason], ["A", "B"])
    assert html.count("Not predicted: the model is not known") == 1
    assert "<script" not in html
    assert predictions_html([document()], ["A"]) == ""
    half = predictions_html([document(prediction=PREDICTED, prediction_reason="times are not predicted")], ["A"])
    assert "Not all was predicted: times are not predicted" in half


def test_expectations_are_told_in_words_beside_what_happened() -> None:
    found = [
        {"technique": "quantization", "metric": "itl_s", "expected": "down", "outcome": "opposite", "text": f"int8 was slower {EVIL}"},
        {"technique": "quantization", "metric": "weights_bytes", "expected": "down", "outcome": "as expected", "text": "fewer bytes"},
    ]
    html = expectations_html([document(expectations=[]), document(expectations=found)], ["A", "B: int8"])
    assert '<b class="outcome">opposite</b> int8 was slower &lt;script&gt;' in html
    assert '<b class="outcome">as expected</b> fewer bytes' in html
    assert "B: int8" in html
    assert '<section class="v0">' not in html
    assert expectations_html([document(), document(expectations=[])], ["A", "B"]) == ""


def test_provenance_names_machine_program_and_every_model_source() -> None:
    facts = {
        "host": "lab", "cpu": "Fast CPU", "cores": 2, "memory_bytes": 16e9, "gpu": "H200", "driver": "570", "platform": "Linux-6",
        "playground": "0.2.0", "commit": "0123456789abcdef-dirty", "versions": {"python": "3.11", "torch": "2.13", "other": "9"},
        "started_at": "2026-01-01T00:00:00", "model_source": "hub",
    }  # fmt: skip
    html = provenance_html([document(provenance=facts), document(provenance={**facts, "model_source": "a folder"})], ["A", "B"])
    for words in ("lab", "Fast CPU", "2 cores", "16 GB of memory", "H200", "driver 570", "Linux-6", "playground 0.2.0",
                  "commit 0123456789 with changes", "python 3.11", "torch 2.13", "model: hub; a folder", "2026-01-01"):  # fmt: skip
        assert words in html
    assert "other" not in html
    assert provenance_html([document(), document(provenance={})], ["A", "B"]) == ""
    assert "lab" in provenance_html([document(provenance={"host": "lab"})], ["A"])


def test_the_effective_configuration_lists_every_setting_and_marks_what_differs() -> None:
    specs = [complete(RunSpec(knobs={"precision": precision}), techniques()).to_dict() for precision in ("fp32", "bf16")]
    html = configuration_html([document(spec=spec) for spec in specs], ["A", "B"])
    assert '<tr class="differs"><th scope="row">precision</th><td>fp32</td><td>bf16</td></tr>' in html
    assert '<tr><th scope="row">ignore eos</th><td>on</td><td>on</td></tr>' in html
    assert '<th scope="row">repeats</th><td>3</td><td>3</td>' in html
    assert "1: What is the capital of France?" in html
    assert configuration_html([document(), document(spec={})], ["A", "B"]) == ""


def test_results_of_an_older_version_are_shown_without_what_they_lack() -> None:
    old = document({"itl_s": {"value": 0.02, "unit": "s", "n": 3, "ci95": [0.019, 0.021], "cv": 0.01, "kind": "measured", "reason": None}})
    html = table_html([old, old], ["A", "B"])
    assert "20 ms" in html
    for words in ("Predicted", "Expected", "configuration", "noise floor"):
        assert words not in html
    column_html(ended(("a",), ("b",)), 1, 0, old, old)


def limits(spec: RunSpec) -> ev.Ceilings:
    key = device_key(MACHINE, "cpu", {"fp32": "float32", "bf16": "bfloat16"}[str(spec.knobs["precision"])])
    return ev.Ceilings(1, key, "cpu", "float32", 2e10, 1e11, 1e-6, "2026-01-01T00:00:00", fresh=False, matvec_bytes_per_s=1e10)


def test_speed_is_predicted_where_the_machine_was_measured_and_asked_for_where_not(tmp_path: Path) -> None:
    known = techniques()
    specs = [complete(RunSpec(knobs={"precision": precision}), known) for precision in ("fp32", "bf16")]
    facts = ModelFacts("tiny", "shape", LLAMA)
    store = Store(tmp_path / "results.sqlite")
    assert ceilings_of(store, known, MACHINE, specs) == [None, None]
    assert SPEED_UNKNOWN in speed_html(specs, ["A", "B"], lambda name: facts, known, [None, None])
    store.keep_ceilings(limits(specs[0]))
    found = ceilings_of(store, known, MACHINE, specs)
    assert found[0] == limits(specs[0])
    assert found[1] is None
    html = speed_html(specs, ["A", EVIL], lambda name: facts, known, found)
    assert html.count("tokens/s") == 1
    assert "a step" in html
    assert "first token" in html
    assert "<em>not known</em>" in html
    assert "<script" not in html
    store.close()


def test_nothing_is_said_of_speed_where_the_model_is_not_known_or_recorded() -> None:
    spec = complete(RunSpec(), techniques())
    assert speed_html([spec], ["A"], lambda name: None, techniques(), [None]) == ""
    replayed = spec.replace(engine="replay", model="recording:x#0")
    assert speed_html([replayed], ["A"], lambda name: ModelFacts("x", "hub", LLAMA), techniques(), [None]) == ""


def test_measuring_again_forgets_what_was_measured_and_says_so(tmp_path: Path) -> None:
    store = Store(tmp_path / "results.sqlite")
    store.keep_ceilings(limits(complete(RunSpec(knobs={"precision": "fp32"}), techniques())))
    app = App(Jobs(store), store, WORLD)
    assert "the next run measures them again" in remeasure(app)
    assert store.ceilings() == {}
    assert "Memory before loading" in estimate(app, Draft(model="shape:tiny"))
    store.close()
