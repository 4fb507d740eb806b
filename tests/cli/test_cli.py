"""The command line as a person uses it: its exit status, what it prints and what it writes; a process of its own where that matters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from playground.cli import main, parser
from playground.cli import run as run_command
from playground.cli.run import wanted
from playground.cli.sweep import wanted as wanted_sweep
from playground.core.machine import Gpu, Machine
from playground.core.problem import Problem
from playground.engines import engines
from playground.engines.fake import FakeEngine

ROOT = Path(__file__).resolve().parents[2]
Finished = subprocess.CompletedProcess[str]
Command = Callable[..., Finished]
RunJson = Callable[..., Any]
FAKE = ("--engine", "fake", "--model", "script:step_ms=1", "--max-new-tokens", "6", "--repeats", "2", "--quiet")


def process(*arguments: str) -> Finished:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "playground", *arguments],
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def playground(capsys: pytest.CaptureFixture[str]) -> Command:
    """playground("run", ...): the command in this process, which spares starting one; what it leaves is as of `process`."""

    def command(*arguments: str) -> Finished:
        capsys.readouterr()
        try:
            status = main(arguments)
        except SystemExit as wrong:  # argparse has told what
            status = int(wrong.code or 0)
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return command


@pytest.fixture
def run_json(playground: Command) -> RunJson:
    """run_json(path, ...): the JSON that `run` has written to that path."""

    def run(path: Path, *arguments: str) -> Any:
        done = playground("run", *arguments, "--json", str(path))
        assert done.returncode == 0, done.stderr
        return json.loads(path.read_text())

    return run


def test_one_variant_gives_one_result_in_the_documented_schema(run_json: RunJson, tmp_path: Path) -> None:
    result = run_json(tmp_path / "r.json", *FAKE, "--prompt", "one two", "--prompt", "three")
    assert {"spec", "fingerprint", "status", "error", "provenance", "evidence", "metrics", "outputs", "verdict"} <= set(result)
    assert result["status"] == "done"
    assert result["error"] is None
    assert [len(output["token_ids"]) for output in result["outputs"]] == [6, 6]
    itl = result["metrics"]["itl_s"]
    assert itl["kind"] == "measured"
    assert itl["n"] == 2
    assert itl["value"] >= 0.001
    assert result["metrics"]["matching_tokens"]["kind"] == "not_available"
    assert result["metrics"]["matching_tokens"]["value"] is None
    assert result["metrics"]["matching_tokens"]["reason"]


def test_several_variants_give_a_list_with_the_baseline_first(run_json: RunJson, tmp_path: Path) -> None:
    data = run_json(tmp_path / "r.json", *FAKE, "--variant", "batch_size=2", "--variant", "kv_cache=off,precision=fp32")
    assert [result["label"] for result in data["results"]] == ["baseline", "Batch size 2", "KV cache off, fp32"]
    assert [result["spec"]["knobs"]["batch_size"] for result in data["results"]] == [1, 2, 1]


def test_the_flags_of_sampling_reach_the_run_and_a_greedy_one_drops_those_of_its_file(run_json: RunJson, tmp_path: Path) -> None:
    flags = ("--temperature", "0.8", "--top-k", "40", "--top-p", "0.9", "--seed", "3")
    result = run_json(tmp_path / "a.json", *FAKE, *flags)
    work = result["spec"]["workload"]
    assert (work["temperature"], work["top_k"], work["top_p"], work["seed"]) == (0.8, 40, 0.9, 3)
    (tmp_path / "drawn.json").write_text(json.dumps(result["spec"]))
    work = run_json(tmp_path / "b.json", str(tmp_path / "drawn.json"), "--temperature", "0", "--quiet")["spec"]["workload"]
    assert (work["temperature"], work["top_k"], work["top_p"], work["seed"]) == (0, 0, 1, 3)


def test_json_on_stdout_is_json_alone() -> None:
    done = process("run", *FAKE, "--json", "-")
    assert json.loads(done.stdout)["status"] == "done"


def test_a_failed_run_exits_with_one_and_names_its_kind(playground: Command, tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    done = playground("run", "--engine", "fake", "--model", "script:fail=oom,at=2", "--json", str(out))
    assert done.returncode == 1
    result = json.loads(out.read_text())
    assert (result["status"], result["error"]["kind"]) == ("failed", "oom")
    assert "oom" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--set", "precison=fp32"), "did you mean 'precision'"),
        (("--set", "precision=fp31"), "did you mean 'fp32'"),
        (("--set", "precision"), "expects KNOB=VALUE"),
        (("--set", "batch_size=0"), "outside 1 to 256"),
        (("--variant", "quantization=int8"), "Set precision to fp16"),
        (("--max-new-tokens", "0"), "max_new_tokens must be a whole number from 1"),
        (("--max-new-tokens", "-3"), "max_new_tokens must be a whole number from 1"),
        (("--top-k", "5"), "top_k=5 has no effect here: at temperature 0"),
        (("--top-k", "5", "--temperature", "0"), "top_k=5 has no effect here: at temperature 0"),
        (("--temperature", "1", "--top-p", "0"), "top_p must be above 0 and at most 1"),
        (("--repeats", "0"), "repeats must be a whole number from 1"),
        (("--prompt", " "), "Prompt 1 is empty"),
        (("--engine", "transformer"), "did you mean 'transformers'"),
        (("nowhere.toml",), "no file nowhere.toml"),
    ],
)
def test_wrong_usage_exits_with_two_and_a_sentence(playground: Command, arguments: tuple[str, ...], sentence: str) -> None:
    done = playground("run", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_with_an_unknown_setting_names_file_and_setting(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('[baseline]\nmodel = "shape:tiny"\n[[variant]]\nquantisation = "nf4"\n')
    done = process("run", str(path))
    assert done.returncode == 2
    assert "mine.toml" in done.stderr
    assert "did you mean 'quantization'" in done.stderr


def test_a_recording_plays_again_with_the_same_numbers(run_json: RunJson, tmp_path: Path) -> None:
    recording = tmp_path / "mine.jsonl.gz"
    original = run_json(tmp_path / "a.json", *FAKE, "--record", str(recording))
    again = run_json(tmp_path / "b.json", "--engine", "replay", "--model", f"recording:{recording}#0?speed=100", "--quiet")
    assert again["metrics"]["itl_s"]["value"] == original["metrics"]["itl_s"]["value"]
    assert again["metrics"]["itl_s"]["kind"] == "recorded"
    assert again["outputs"] == original["outputs"]


def test_a_recording_brings_its_own_settings_and_refuses_others(run_json: RunJson, playground: Command, tmp_path: Path) -> None:
    nf4 = "recording:h200-smollm2-135m-quantization#2?speed=1000"
    result = run_json(tmp_path / "r.json", "--engine", "replay", "--model", nf4, "--quiet")
    assert (result["spec"]["knobs"]["quantization"], result["provenance"]["gpu"]) == ("nf4", "NVIDIA H200")
    assert result["metrics"]["weights_bytes"]["kind"] == "recorded"
    done = playground("run", "--engine", "replay", "--model", nf4, "--set", "quantization=int8", "--set", "precision=fp16")
    assert done.returncode == 2
    assert "recorded with quantization=nf4, which cannot be changed" in done.stderr


def test_an_output_that_cannot_be_written_is_refused_before_the_work(playground: Command, tmp_path: Path) -> None:
    for flag in ("--json", "--record"):
        done = playground("run", *FAKE, flag, str(tmp_path / "nowhere" / "out"))
        assert done.returncode == 2
        assert "its folder must exist" in done.stderr
        assert done.stdout == ""


def test_a_pipe_or_a_folder_named_as_a_recording_is_refused_before_the_work_and_stays(playground: Command, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for target in (pipe, tmp_path):
        done = playground("run", *FAKE, "--record", str(target))
        says = f"playground: {target} is there already and is not a file: choose another name.\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", says)
    assert pipe.is_fifo()


def test_json_goes_into_a_pipe(playground: Command, tmp_path: Path) -> None:
    pipe, read = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: read.append(json.loads(pipe.read_text())), daemon=True)
    reader.start()
    assert playground("run", *FAKE, "--json", str(pipe)).returncode == 0
    reader.join(30)
    assert read[0]["status"] == "done"
    assert pipe.is_fifo()


def test_an_output_that_became_a_folder_during_the_work_costs_neither_the_table_nor_the_other_file(
    playground: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_command, "check_writable", lambda target, **more: None)
    recording = tmp_path / "mine.jsonl.gz"
    done = playground("run", *FAKE, "--json", str(tmp_path), "--record", str(recording))
    assert (done.returncode, done.stderr) == (2, f"playground: {tmp_path} cannot be written: Is a directory.\n")
    assert "Output tokens" in done.stdout
    assert recording.is_file()


@pytest.mark.parametrize("command", ["doctor", "models"])
def test_a_list_that_cannot_be_written_is_a_sentence(playground: Command, tmp_path: Path, command: str) -> None:
    for target, says in ((tmp_path, "cannot be written: Is a directory"), (tmp_path / "no" / "out", "cannot be written: No such file")):
        done = playground(command, "--json", str(target))
        assert done.returncode == 2
        assert done.stderr.startswith(f"playground: {target} {says}")


def test_a_quiet_failure_still_says_why() -> None:
    done = process("run", "--engine", "fake", "--model", "script:fail=oom,at=2", "--quiet")
    assert done.returncode == 1
    assert "memory" in done.stderr


def test_a_model_that_will_not_fit_is_warned_of_before_it_is_loaded(playground: Command) -> None:
    done = playground("run", "--model", "shape:llama-3.1-8b", "--set", "batch_size=256", "--max-new-tokens", "32768", "--engine", "fake")
    assert "it will probably not fit" in done.stderr


def test_doctor_says_what_every_knob_can_do_here(playground: Command) -> None:
    report = json.loads(playground("doctor", "--json", "-").stdout)
    assert report["machine"]["memory_bytes"] > report["machine"]["free_bytes"] > 0
    assert report["engines"]["fake"] is None
    assert {"precision", "quantization", "kv_cache", "batch_size", "attention"} <= set(report["knobs"])
    assert Path(report["folders"]["home"]).is_dir()
    text = playground("doctor").stdout
    assert "knob      quantization: " in text
    assert "folder    hub: " in text


def test_models_lists_the_default_and_the_shapes(playground: Command) -> None:
    names = {entry["name"] for entry in json.loads(playground("models", "--json", "-").stdout)}
    assert {"smollm2-135m-instruct", "shape:tiny", "shape:llama-3.2-1b", "shape:llama-3.1-8b", "shape:qwen3-0.6b"} <= names


def test_a_real_tiny_model_runs_in_both_engines_and_quantized_with_evidence(run_json: RunJson, tmp_path: Path) -> None:
    arguments = ("--model", "shape:tiny", "--engine", "transformers", "--device", "cpu", "--max-new-tokens", "12", "--repeats", "2")
    data = run_json(tmp_path / "r.json", *arguments, "--quiet", "--variant", "quantization=nf4", "--variant", "engine=graph")
    first, second, graph = data["results"]
    assert "are Linear4bit (nf4" in second["evidence"]["quantization"]
    assert second["metrics"]["weights_bytes"]["value"] < first["metrics"]["weights_bytes"]["value"]
    assert "random" in second["metrics"]["kld_mean"]["reason"]
    assert [result["spec"]["engine"] for result in data["results"]] == ["transformers", "transformers", "graph"]
    assert [result["spec"]["knobs"]["kv_cache"] for result in data["results"]] == ["dynamic", "dynamic", "static"]
    assert graph["outputs"][0]["token_ids"] == first["outputs"][0]["token_ids"]
    assert graph["metrics"]["compile_s"]["value"] > 0
    assert first["metrics"]["compile_s"]["value"] is None


def test_a_variant_with_another_engine_keeps_what_was_set_and_takes_its_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    class Fixed(FakeEngine):
        @classmethod
        def defaults(cls, device: str) -> dict[str, str]:
            return {"kv_cache": "static"}

    monkeypatch.setitem(engines(), "fixed", Fixed)
    given = ["run", "--engine", "fake", "--set", "kv_cache=dynamic", "--set", "batch_size=2"]
    variants = ["--variant", "engine=fixed", "--variant", "engine=fixed,kv_cache=off"]
    specs = wanted(parser().parse_args([*given, *variants])).specs
    assert [(spec.engine, spec.knobs["kv_cache"], spec.knobs["batch_size"]) for spec in specs] == [
        ("fake", "dynamic", 2),
        ("fixed", "static", 2),
        ("fixed", "off", 2),
    ]
    assert [spec.label for spec in specs] == ["baseline", "fixed", "fixed, KV cache off"]


GPU = Gpu("H200", "u", (9, 0), 141 * 10**9, 140 * 10**9, "580")
PACKAGES = dict.fromkeys(("torch", "transformers", "triton", "bitsandbytes", "accelerate"), "1")


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, as far as the choice of what to run goes."""
    machine = Machine("host", "cpu", 2, 16 * 10**9, 8 * 10**9, "cuda", (GPU,), packages=PACKAGES)
    monkeypatch.setattr("playground.cli.run.probe", lambda: machine)


