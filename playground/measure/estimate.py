"""What a model will take in memory before it is loaded: parameters from its config, the KV cache by formula, activations roughly.

Pure arithmetic on a Hugging Face config. Example::

    parameters({"model_type": "llama", "hidden_size": 2048, ...}).total
    estimate(config, Footprint(weight_bits=16, kv_bits=16), prompt_tokens=100, new_tokens=64).total_bytes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from playground.core.problem import Problem
from playground.core.technique import GGUF_BITS, Footprint, away_layers, kept_layers, kept_width
from playground.measure.buckets import bucket
from playground.measure.checkpoint import SCALE_BITS, packed_bits

KNOWN_TYPES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
# Where config.json leaves tie_word_embeddings out, these types tie; all others do not.
_TIED_BY_DEFAULT = ("smollm3", "gemma", "gemma2", "gemma3", "gemma3_text")


@dataclass(frozen=True)
class ParameterCount:
    """Numbers, not bytes. `linear`: weights of the decoder's linear layers; `head`: 0 where it is tied to the embedding; `norm`: norms and
    biases; `note`: what the count assumes, "" for a known architecture."""

    embedding: int
    linear: int
    head: int
    norm: int
    total: int
    note: str = ""


@dataclass(frozen=True)
class Estimate:
    """Bytes. `total_bytes`: on the device; `kv_host_bytes`: what of the KV cache lies in host memory beside it; `note`: what the estimate
    assumes where it had to guess."""

    weights_bytes: int
    kv_cache_bytes: int
    activation_bytes: int
    total_bytes: int
    note: str = ""
    kv_host_bytes: int = 0


@dataclass(frozen=True)
class Shape:
    """The numbers of a decoder that sizes follow from; `config`: the decoder's own part of a config."""

    model_type: str
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    config: Mapping[str, Any]


def parameters(config: Mapping[str, Any]) -> ParameterCount:
    """Parameters of a decoder of the llama family (gated MLP, RMS norms, grouped-query attention).

    Raises Problem("model") where the config lacks a size.
    """
    shape = shape_of(config)
    options = shape.config
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention = shape.hidden * (q + 2 * kv) + q * shape.hidden
    linear = shape.layers * (attention + 3 * shape.hidden * shape.intermediate)
    small = 2 * shape.hidden
    if shape.model_type == "qwen2":
        small += q + 2 * kv
    elif options.get("attention_bias"):
        small += q + 2 * kv + shape.hidden
    if shape.model_type == "qwen3":
        small += 2 * shape.head_dim
    if options.get("mlp_bias"):
        small += 2 * shape.intermediate + shape.hidden
    norm = shape.layers * small + shape.hidden
    embedding = shape.vocabulary * shape.hidden
    tied = options.get("tie_word_embeddings", config.get("tie_word_embeddings"))
    head = 0 if (shape.model_type in _TIED_BY_DEFAULT if tied is None else tied) else embedding
    return ParameterCount(embedding, linear, head, norm, embedding + linear + head + norm, _note(shape))


def kv_bytes_per_token(config: Mapping[str, Any], bytes_per_number: float) -> float:
    """Keys and values of one token of one row in all layers: 2 x layers x KV heads x head size x bytes a number."""
    shape = shape_of(config)
    return 2 * shape.layers * shape.kv_heads * shape.head_dim * bytes_per_number


def estimate(config: Mapping[str, Any], footprint: Footprint, prompt_tokens: int, new_tokens: int) -> Estimate:
    """Memory of a run with prompts of `prompt_tokens` and `new_tokens` of output in each of `footprint.rows` rows.

    Activations are the peak of one forward pass, in the precision of the weights: for each token of each row of one layer, eight vectors of
    the hidden size (residual, norm, queries, keys, values, attention output and their copies) and two of the MLP's, plus one float32 row
    of logits a sequence. The pass is the prompt; without a KV cache it is the whole text. A stored score matrix adds rows x heads x
    tokens^2 numbers in that precision and in float32 (softmax); where layers are kept elsewhere, one of them is there while it runs.
    Not counted: the runtime itself (a CUDA context takes some hundred MB), scratch space of kernels, and fragments. Raises
    Problem("model") where the config lacks a size.
    """
    config = reduced(config, footprint)
    shape, count = shape_of(config), parameters(config)
    bits = footprint.weight_bits
    away = away_layers(shape.layers, footprint.away_share) / shape.layers
    linear = count.linear * linear_bits(config, footprint)
    weights = ((count.total - count.linear - count.head) * bits + linear * (1 - away) + count.head * footprint.bits_of_head) / 8
    tokens = prompt_tokens + new_tokens
    held = tokens_allocated(footprint, tokens)
    whole = max(new_tokens - 1, 0) % footprint.kv_residual if footprint.kv_residual else 0  # a prompt is packed at once
    mean_bits = ((held - whole) * footprint.kv_bits + whole * (footprint.kv_unpacked_bits or 0)) / held
    kv = kv_bytes_per_token(config, mean_bits / 8) * held * footprint.rows * footprint.kv_share
    on_host = round(kv * max(1 - 2 / shape.layers, 0)) if footprint.kv_offloaded else 0  # but for a layer and the next
    width = bits / 8
    at_once = prompt_tokens if footprint.kv_share else tokens
    activations = footprint.rows * at_once * (8 * shape.hidden + 2 * shape.intermediate) * width + footprint.rows * shape.vocabulary * 4
    if away:
        activations += linear / 8 / shape.layers
    if footprint.score_matrix:
        activations += footprint.rows * shape.heads * at_once**2 * (width + 4)
    total = round(weights) + round(kv) - on_host + round(activations)
    return Estimate(round(weights), round(kv), round(activations), total, count.note, on_host)


