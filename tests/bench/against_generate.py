"""The `transformers` engine against bare `model.generate`: tokens per second of the same loaded model, prompt and lengths, greedy.

Alternates in one process, the order turned round each time, so that a machine that drifts favours neither. Prints each round, both medians
and the median ratio, and whether the two gave the same tokens. Needs neither gradio nor plotly::

    python tests/bench/against_generate.py --rounds 9 --tokens 64
    python tests/bench/against_generate.py --model shape:llama-3.2-1b --device cuda --set kv_cache=static
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playground.core.engine import Batch
from playground.core.plan import plan_for
from playground.core.spec import RunSpec, Workload
from playground.engines import engine_class
from playground.measure.machine import probe, provenance
from playground.techniques import techniques


def ours(engine: Any, batch: Batch) -> tuple[list[int], float]:
    """First row's tokens and output tokens per second of the whole batch, from input ready to last token on the host."""
    start = time.perf_counter_ns()
    ticks = list(engine.generate(batch))
    return [token for tick in ticks for token in tick.tokens[0]], len(ticks) * len(batch.token_ids) / ((ticks[-1].t_ns - start) / 1e9)


def theirs(engine: Any, batch: Batch, cache: str) -> tuple[list[int], float]:
    """The same from `model.generate`."""
    import torch

    given = {"off": {"use_cache": False}, "dynamic": {}, "static": {"cache_implementation": "static"}}[cache]
    start = time.perf_counter_ns()
    ids = torch.tensor(batch.token_ids, device=engine.options.device)
    out = engine.model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=batch.max_new_tokens,
        do_sample=False, disable_compile=True, pad_token_id=0, **given,
    )  # fmt: skip
    tokens = out[:, ids.shape[1] :].tolist()
    return tokens[0], sum(map(len, tokens)) / ((time.perf_counter_ns() - start) / 1e9)


def main() -> None:
    """Load once, alternate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=RunSpec().model)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--json", metavar="OUT")
    args = parser.parse_args()
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    knobs = dict(pair.split("=", 1) for pair in args.set)
    spec = RunSpec(model=args.model, device=args.device, knobs=knobs, workload=Workload(max_new_tokens=args.tokens))
    machine = probe()
    plan = plan_for(spec, techniques(), engine_class("transformers"), machine)
    engine = engine_class("transformers")()
    engine.load(plan, lambda event: None)
    engine.setup(plan)
    engine.model.generation_config.eos_token_id = None  # neither side stops at the end of text, and neither pays for not stopping
    _, ids = engine.prepare(plan.spec.workload.prompts[0], True)
    batch = Batch((ids,) * int(plan.spec.knobs["batch_size"]), args.tokens)
    cache = str(plan.spec.knobs["kv_cache"])
    sides = (lambda: ours(engine, batch), lambda: theirs(engine, batch, cache))
    rates: tuple[list[float], list[float]] = ([], [])
    same = True
    for number in range(args.rounds + 1):
        found: dict[int, tuple[list[int], float]] = {}
        for side in (0, 1) if number % 2 else (1, 0):
            found[side] = sides[side]()
        same = same and found[0][0] == found[1][0]
        if number:  # the first round warms up
            for side in (0, 1):
                rates[side].append(found[side][1])
            print(f"round {number}: ours {found[0][1]:.2f}, generate {found[1][1]:.2f} tokens/s, ratio {found[0][1] / found[1][1]:.3f}")
    ratio = statistics.median(a / b for a, b in zip(*rates, strict=True))
    medians = [statistics.median(side) for side in rates]
    print(f"{args.model} {plan.spec.knobs}")
    print(f"ours {medians[0]:.2f}, generate {medians[1]:.2f} tokens/s, median ratio {ratio:.3f}, same tokens: {same}")
    if args.json:
        told = {"model": args.model, "knobs": plan.spec.knobs, "ours": rates[0], "generate": rates[1], "ratio": ratio, "same": same}
        Path(args.json).write_text(json.dumps({**told, "provenance": provenance(machine)}, indent=2))


if __name__ == "__main__":
    main()
