"""Decode speed of the graph engine against `generate` and against the same step captured without fusing, for a shape on a GPU.

All variants are loaded side by side in one process and take turns, so that a drift of the machine meets all of them alike. Beside each
stands the perfect machine: the bytes that its step must move over the bandwidth of a large copy. A JSON file keeps every round::

    python tests/bench/decode.py --model shape:llama-3.1-8b --rows 1 8 64 --out decode.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playground.core.engine import Batch
from playground.core.plan import footprint_of, plan_for
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.ceilings import measure_ceilings
from playground.measure.machine import probe
from playground.measure.roofline import decode_work, middle
from playground.techniques import techniques

# Name: engine and knobs; what a variant does not name is its engine's default.
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "generate": ("transformers", {}),
    "transformers": ("transformers", {}),
    "captured": ("graph", {"fusion": "off", "attention": "sdpa"}),
    "bf16": ("graph", {}),
    "int8": ("graph", {"weight_only": "int8"}),
    "int4": ("graph", {"weight_only": "int4"}),
    "fp8": ("graph", {"weight_only": "fp8"}),
    "nf4": ("graph", {"quantization": "nf4"}),
}


class Contestant:
    """One loaded variant."""

    def __init__(self, name: str, model: str, device: str) -> None:
        kind, knobs = VARIANTS[name]
        self.name, self.engine = name, engine_class(kind)()
        spec = RunSpec(model, engine=kind, device=device, knobs={"precision": "bf16", **knobs})
        self.plan = plan_for(spec, techniques(), engine_class(kind), probe())
        self.facts = self.engine.load(self.plan, lambda event: None)
        self.engine.setup(self.plan)

    def ready_s(self, batch: Batch) -> float:
        """Seconds until a step of this shape could run for the first time."""
        started = time.perf_counter()
        if self.engine.compiles(self.plan):
            self.engine.compile(batch)
        return time.perf_counter() - started

    def tokens_per_s(self, batch: Batch) -> float:
        """Of all rows together, without the first token of each."""
        if self.name == "generate":
            return self._generate(batch)
        stamps = [tick.t_ns for tick in self.engine.generate(batch)]
        return len(batch.token_ids) * (len(stamps) - 1) / (stamps[-1] - stamps[0]) * 1e9

    def _generate(self, batch: Batch) -> float:
        """transformers' own loop: of two lengths, the difference."""
        import torch

        ids = torch.tensor(batch.token_ids, device=self.plan.device)
        times = []
        for count in (4, 36):
            started = time.perf_counter()
            self.engine.model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=count, eos_token_id=None, pad_token_id=0
            )
            torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
        return len(batch.token_ids) * 32 / (times[1] - times[0])

    def bytes_per_step(self, batch: Batch) -> float:
        """What the middle step must move."""
        footprint = footprint_of(self.plan.spec.replace(knobs={**self.plan.spec.knobs, "batch_size": len(batch.token_ids)}), techniques())
        return decode_work(self.facts["config"], footprint, middle(len(batch.token_ids[0]), batch.max_new_tokens)).bytes


def main() -> None:
    """Load all, make all ready, take turns, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="shape:llama-3.1-8b")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("decode.json"))
    args = parser.parse_args()
    machine = probe()
    ceilings = measure_ceilings(machine.resolve(args.device), "bfloat16", machine)
    print(f"copy {ceilings.copy_bytes_per_s / 1e12:.2f} TB/s, kernel in a graph {(ceilings.graph_kernel_s or 0) * 1e6:.2f} us", flush=True)
    contestants = []
    for name in args.variants:
        contestants.append(Contestant(name, args.model, args.device))
        print(f"{name} loaded in {contestants[-1].facts['load_s']:.1f} s", flush=True)
    results = []
    for rows in args.rows:
        batch = Batch(tuple(tuple((7 * row + place) % 250 + 1 for place in range(args.prompt)) for row in range(rows)), args.new)
        results += compare(contestants, batch, args.rounds, ceilings.copy_bytes_per_s)
        args.out.write_text(json.dumps({"model": args.model, "gpu": str(machine.gpus[:1]), "results": results}, indent=1))
    head = ("rows", "variant", "tokens/s", "rounds", "ms a step", "perfect tokens/s", "share", "ready s")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}")
    for item in results:
        spread = " ".join(f"{value:.4g}" for value in item["rounds"])
        rate, perfect = item["tokens_per_s"], item["perfect"]
        cells = (item["rows"], item["variant"], f"{rate:.1f}", spread, f"{item['step_ms']:.3f}", f"{perfect:.0f}", f"{rate / perfect:.2f}")
        print(f"| {' | '.join(map(str, cells))} | {item['ready_s']:.1f} |")


def compare(contestants: list[Contestant], batch: Batch, rounds: int, copy: float) -> list[dict[str, Any]]:
    """Each round each variant once, after one that does not count."""
    rows = len(batch.token_ids)
    ready = {one.name: one.ready_s(batch) for one in contestants}
    found: dict[str, list[float]] = {one.name: [] for one in contestants}
    for number in range(rounds + 1):
        for one in contestants:
            rate = one.tokens_per_s(batch)
            if number:
                found[one.name].append(rate)
    return [
        {
            "rows": rows,
            "variant": one.name,
            "tokens_per_s": statistics.median(found[one.name]),
            "rounds": found[one.name],
            "step_ms": 1000 * rows / statistics.median(found[one.name]),
            "perfect": rows * copy / one.bytes_per_step(batch),
            "ready_s": ready[one.name],
        }
        for one in contestants
    ]


if __name__ == "__main__":
    main()
