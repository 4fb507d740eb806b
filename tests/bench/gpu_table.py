"""Predicted against measured, and the verdict, for a shape on a GPU: precision and quantization, KV cache, batch size, long texts.

Each experiment becomes a recording (OUT/NAME.jsonl.gz) and all of them one table in Markdown on stdout. Needs neither gradio nor plotly::

    python tests/bench/gpu_table.py --model shape:llama-3.2-1b --out recordings
"""

from __future__ import annotations

import argparse
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playground.core.plan import plan_for, vary
from playground.core.spec import Protocol, RunSpec, Workload
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.models.recording import write
from playground.results.numbers import interval, shown
from playground.run.experiment import run_experiment
from playground.run.runner import Runner
from playground.techniques import techniques

SHORT = "Explain in a few sentences why the sky is blue and the evening sky is red."
LONG = " ".join(["The river turned slowly past the mill, and nobody on the bridge looked down at the water."] * 92)
Variants = tuple[tuple[str, dict[str, Any]], ...]
# Name, title, prompt, output tokens, label of the baseline, and what each variant changes.
EXPERIMENTS: tuple[tuple[str, str, str, int, str, Variants], ...] = (
    (
        "quantization", "Quantization", SHORT, 64, "bf16",
        (("fp16", {"precision": "fp16"}), ("int8", {"precision": "fp16", "quantization": "int8"}), ("nf4", {"quantization": "nf4"})),
    ),
    ("kv-cache", "KV cache, short text", SHORT, 64, "dynamic", (("static", {"kv_cache": "static"}), ("off", {"kv_cache": "off"}))),
    ("batch-size", "Batch size", SHORT, 64, "batch 1", (("batch 8", {"batch_size": 8}), ("batch 64", {"batch_size": 64}))),
    ("kv-cache-long", "KV cache, long text", LONG, 32, "dynamic", (("off", {"kv_cache": "off"}),)),
    (
        "graph-weights", "Captured steps: weights in fewer bits", SHORT, 64, "bf16",
        (("int8", {"weight_only": "int8"}), ("fp8", {"weight_only": "fp8"}), ("int4", {"weight_only": "int4"})),
    ),
    (
        "graph-batch-size", "Captured steps: batch size", SHORT, 64, "batch 1",
        (("batch 8", {"batch_size": 8}), ("batch 64", {"batch_size": 64})),
    ),
    ("graph-kv-cache", "Captured steps: KV cache, short text", SHORT, 64, "static", (("off", {"kv_cache": "off"}),)),
    ("graph-kv-cache-long", "Captured steps: KV cache, long text", LONG, 32, "static", (("off", {"kv_cache": "off"}),)),
)  # fmt: skip
HEAD = ("experiment", "variant", "weights", "KV cache", "step", "predicted", "kernels", "GPU busy", "energy a token", "bound by")


def specs_of(model: str, engine: str, prompt: str, tokens: int, label: str, variants: Variants, repeats: int) -> Any:
    """Complete specs of one experiment, the baseline first."""
    known, machine = techniques(), probe()
    work, protocol = Workload((prompt,), max_new_tokens=tokens), Protocol(1, repeats)
    baseline = RunSpec(model, engine, knobs={"precision": "bf16"}, workload=work, protocol=protocol, label=label)
    specs = [baseline, *(vary(baseline, changes, known).replace(label=name) for name, changes in variants)]
    return [plan_for(spec, known, engine_class(spec.engine), machine).spec for spec in specs]


def row(experiment: str, result: dict[str, Any]) -> str:
    """One line of the table."""
    metrics, step = result["metrics"], result["prediction"].get("step_s")
    if result["status"] != "done":
        return f"| {experiment} | {result['label']} | {result['error']['message']} |"

    def cell(name: str) -> str:
        value = metrics[name]
        return "" if value["value"] is None else f"{shown(value['value'], value['unit'])} {interval(value)}".strip()

    known = step is not None and step["error"] is not None
    predicted = f"{shown(step['predicted'], 's')} ({step['error'] * 100:+.0f} %)" if known else ""
    cells = [cell(name) for name in ("weights_bytes", "kv_cache_bytes", "itl_s")]
    cells += [predicted, *(cell(name) for name in ("kernels_per_token", "gpu_busy", "j_per_token")), result["verdict"]["bottleneck"]]
    return f"| {' | '.join([experiment, result['label'], *cells])} |"


def main() -> None:
    """Run, record, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shape:llama-3.2-1b")
    parser.add_argument("--only", action="append", choices=[item[0] for item in EXPERIMENTS], help="one of the experiments")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("recordings"))
    args = parser.parse_args()
    short_name, lines = args.model.removeprefix("shape:"), []
    for name, title, prompt, tokens, label, variants in EXPERIMENTS:
        if args.only and name not in args.only:
            continue
        engine = "graph" if name.startswith("graph-") else "transformers"
        specs, runner = specs_of(args.model, engine, prompt, tokens, label, variants, args.repeats), Runner()
        experiment = run_experiment(specs, runner, threading.Event())
        try:
            for _ in experiment:
                pass
        finally:
            runner.close()
        made = experiment.results[0]["provenance"]
        machine, date = str(made.get("gpu") or made.get("cpu")), str(made.get("started_at", ""))[:10]
        header = {"title": f"{title}, {short_name}", "machine": machine, "date": date, "about": title, "specs": specs}
        write(args.out / f"{short_name}-{name}.jsonl.gz", header, experiment.events)
        lines += [row(name, result) for result in experiment.results]
        print("\n".join(result["verdict"]["sentence"] for result in experiment.results), file=sys.stderr, flush=True)
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}", *lines, sep="\n")


if __name__ == "__main__":
    main()
