"""How far the engine `graph` is from the engine `transformers` on a real model: KL divergences a token, whole text and token by token.

Each of the two, in bf16, once as one forward pass ("whole") and once token by token ("steps"; captured in `graph` on a GPU), is held
against the other and against the plain engine in fp32. What counts is steps against steps: the same arithmetic in another order of sums.
Needs the default model and, for captured steps, a GPU::

    python tests/bench/captured_quality.py --tokens 256 --json OUT
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from playground.core.plan import plan_for
from playground.core.spec import DEFAULT_MODEL, RunSpec
from playground.engines import engine_class
from playground.measure.evaluation import evaluation_text
from playground.measure.machine import probe
from playground.techniques import techniques

WAYS = {"whole": False, "steps": True}


def scores(model: str, engine: str, precision: str, tokens: int) -> dict[str, Any]:
    """Log-probabilities [tokens - 1, vocabulary] of the first tokens of our English text, by way."""
    kind = engine_class(engine)
    loaded, plan = kind(), plan_for(RunSpec(model, engine, knobs={"precision": precision}), techniques(), kind, probe())
    loaded.load(plan, lambda event: None)
    loaded.setup(plan)
    _, ids = loaded.prepare(evaluation_text("english"), False)
    found = {way: loaded.score(ids[:tokens], stepwise) for way, stepwise in WAYS.items()}
    loaded.close()
    return found


def divergence(of: Any, reference: Any) -> float:
    """Mean KL(reference || of) a token, in nats."""
    return float((reference.exp() * (reference - of)).sum(-1).mean())


def main() -> None:
    """Print a row a pair."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    plain, graph = (scores(args.model, engine, "bf16", args.tokens) for engine in ("transformers", "graph"))
    exact = scores(args.model, "transformers", "fp32", args.tokens)["whole"]
    pairs = {
        "graph steps against plain steps": (graph["steps"], plain["steps"]),
        "graph whole against plain whole": (graph["whole"], plain["whole"]),
        "graph steps against plain whole": (graph["steps"], plain["whole"]),
        "plain steps against plain whole": (plain["steps"], plain["whole"]),
        "graph steps against fp32": (graph["steps"], exact),
        "plain steps against fp32": (plain["steps"], exact),
        "plain whole against fp32": (plain["whole"], exact),
    }
    found = {name: divergence(*pair) for name, pair in pairs.items()}
    for name, value in found.items():
        print(f"{name:<34}{value:.5f}")
    if args.json:
        args.json.write_text(json.dumps({"model": args.model, "tokens": args.tokens, "kl": found}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