def linear_bits(config: Mapping[str, Any], footprint: Footprint) -> float:
    """Bits of a weight of the decoder's linear layers: those of the knobs, else those in which the checkpoint came."""
    if footprint.in_blocks and config.get(GGUF_BITS):
        return float(config[GGUF_BITS])
    if footprint.linear_bits is not None:
        return footprint.linear_bits + _smaller_groups(shape_of(config), footprint.linear_groups)
    return packed_bits(config) or footprint.weight_bits


def _smaller_groups(shape: Shape, groups: Sequence[int]) -> float:
    """Mean bits that scales take beyond those of the first of `groups`: where it does not divide a layer's columns, a smaller one does."""
    if not groups:
        return 0.0
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    weights = {shape.hidden: shape.hidden * (q + 2 * kv + 2 * shape.intermediate)}  # by columns
    for columns in (q, shape.intermediate):
        weights[columns] = weights.get(columns, 0) + columns * shape.hidden
    used = {columns: next((group for group in groups if columns % group == 0), groups[0]) for columns in weights}
    more = sum(count * SCALE_BITS * (1 / used[columns] - 1 / groups[0]) for columns, count in weights.items())
    return more / sum(weights.values())


def together(first: Estimate, second: Estimate) -> Estimate:
    """Of two models that run in turn: the weights and caches of both, and the larger one's activations."""
    weights, kv = first.weights_bytes + second.weights_bytes, first.kv_cache_bytes + second.kv_cache_bytes
    activations, on_host = max(first.activation_bytes, second.activation_bytes), first.kv_host_bytes + second.kv_host_bytes
    notes = " ".join(dict.fromkeys(filter(None, (first.note, second.note))))
    return Estimate(weights, kv, activations, weights + kv - on_host + activations, notes, on_host)


def lora_numbers(config: Mapping[str, Any], rank: int) -> int:
    """Numbers of a LoRA adapter of that rank on all linear layers of the decoder: rank x (inputs + outputs) each."""
    shape = shape_of(config)
    q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    sides = 2 * (shape.hidden + q) + 2 * (shape.hidden + kv) + 3 * (shape.hidden + shape.intermediate)
    return shape.layers * rank * sides


def reduced(config: Mapping[str, Any], footprint: Footprint) -> Mapping[str, Any]:
    """`config` of the model that is left where `footprint` says that layers or intermediate channels are taken away."""
    if footprint.layers_share == footprint.mlp_share == 1:
        return config
    shape = shape_of(config)
    layers, width = kept_layers(shape.layers, footprint.layers_share), kept_width(shape.intermediate, footprint.mlp_share)
    return {**config, "text_config": None, **shape.config, "num_hidden_layers": max(layers, 1), "intermediate_size": max(width, 1)}


def tokens_allocated(footprint: Footprint, tokens: int) -> int:
    """Room for this many tokens a row, the last of which is never fed back, in a cache that is allocated once; no more than a window."""
    tokens = bucket(tokens - 1) if footprint.kv_bucketed else tokens
    return min(tokens, footprint.kv_window or tokens)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape of a Hugging Face config; raises Problem("model") where it lacks a size."""
    nested = config.get("text_config")
    text = nested if isinstance(nested, Mapping) else config

    def size(name: str) -> int:
        value = text.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise Problem("model", f"The size of this model cannot be estimated: its config has no {name}.")
        return value

    heads = size("num_attention_heads")
    hidden = size("hidden_size")
    return Shape(
        model_type=str(text.get("model_type", "")),
        layers=size("num_hidden_layers"),
        hidden=hidden,
        intermediate=size("intermediate_size"),
        heads=heads,
        kv_heads=size("num_key_value_heads") if text.get("num_key_value_heads") is not None else heads,
        head_dim=size("head_dim") if text.get("head_dim") is not None else hidden // heads,
        vocabulary=size("vocab_size"),
        config=text,
    )


def _note(shape: Shape) -> str:
    if any(shape.config.get(name) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        return "This model has several experts a layer and the estimate counts one: it will take more."
    if shape.model_type in KNOWN_TYPES:
        return ""
    return f"The architecture {shape.model_type or 'of this model'} is not known here: counted as a llama of the same sizes."
