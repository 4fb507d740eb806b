"""A resolved model into memory, as techniques have set it up. torch is imported inside. Example::

model = load_model(resolve("shape:tiny", print), TransformersSetup(dtype="float32"))
"""

from __future__ import annotations

from typing import Any

from playground.models.model import ResolvedModel
from playground.techniques.setup import TransformersSetup


def load_model(resolved: ResolvedModel, setup: TransformersSetup) -> Any:
    """The transformers model, before `setup.changes`."""
    import torch

    from playground.models.weights import build_random, load_pretrained

    dtype = getattr(torch, setup.dtype)
    if setup.gguf_blocks:
        from playground.engines.decode.gguf import load_blocks

        return load_blocks(resolved, dtype, setup.device, **setup.load)
    build = build_random if resolved.random_weights else load_pretrained
    return build(resolved.folder, dtype, setup.device, **setup.load)
