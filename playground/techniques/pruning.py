"""Pruning: take weights, layers or intermediate channels away from the loaded model, without training it again.

What is taken is decided after loading and before weights are packed (`order`); `techniques.pruned_model` does the work. Example::

    python -m playground run --set prune=layers --set prune_share=0.2
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from playground.core.knobs import Choice, Range
from playground.core.machine import Machine
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.technique import Effect, Explanation, Finding, Footprint, Knobs, Technique, flipped, kept_layers, kept_width
from playground.techniques.pruned_model import (
    keep_layers,
    narrow_mlps,
    parameter_count,
    two_of_four,
    zero_smallest,
    zeros,
)
from playground.techniques.quantization import linear_layers, refuse_quantized
from playground.techniques.setup import TransformersSetup

BY_SHARE = ("magnitude", "layers", "mlp_width")
BY_WEIGHT = ("magnitude", "two_four")
TOKENS = 256  # of the end of the product's English text, on which layers and channels are judged; quality is scored on its beginning
SPARSE = "SparseSemiStructuredTensor"  # how torch's classes of 2:4 matrices begin
AMPERE = (8, 0)
ABOUT = 0.001  # by which a share of zeros may miss: each matrix has a whole number of them


class Pruning(Technique):
    """Zeros in place, 2:4 zeros that a GPU skips, fewer layers, or narrower MLPs."""

    name = "pruning"
    title = "Pruning"
    group = "Structure"
    order = 22  # on the loaded model, before weight_only and torchao pack its weights
    phase = "load"
    knobs = (
        Choice(
            "prune",
            "Prune",
            ("none", "magnitude", "two_four", "layers", "mlp_width"),
            "none",
            "What is taken away: small weights, two of each four weights, whole layers, or channels of the MLPs.",
        ),
        Range("prune_share", "Share pruned", 0.0, 1.0, 0.05, 0.25, "Share of the weights, layers or MLP channels that is taken away."),
    )
    explain = Explanation(
        what="magnitude sets the smallest weights of each linear layer to zero; two_four keeps the two largest of each four and stores "
        "only those; layers takes whole decoder layers out, those that change their input least (cosine similarity on a text of ours); "
        "mlp_width takes out the intermediate channels that add least, so that three matrices of each layer are really smaller.",
        helps="Fewer layers and narrower MLPs are fewer bytes and less work on every device, and fewer layers are a smaller KV cache and "
        "fewer kernels too. two_four nearly halves the memory of the linear layers on a GPU of compute capability 8.0 or more.",
        costs="Output quality, and much of it, since nothing is trained afterwards: a small model loses its facts within a few layers. "
        "Zeros of magnitude save nothing: they are stored and multiplied like any other number, as dense kernels do not look for them. "
        "For two_four PyTorch plans every product anew on the host, so that decoding takes several times as long as with dense kernels.",
    )
    cases = (
        {"prune": "magnitude", "prune_share": 0.3},
        {"prune": "two_four", "precision": "bf16"},
        {"prune": "layers", "prune_share": 0.5},
        {"prune": "mlp_width", "prune_share": 0.5},
    )

    def requires(self, knobs: Knobs, machine: Machine, device: str) -> str | None:
        """2:4 products are instructions of tensor cores since Ampere."""
        if knobs["prune"] != "two_four":
            return None
        if device == "cpu":
            return "two_four needs a GPU of CUDA compute capability 8.0: no CPU multiplies 2:4 matrices. Choose magnitude to see its zeros."
        if machine.gpus and machine.gpus[0].capability < AMPERE:
            major, minor = machine.gpus[0].capability
            return f"two_four needs CUDA compute capability 8.0; {machine.gpus[0].name} has {major}.{minor}. Choose layers or mlp_width."
        return None

    def conflicts(self, knobs: Knobs) -> str | None:
        """A share that leaves something, and weights that are not packed yet."""
        kind = str(knobs["prune"])
        if kind in BY_SHARE and not 0 < float(knobs["prune_share"]) < 1:
            left = "takes nothing away" if float(knobs["prune_share"]) == 0 else "leaves nothing of the model"
            return f"prune_share {float(knobs['prune_share']):g} {left}. Give a share between 0 and 1, or set prune to none."
        if kind != "none" and knobs["adapter"]:
            return "An adapter corrects the layers that it was trained with, and pruning changes those. Leave one of the two out."
        if kind in (*BY_WEIGHT, "mlp_width") and knobs["quantization"] != "none":
            return (
                f"Pruning by {kind} and quantization {knobs['quantization']} exclude each other: bitsandbytes packs the weights while it "
                "loads them, before any can be taken away. Set quantization to none, or prune to layers."
            )
        packer = next((f"{name} {knobs[name]}" for name in ("weight_only", "torchao") if knobs[name] != "none"), None)
        if kind in BY_WEIGHT and packer:
            return (
                f"Pruning by {kind} and {packer} exclude each other: packed weights are multiplied by kernels that skip no zeros. Set one "
                "of them to none, or prune to layers or mlp_width."
            )
        if kind == "two_four" and knobs["precision"] == "fp32":
            return "two_four and fp32 exclude each other: sparse tensor cores take 16-bit numbers. Set precision to bf16 or fp16."
        return None

    def irrelevant(self, knobs: Knobs) -> Mapping[str, str]:
        """two_four has its share in its name."""
        if knobs["prune"] == "none":
            return {"prune_share": "nothing is pruned."}
        return {"prune_share": "two_four always takes half."} if knobs["prune"] == "two_four" else {}

    def expect(self, knobs: Knobs, baseline: Knobs) -> Mapping[str, Effect]:
        """Smaller matrices and fewer layers are fewer bytes and less time; zeros in dense matrices are neither; the output changes.
        two_four's steps wait for the host: cuSPARSELt's products took 0.5 to 0.8 ms of it on an H200's, dense ones 0.02 (torch 2.11)."""
        same = _layers_left(knobs) == _layers_left(baseline) and _share(knobs) == _share(baseline)
        if same and knobs["prune"] == baseline["prune"]:
            return {}
        changed: dict[str, Effect] = {"kld_mean": "up", "top1_agreement": "down"}
        effect = _compared(_linear_left(knobs), _linear_left(baseline))
        if {knobs["prune"], baseline["prune"]} <= {"layers", "mlp_width", "two_four"} and knobs["prune"] != baseline["prune"]:
            return changed  # which of the two is smaller depends on the model
        kv = _compared(_layers_left(knobs), _layers_left(baseline))
        step: dict[str, Effect] = {"itl_s": effect}
        if "two_four" in (knobs["prune"], baseline["prune"]):
            step = flipped(step)
        return {"weights_bytes": effect, **step, "kv_cache_bytes": kv, **changed}

    def footprint(self, knobs: Knobs, footprint: Footprint) -> Footprint:
        """Layers and channels that are left; of 2:4 matrices half of the numbers, each with 2 bits that say where it stood."""
        left = 1 - _share(knobs)
        if knobs["prune"] == "layers":
            return replace(footprint, layers_share=left)
        if knobs["prune"] == "mlp_width":
            return replace(footprint, mlp_share=left)
        return replace(footprint, linear_bits=footprint.weight_bits / 2 + 1) if knobs["prune"] == "two_four" else footprint

    def for_transformers(self, knobs: Knobs, setup: TransformersSetup) -> None:
        """A change of the loaded model, or a Problem where this model has too little for the share."""
        kind, share = str(knobs["prune"]), _share(knobs)
        if kind == "none":
            return
        if kind != "layers":
            refuse_quantized(setup.config, f"pruning by {kind}")
        size = _size(setup.config, kind)
        left = _left(kind, size, share)
        unit = {"layers": "layers", "mlp_width": "MLP channels"}.get(kind, "weights")
        if size and not left:
            raise Problem("user", f"prune_share {share:g} leaves none of this model's {size:,} {unit}: give a smaller share.")
        if size and left == size:
            raise Problem("user", f"prune_share {share:g} takes none of this model's {size:,} {unit} away: give a larger share.")
        setup.changes.append(partial(_pruned, kind, share, setup))

    def evidence_for_transformers(self, knobs: Knobs, engine: Any) -> Finding:
        """Counts the layers, the channels and the zeros that the loaded model has, against its config.json."""
        kind, share = str(knobs["prune"]), _share(knobs)
        model, config = engine.model, engine.options.config
        layers, of_layers = len(model.get_decoder().layers), _size(config, "layers")
        widths, of_width = _widths(model), _size(config, "mlp_width")
        sparse = sum(_is_sparse(layer) for layer in linear_layers(model))
        whole = {"layers": layers == of_layers and _numbered(model), "width": widths <= {of_width}, "dense": not sparse}
        if kind == "layers":
            gone = ", ".join(str(index) for index in getattr(model.config.get_text_config(), "pruned_layers", ()))
            right = layers == _left(kind, of_layers, share) == model.config.get_text_config().num_hidden_layers and _numbered(model)
            return Finding(right, f"{layers} of {of_layers} layers are left" + (f", without {gone} (counted from 0)" if gone else ""))
        if kind == "mlp_width":
            right = widths == {_left(kind, of_width, share)}
            return Finding(right, f"{_span(widths)} of {of_width:,} MLP channels are left in each of {layers} layers")
        if kind == "none":
            return Finding(
                all(whole.values()), f"{layers} of {of_layers} layers and {_span(widths)} of {of_width:,} MLP channels are there"
            )
        found, of, text = _zero_text(model)
        if kind == "two_four":
            linears = len(linear_layers(model))
            return Finding(sparse == linears > 0, f"{sparse} of {linears} linear layers are 2:4 sparse; {text}")
        return Finding(of > 0 and found / of >= share - ABOUT, f"{text}, in dense matrices as large as before")

    def counts_for_transformers(self, knobs: Knobs, engine: Any) -> Mapping[str, float]:
        """What the loaded model has, pruned or not; no zeros where weights are packed."""
        model, widths = engine.model, _widths(engine.model)
        found, of, _ = _zero_text(model)
        counts = {"parameters": parameter_count(model), "decoder_layers": len(model.get_decoder().layers)}
        return {
            **counts,
            **({"mlp_width": next(iter(widths))} if len(widths) == 1 else {}),
            **({"weights_zero_share": found / of} if of else {}),
        }

    def refuses_graph(self, knobs: Knobs, device: str) -> str | None:
        """Joined layers and their kernels take whole matrices."""
        if knobs["prune"] == "two_four":
            return "two_four has no kernels here: the engine graph's own take dense matrices. Choose layers or mlp_width, or transformers."
        return None