def engines_of(*arguments: str) -> list[str]:
    return [spec.engine for spec in wanted(parser().parse_args(["run", *arguments])).specs]


@pytest.mark.usefixtures("with_gpu")
def test_with_a_gpu_what_names_no_engine_runs_on_graph_with_its_defaults(capsys: pytest.CaptureFixture[str]) -> None:
    baseline, variant = wanted(parser().parse_args(["run", "--variant", "weight_only=int4"])).specs
    assert (baseline.engine, baseline.knobs["kv_cache"], baseline.knobs["fusion"]) == ("graph", "static", "compile")
    assert (variant.engine, variant.knobs["weight_only"], variant.knobs["attention"]) == ("graph", "int4", "split_kv")
    assert engines_of("batch-size") == ["graph"] * 3
    assert engines_of("--device", "cpu") == ["transformers"]
    assert engines_of("--engine", "transformers") == ["transformers"]
    assert engines_of("--variant", "engine=graph") == ["transformers", "graph"], "who names one engine is asked for both"
    assert engines_of("launch-bound") == ["transformers", "transformers", "graph", "graph"]
    assert engines_of("h200-smollm2-135m-quantization") == ["replay"] * 4
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("with_gpu")
def test_a_file_that_names_its_engine_keeps_it_and_one_that_does_not_takes_the_usual_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    for data, engine in (({"engine": "transformers"}, "transformers"), ({}, "graph")):
        path.write_text(json.dumps({"model": "shape:tiny", **data}))
        assert engines_of(str(path)) == [engine]


