"""Draft model: a second, smaller model that is loaded beside the first, for speculative decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from playground.core.knobs import Text
from playground.core.technique import Effect, Explanation, Finding, Knobs, Technique, flipped
from playground.techniques.setup import TransformersSetup


class DraftModel(Technique):
    """Its name; the engine loads it."""

    name = "draft_model"
    title = "Draft model"
    group = "Decoding"
    order = 44  # before speculative decoding, which it is for
    phase = "load"
    knobs = (
        Text(
            "draft_model",
            "Draft model",
            "A smaller model with the same tokens: a name of the catalogue, a hub id, a folder, a .gguf file, or made:NAME.",
        ),
    )
    explain = Explanation(
        what="Loads a second model on the same device and in the same number format, never quantized. It proposes tokens, and the model "
        "that was asked for checks them.",
        helps="A draft that is ten or more times faster than the model and mostly of its opinion, such as the smallest of the same family, "
        "or a pruned and distilled copy.",
        costs="Its weights and a KV cache of its own. A draft with another tokenizer cannot be used at all.",
    )
    cases = ({"draft_model": ""},)  # with a draft: those of speculative decoding, which wants one

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """Only one way of proposing tokens asks a model."""
        return {} if knobs["speculative"] == "draft" else {"draft_model": "it applies to speculative=draft."}

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """A second model is more weights; of two drafts the names do not say which is larger."""
        if bool(knobs["draft_model"]) == bool(baseline["draft_model"]):
            return {}
        more: dict[str, Effect] = {"weights_bytes": "up"}
        return more if knobs["draft_model"] else flipped(more)

    def models(self, knobs: Knobs) -> tuple[str, ...]:
        """The draft."""
        return (str(knobs["draft_model"]),) if knobs["draft_model"] else ()

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """Its name for the engine."""
        setup.draft = str(knobs["draft_model"])

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Looks at the second model."""
        if engine.draft is None:
            return Finding(not knobs["draft_model"], "0 draft models are loaded")
        config, first = engine.draft.config.get_text_config(), next(engine.draft.parameters())
        text = (
            f"the draft {engine.options.draft} is loaded: {config.num_hidden_layers} layers, {engine.draft.num_parameters():,} parameters "
            f"in {str(first.dtype).removeprefix('torch.')} on {first.device}, with the model's {engine.tokenizer.vocab_size:,} tokens"
        )
        same = first.device.type == engine.options.device and str(first.dtype) == f"torch.{engine.options.dtype}"
        return Finding(same and engine.options.draft == knobs["draft_model"], text)

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> dict[str, float]:
        """Bytes of its parameters and buffers."""
        if engine.draft is None:
            return {}
        parts = (*engine.draft.parameters(), *engine.draft.buffers())
        return {"draft_weights_bytes": float(sum(part.numel() * part.element_size() for part in parts))}


TECHNIQUE = DraftModel()