def _pruned(kind: str, share: float, setup: TransformersSetup, model: Any) -> Any:
    """The loaded model, changed in place."""
    decoder = [layer for layer in linear_layers(model) if kind in BY_WEIGHT]
    if any(layer.weight.is_meta for layer in decoder):
        raise Problem("unsupported", "Weights that are not in memory cannot be pruned by size: prune layers, or load the whole model.")
    for layer in decoder:
        if kind == "magnitude":
            zero_smallest(layer.weight, share)
        else:
            _make_sparse(layer)
    ids = judging_text(setup.tokenizer, setup.load.get("held_on", setup.device))
    if kind == "layers":
        keep_layers(model, ids, kept_layers(len(model.get_decoder().layers), 1 - share))
    if kind == "mlp_width":
        narrow_mlps(model, ids, _left(kind, _size(setup.config, kind), share))
    return model


def _make_sparse(layer: Any) -> None:
    import torch

    try:
        layer.weight = torch.nn.Parameter(torch.sparse.to_sparse_semi_structured(two_of_four(layer.weight)), requires_grad=False)
    except RuntimeError as error:  # torch's own words say which sizes it takes
        rows, columns = layer.weight.shape
        raise Problem("unsupported", f"This GPU cannot hold a matrix of {rows} x {columns} as 2:4 sparse: {error}") from error