@pytest.mark.usefixtures("with_gpu")
@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--set", "attention=eager"), "Attention: the engine graph has no eager attention"),
        (
            ("--set", "precision=fp16", "--set", "quantization=int8", "--set", "int8_threshold=6.0"),
            "Quantization: with an outlier threshold int8 makes the host wait",
        ),
        (("--variant", "kv_cache=dynamic"), "KV cache: a captured graph reads its cache at a fixed address"),
        (("kv-cache",), "KV cache: a captured graph reads its cache at a fixed address"),
    ],
)
def test_settings_that_graph_cannot_have_leave_transformers_and_one_line_says_why(
    arguments: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert set(engines_of(*arguments)) == {"transformers"}
    err = capsys.readouterr().err
    assert err.startswith(f"playground: Engine transformers, not graph: {why}")
    assert err.count("\n") == 1


@pytest.mark.usefixtures("with_gpu")
def test_a_model_that_graph_does_not_run_leaves_transformers_and_one_line_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert engines_of("--model", str(tmp_path), "--variant", "batch_size=2") == ["transformers"] * 2
    families = "The engine graph runs the families llama, mistral, qwen2, qwen3, smollm3, not gpt2."
    assert capsys.readouterr().err == f"playground: Engine transformers, not graph: {families}\n"


def test_a_preset_that_is_changed_is_not_called_by_what_it_was() -> None:
    specs = wanted(parser().parse_args(["run", "int8-dynamic", "--set", "precision=bf16"])).specs
    assert [spec.label for spec in specs] == ["bf16", "int8_weight_only", "int8_dynamic"]
    kept = wanted(parser().parse_args(["run", "int8-dynamic", "--set", "batch_size=2"])).specs
    assert kept[0].label == "fp32"


def test_without_a_gpu_transformers_runs_what_names_no_engine(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("playground.cli.run.probe", lambda: Machine("host", "cpu", 2, 16, 8, no_cuda="no driver", packages=PACKAGES))
    assert engines_of("--variant", "precision=fp32") == ["transformers"] * 2
    with pytest.raises(Problem, match="No CUDA device: no driver"):
        engines_of("--device", "cuda")
    assert capsys.readouterr().err == ""


def test_a_sweep_prints_a_line_a_run_and_writes_its_plan_its_cells_and_their_results(playground: Command, tmp_path: Path) -> None:
    out = tmp_path / "sweep.json"
    done = playground("sweep", *FAKE, "--axis", "batch_size=1:4:x2", "--axis", "max_new_tokens=4,8", "--json", str(out))
    assert done.returncode == 0, done.stderr
    data = json.loads(out.read_text())
    assert [(cell["point"], cell["status"]) for cell in data["cells"]] == [
        ([1, 4], "done"), ([2, 4], "done"), ([4, 4], "done"), ([1, 8], "done"), ([2, 8], "done"), ([4, 8], "done"),
    ]  # fmt: skip
    assert [result["spec"]["knobs"]["batch_size"] for result in data["results"]] == [1, 2, 4, 1, 2, 4]
    assert len(data["facts"]) == 2
    assert data["facts"][0]["sentence"] in done.stdout
    assert done.stdout.splitlines()[1].startswith("4 output tokens, Batch size 1  done")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--axis", "batch=1,2"), "There is no axis 'batch'; did you mean 'batch_size'?"),
        (("--axis", "batch_size=1,2", "--axis", "batch_size=4,8"), "Both axes are batch_size"),
        (("--axis", "batch_size"), "--axis expects KNOB=VALUE"),
        (("batchsize",), "There is no file, sweep or experiment 'batchsize'; did you mean 'batch-size'?"),
        (("--axis", "engine=fake,foo"), "there is no engine 'foo'"),
        (("--resume", "abc", "--set", "batch_size=2"), "--resume goes on with what was planned, so --set would have no effect."),
        (("--resume", "abc"), "There is no stored sweep 'abc'."),
        (
            ("--axis", "prompt_tokens=8,16", "--prompt", "x", "--prompt-tokens", "4"),
            "--prompt gives the text and --prompt-tokens makes one",
        ),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_with_a_sentence(
    arguments: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.usefixtures("with_gpu")
def test_a_sweep_takes_the_usual_engine_where_it_can_run_every_cell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("playground.cli.sweep.probe", run_command.probe)
    for flags, engine in (
        (["batch-size"], "graph"),
        (["output-length"], "transformers"),
        (["--axis", "kv_cache=static,dynamic"], "transformers"),
    ):
        plan = wanted_sweep(parser().parse_args(["sweep", *flags]))
        assert {spec.engine for spec in plan.specs} == {engine}
    assert "Engine transformers, not graph: KV cache:" in capsys.readouterr().err


def test_a_named_protocol_leaves_the_text_that_an_experiment_is_scored_on(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('title = "Own"\n[baseline.protocol]\ntext = "Pages of a logbook."\nprice_per_hour = 2.5\n')
    protocol = wanted(parser().parse_args(["run", str(path), "--protocol", "careful", "--repeats", "4"])).specs[0].protocol
    assert (protocol.warmups, protocol.repeats, protocol.rounds, protocol.evaluation) == (3, 4, 2, "full")
    assert (protocol.text, protocol.price_per_hour) == ("Pages of a logbook.", 2.5)


def test_the_claims_of_a_sweeps_own_file_are_judged_in_its_table_and_its_json(playground: Command, tmp_path: Path) -> None:
    path, out = tmp_path / "mine.toml", tmp_path / "out.json"
    path.write_text(
        "[axes]\nmax_new_tokens = [4, 8, 16]\n[baseline]\nengine = 'fake'\nmodel = 'script:step_ms=1'\n"
        "[[claim]]\nsentence = 'More tokens take longer.'\nsource = 'a text'\nmetric = 'output_tokens'\nexponent_above = 0.9\n"
    )
    done = playground("sweep", str(path), "--json", str(out), "--quiet")
    assert "Claimed: More tokens take longer. (a text)" in done.stdout
    (claim,) = json.loads(out.read_text())["claims"]
    assert (claim["metric"], claim["outcome"]) == ("output_tokens", "supported")
    assert "measured 1 between 8 and 16" in claim["text"]


def test_a_named_protocol_leaves_a_sweep_without_the_quality_that_it_does_not_measure() -> None:
    specs = wanted_sweep(parser().parse_args(["sweep", "batch-size", "--protocol", "standard"])).specs
    assert {(spec.protocol.warmups, spec.protocol.repeats, spec.protocol.quality) for spec in specs} == {(2, 5, False)}
