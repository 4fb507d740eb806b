"""Train a LoRA adapter on a text, and say what it did to perplexity: on the part of the text that it did not see, and on other text.

`make` runs in a process of `run.making`; `AdapterJob` is what it is asked for and needs no torch. The result is made:NAME, a PEFT folder
with its provenance; a training that was stopped or failed leaves nothing. Example::

    job = AdapterJob("logbook", text, steps=30, rank=8)
    for event in making.make(MODULE, job.to_dict(), cancel=threading.Event()): ...
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from playground.core.events import Progress
from playground.core.knobs import Range
from playground.core.machine import Machine
from playground.core.making import Made
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL, RunSpec
from playground.measure.agreement import common_prefix
from playground.measure.evaluation import evaluation_text
from playground.measure.machine import probe, provenance
from playground.models.made import PREFIX, check_name, check_room, making
from playground.models.resolve import resolve
from playground.models.tokenizer import Tokenizer, load_tokenizer
from playground.run.recipes import Recipe, Table
from playground.run.training import (
    ROWS,
    SCORED_TOKENS,
    SCORED_WINDOW,
    WINDOW,
    Check,
    Emit,
    Material,
    Pace,
    faster_dtype,
    perplexities,
    tell,
    train,
)

LEAST_HELD_OUT = 32
MODULE = __name__
TOLD = ("cpu", "cores", "gpu", "versions", "playground", "started_at")  # what a provenance keeps of the machine


@dataclass(frozen=True)
class AdapterJob:
    """What to train. `steps` of 256 tokens each; `held_out`: share of the text, from its end, that is not learned from; `device`: auto, cpu
    or cuda."""

    name: str
    text: str
    model: str = DEFAULT_MODEL
    steps: int = 30
    rank: int = 8
    learning_rate: float = 2e-3
    held_out: float = 0.15
    seed: int = 0
    device: str = "auto"

    def check(self) -> None:
        """Raises Problem("user") for what cannot be trained, as far as it shows without the model."""
        check_name(self.name)
        _within("steps", self.steps, 1, 100_000)
        _within("rank", self.rank, 1, 512)
        _within("learning rate", self.learning_rate, 1e-6, 1.0)
        _within("held-out share", self.held_out, 0.01, 0.5)
        if not self.text.strip():
            raise Problem("user", "There is no text to learn from: give some pages of it.")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def make(job: Mapping[str, Any], emit: Emit, check: Check) -> None:
    """Train and keep one adapter. Raises Problem with what is wrong with the job, and whatever `check` raises.

    Emits Phase, Progress, Score (perplexities by text, before and after), TrainStep and, at the end, Made.
    """
    import torch

    wanted = AdapterJob(**job)
    wanted.check()
    machine, started = probe(), time.perf_counter()
    device = machine.resolve(wanted.device)
    if device == "cuda" and machine.device != "cuda":
        raise Problem("unsupported", f"No CUDA device: {machine.no_cuda or 'none was found'}.")
    tell(emit, "load", wanted.model)
    resolved = resolve(wanted.model, _stoppable(emit, check))
    material = material_of(wanted, load_tokenizer(resolved))
    check()
    torch.manual_seed(wanted.seed)
    dtype = faster_dtype(device)
    model, config = _with_adapter(wanted, resolved, dtype, device)
    check_room(sum(parameter.numel() * 4 for parameter in model.parameters() if parameter.requires_grad))
    before = perplexities(model, material, emit, check, "before training")
    begun = time.perf_counter()
    losses = train(model, material, Pace(wanted.steps, wanted.learning_rate, wanted.seed), emit, check)
    trained_s = time.perf_counter() - begun
    after = perplexities(model, material, emit, check, "after training")
    tell(emit, "save", wanted.name)
    facts = {
        **_asked(wanted, material),
        "base": {"model": wanted.model, "source": resolved.source},
        "targets": sorted(config.target_modules),
        "alpha": config.lora_alpha,
        "losses": losses,
        "perplexity": {name: {"before": before[name], "after": after[name]} for name in before},
        "training_s": trained_s,
        "seconds": time.perf_counter() - started,
        "dtype": dtype,
        "device": device,
        "machine": _told(machine),
    }
    with making(wanted.name, facts) as folder:
        _save(model, config, folder)
        check()
    emit(Made(time.perf_counter_ns(), f"{PREFIX}{wanted.name}", facts))


def material_of(job: AdapterJob, tokenizer: Tokenizer) -> Material:
    """The text in tokens, cut in two; raises Problem("user") where either part is too short."""
    ids, nothing = tokenizer.encode(job.text), tokenizer.encode("")
    head = ids[: common_prefix(ids, nothing)]
    body = ids[len(head) :]
    cut = len(body) - round(len(body) * job.held_out)
    if cut <= WINDOW or len(body) - cut < LEAST_HELD_OUT:
        parts = f"{cut:,} to learn from and {len(body) - cut:,} to be tested on"
        least = f"at least {WINDOW + 1} and {LEAST_HELD_OUT} are needed"
        raise Problem("user", f"The text is too short: its {len(body):,} tokens are {parts}, and {least}. Give a longer text.")
    others = {name: tokenizer.encode(evaluation_text(name))[len(head) :] for name in ("english", "chinese")}
    return Material(head, body[:cut], body[cut:], others)


def _within(what: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise Problem("user", f"The number for {what} must be between {least:,g} and {most:,g}, got {value:,g}.")


def _stoppable(emit: Emit, check: Check) -> Callable[[Progress], None]:
    def told(event: Progress) -> None:
        check()
        emit(event)

    return told


def _with_adapter(job: AdapterJob, resolved: Any, dtype: str, device: str) -> tuple[Any, Any]:
    """The model with a fresh adapter on all its linear layers, whose numbers are float32 and alone are trained; and the peft config."""
    import torch
    from peft import LoraConfig, LoraModel

    from playground.models.weights import build_random, load_pretrained

    build = build_random if resolved.random_weights else load_pretrained
    model = build(resolved.folder, getattr(torch, dtype), device)
    settings: dict[str, Any] = {"target_modules": "all-linear", "task_type": "CAUSAL_LM", "base_model_name_or_path": job.model}
    config = LoraConfig(r=job.rank, lora_alpha=2 * job.rank, **settings)
    LoraModel(model, config, "default")
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model, config


def _asked(job: AdapterJob, material: Material) -> dict[str, Any]:
    """What the provenance says of the job and its text."""
    text = {
        "sha256": hashlib.sha256(job.text.encode()).hexdigest(),
        "characters": len(job.text),
        "learned_tokens": len(material.learned),
        "held_out_tokens": len(material.held_out),
        "scored": f"windows of {SCORED_WINDOW} tokens without overlap, at most {SCORED_TOKENS} tokens of a text",
    }
    fields = {name: getattr(job, name) for name in ("steps", "rank", "learning_rate", "held_out", "seed")}
    return {"kind": "adapter", "name": job.name, "text": text, "tokens_a_step": WINDOW * ROWS, **fields}


def _told(machine: Machine) -> dict[str, Any]:
    return {name: value for name, value in provenance(machine).items() if name in TOLD}


def _save(model: Any, config: Any, folder: Path) -> None:
    """adapter_model.safetensors, in float16, and adapter_config.json, as peft writes and reads them."""
    import torch
    from safetensors.torch import save

    own = {name: parameter for name, parameter in model.named_parameters() if ".lora_" in name}
    tensors = {f"base_model.model.{name.replace('.default.', '.')}": value.detach().cpu().to(torch.float16) for name, value in own.items()}
    (folder / "adapter_model.safetensors").write_bytes(save(tensors, {"format": "pt"}))
    config.inference_mode = True
    config.save_pretrained(str(folder))


def _table(facts: Mapping[str, Any]) -> Table:
    """Perplexity of each text before and after."""
    titles = {"held-out": "your text, held out", "english": "other English text", "chinese": "other Chinese text"}
    found = facts["perplexity"].items()
    rows = tuple((f"Perplexity of {titles.get(name, name)}", "", (values["before"], values["after"])) for name, values in found)
    return Table(("before", "after"), rows)


def _compared(facts: Mapping[str, Any]) -> list[RunSpec]:
    """The base, and the base with the adapter, which starts like the text."""
    base = RunSpec(model=facts["base"]["model"])
    return [base, base.replace(knobs={"adapter": f"{PREFIX}{facts['name']}"})]


RECIPE = Recipe(
    name="adapt",
    kind="adapter",
    title="An adapter (LoRA)",
    about="train a LoRA adapter on a text, to be used as --set adapter=made:NAME",
    order=10,
    module=MODULE,
    job=AdapterJob,
    knobs=(
        Range("steps", "Steps", 1, 100_000, 1, AdapterJob.steps, f"Steps of {WINDOW * ROWS} tokens each."),
        Range("rank", "Rank", 1, 512, 1, AdapterJob.rank, "Of the two matrices that each layer gets: more can learn more."),
        Range("learning_rate", "Learning rate", 1e-6, 1.0, 1e-4, AdapterJob.learning_rate, "At its highest."),
        Range("held_out", "Held out", 0.01, 0.5, 0.01, AdapterJob.held_out, "Share of the text, from its end, to be tested on."),
        Range("seed", "Seed", 0, 2**31, 1, AdapterJob.seed, "Of the first numbers and of the order of the text."),
    ),
    model_label="the base",
    text=ASSETS / "training" / "logbook.txt",
    use="Use it with --set adapter={name}",
    table=_table,
    compared=_compared,
)