def judging_text(tokenizer: Any, device: str) -> Any:
    """Token ids [tokens] of the end of the product's English text, on which layers and channels are judged."""
    import torch

    text = (ASSETS / "eval" / "english.txt").read_text(encoding="utf-8")
    head, ids = tokenizer.encode(""), tokenizer.encode(text)
    return torch.tensor([*head, *ids[-TOKENS:]], device=device)


def _share(knobs: Knobs) -> float:
    """Share taken away of what the kind of pruning counts."""
    return {"none": 0.0, "two_four": 0.5}.get(str(knobs["prune"]), float(knobs["prune_share"]))


def _layers_left(knobs: Knobs) -> float:
    return 1 - _share(knobs) if knobs["prune"] == "layers" else 1.0


def _linear_left(knobs: Knobs) -> float:
    """Roughly, to compare: of what linear layers hold."""
    return 1.0 if knobs["prune"] == "magnitude" else 1 - _share(knobs)


def _compared(now: float, before: float) -> Effect:
    return "same" if now == before else "down" if now < before else "up"


def _size(config: Mapping[str, Any], kind: str) -> int:
    """Layers or intermediate channels by config.json; 0 where it does not say, or weights are meant."""
    text = config.get("text_config") or config
    return int(text.get({"layers": "num_hidden_layers", "mlp_width": "intermediate_size"}.get(kind, ""), 0) or 0)


def _left(kind: str, size: int, share: float) -> int:
    return kept_width(size, 1 - share) if kind == "mlp_width" else kept_layers(size, 1 - share)


def _widths(model: Any) -> set[int]:
    """Inputs of the down projections; empty for an architecture without."""
    downs: list[Any] = [getattr(getattr(layer, "mlp", None), "down_proj", None) for layer in model.get_decoder().layers]
    return {int(down.in_features) for down in downs if hasattr(down, "in_features")}


def _numbered(model: Any) -> bool:
    """Whether each layer has its own place in a KV cache: 0, 1, 2 and so on; in the engine graph all have number 0 and their own slots."""
    numbers = [getattr(getattr(layer, "self_attn", None), "layer_idx", index) for index, layer in enumerate(model.get_decoder().layers)]
    return numbers in (list(range(len(numbers))), [0] * len(numbers))


def _zero_text(model: Any) -> tuple[int, int, str]:
    layers = linear_layers(model)
    found, of = zeros(layer.weight.to_dense() if _is_sparse(layer) else getattr(layer, "weight", None) for layer in layers)
    share = f"{100 * found / of:.1f} %" if of else "an unknown share"
    return found, of, f"{share} of {of / 1e6:{',.0f' if of >= 1e8 else '.3g'}} M weights of {len(layers)} linear layers are zero"


def _is_sparse(layer: Any) -> bool:
    return type(getattr(layer, "weight", None)).__name__.startswith(SPARSE)


def _span(widths: set[int]) -> str:
    return " to ".join(f"{width:,}" for width in sorted({min(widths), max(widths)})) if widths else "0"


TECHNIQUE = Pruning()
