"""A second, smaller model beside the loaded one, whose tokens the large one checks: for techniques.speculative.

It is loaded on the same device, in the same dtype and with the same attention, never quantized, and refused where it does not speak the
same tokens. Example::

    engine.draft = load_draft(engine, emit)
"""

from __future__ import annotations

from typing import Any

from playground.core.engine import Emit
from playground.core.problem import Problem
from playground.engines.loading import load_model
from playground.techniques.setup import TransformersSetup

SAMPLES = (
    "The capital of France is Paris, 1789.",
    "def total(xs):\n    return sum(x ** 2 for x in xs)",
    "naïve café, größer, 今天天气很好 🙂",
)


def load_draft(engine: Any, emit: Emit) -> Any:
    """The model that `engine.options.draft` names, ready to run; raises Problem("user") where its tokens are not those of the engine's
    tokenizer, and Problem("model") for an unknown one."""
    from playground.models.resolve import resolve
    from playground.models.tokenizer import load_tokenizer

    options = engine.options
    resolved = resolve(options.draft, emit)
    same_tokens(engine.tokenizer, load_tokenizer(resolved), f"the draft {resolved.name}", "the model cannot check tokens")
    kept = {name: value for name, value in options.load.items() if name == "attn_implementation"}
    return load_model(resolved, TransformersSetup(device=options.device, dtype=options.dtype, load=kept))


def same_tokens(target: Any, other: Any, what: str, cannot: str) -> None:
    """Raises Problem("user") where two tokenizers (models.tokenizer) differ in size or in the ids of some sample texts. `what` has the
    `other` one; `cannot`: what is impossible with "tokens that are not its own", such as "the model cannot check tokens"."""
    sizes = f"The vocabulary of {what} has {other.vocab_size:,} tokens and that of the model {target.vocab_size:,}"
    refused = f"{cannot} that are not its own. Choose one of the same family of models."
    if other.vocab_size != target.vocab_size:
        raise Problem("user", f"{sizes}: {refused}")
    differing = next((text for text in SAMPLES if other.encode(text) != target.encode(text)), None)
    if differing is not None:
        first = differing.splitlines()[0]
        raise Problem("user", f'{sizes}, but the two split "{first}" into other tokens, and {refused}')
