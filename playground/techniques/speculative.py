"""Speculative decoding: tokens are proposed cheaply, and one forward pass of the model checks several of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from playground.core.knobs import Choice, Range
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup
from playground.techniques.speculation import Speculation

NAMES = {"prompt_lookup": "prompt lookup", "draft": "a draft model"}


class Speculative(Technique):
    """Proposals from the text itself, or from a second model."""

    name = "speculative"
    title = "Speculative decoding"
    group = "Decoding"
    order = 46
    phase = "run"
    knobs = (
        Choice(
            "speculative",
            "Speculative decoding",
            ("off", *NAMES),
            "off",
            "prompt_lookup proposes what followed the same words earlier in the text; draft asks a smaller model, which draft_model names.",
        ),
        Range(
            "draft_tokens",
            "Tokens proposed at once",
            1,
            32,
            1,
            5,
            "At most this many tokens are proposed before each pass of the model.",
            unit="tokens",
        ),
        Range(
            "lookup_ngram",
            "Lookup length",
            1,
            10,
            1,
            3,
            "The lookup searches the text for its last tokens: first for this many, then for fewer, down to one.",
            unit="tokens",
            advanced=True,
        ),
    )
    explain = Explanation(
        what="Some tokens are proposed, from earlier text or by a small draft model, and one forward pass of the model checks all of them. "
        "It keeps those that it would have said itself and adds one of its own, so the greedy output is the same.",
        helps="One row and a step that is limited by reading weights or by launching kernels: several tokens then cost little more than "
        "one. The lookup pays where output repeats input (rewriting, extracting, code); a draft where it is far faster and mostly right.",
        costs="Each proposal that is not accepted was computed for nothing, and a draft takes memory and a share of the time. Where few "
        "are accepted, or a pass over several tokens takes as long as several passes, it is slower than plain decoding.",
    )
    cases = (
        {"speculative": "prompt_lookup"},
        {"speculative": "prompt_lookup", "draft_tokens": 2, "lookup_ngram": 1},
        {"speculative": "draft", "draft_model": "shape:tiny"},
    )

    def conflicts(self, knobs: Knobs) -> str | None:
        """One row, and nobody else who decides what a pass carries."""
        if knobs["speculative"] == "off":
            return None
        if knobs["batch_size"] != 1:
            return (
                f"Speculative decoding and {knobs['batch_size']} rows a batch exclude each other: the rows would accept different numbers "
                "of tokens. Set batch_size to 1, or speculative to off."
            )
        if knobs.get("serving", "off") != "off":
            return (
                f"Speculative decoding and serving={knobs['serving']} exclude each other: both decide what a forward pass carries. Set one "
                "of them to off."
            )
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """The lengths belong to proposals."""
        reasons = {}
        if knobs["speculative"] == "off":
            reasons["draft_tokens"] = "no tokens are proposed while speculative is off."
        if knobs["speculative"] != "prompt_lookup":
            reasons["lookup_ngram"] = "it applies to prompt_lookup."
        return reasons

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Fewer passes a token; a draft takes time where a lookup takes none."""
        kind, before = str(knobs["speculative"]), str(baseline["speculative"])
        if kind == before:
            return {}
        if "off" in (kind, before):
            fewer: dict[str, Effect] = {"itl_s": "down", "output_tokens_per_s": "up", "kv_cache_bytes": "same"}
            return flipped(fewer) if kind == "off" else fewer
        asked: dict[str, Effect] = {"draft_time_share": "up"}
        return asked if kind == "draft" else flipped(asked)

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """A step is a cycle of proposals and a check."""
        return replace(footprint, speculated=knobs["speculative"] != "off")

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """The loop in place of the engine's own. Raises Problem("user") where a draft is wanted and none is named."""
        if knobs["speculative"] == "draft" and not knobs["draft_model"]:
            raise Problem(
                "user", "speculative=draft needs a draft: write the name of a smaller model with the same tokens into draft_model."
            )
        if knobs["speculative"] != "off":
            setup.run.decode = Speculation(str(knobs["speculative"]), int(knobs["draft_tokens"]), int(knobs["lookup_ngram"]))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Reads what the loop counted in the first pass over the workload."""
        kind, counts = str(knobs["speculative"]), engine.options.run.counts
        passes, drafted = (int(counts.get(name, 0)) for name in ("target_passes", "drafted_tokens"))
        if kind == "off":
            return Finding(not isinstance(engine.options.run.decode, Speculation), f"{drafted} tokens were proposed")
        loop = engine.options.run.decode
        if not isinstance(loop, Speculation):
            return Finding(False, "the engine decodes one token a forward pass: 0 tokens were proposed")
        text = (
            f"{counts.get('speculated_tokens', 0):g} tokens in {passes} passes of the target, {counts.get('accepted_tokens', 0):g} of "
            f"{drafted} drafted tokens accepted ({NAMES[loop.kind]}, up to {loop.draft_tokens} before a pass)"
        )
        if not drafted:
            text += ": no token of the output stood in the text before, so none could be looked up" if kind == "prompt_lookup" else ""
        return Finding(loop.kind == kind and drafted > 0, text)

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> dict[str, float]:
        """What the loop counted, and a plain pass, timed now for the break-even."""
        loop = engine.options.run.decode
        if not isinstance(loop, Speculation):
            return {}
        plain_s = loop.plain_pass_s(engine)
        found = {**engine.options.run.counts, "draft_kv_bytes": float(loop.draft_kv_bytes)}
        return found if plain_s is None else {**found, "plain_pass_s": plain_s}

    def refuses_transformers(self, knobs: Knobs, device: str) -> str | None:
        """A cache that gives no tokens back."""
        if knobs["speculative"] == "off" or knobs["kv_cache"] == "dynamic":
            return None
        return (
            f"tokens that are not accepted are cut off the cache again, which kv_cache={knobs['kv_cache']} does not allow: set kv_cache to "
            "dynamic, or speculative to off."
        )

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """A step of another shape each time."""
        if knobs["speculative"] == "off":
            return None
        return (
            "a captured step takes one token of each row, and a check takes as many as were proposed: choose the engine transformers, or "
            "speculative off."
        )


TECHNIQUE = Speculative()
