"""Train a LoRA adapter on a text, and say what it did to perplexity: on the part of the text that it did not see, and on other text.

`make` runs in a process of `run.making`; `AdapterJob` is what it is asked for and needs no torch. The result is made:NAME, a PEFT folder
with its provenance; a training that was stopped or failed leaves nothing. Example::

    job = AdapterJob("logbook", text, steps=30, rank=8)
    for event in making.make(MODULE, job.to_dict(), cancel=threading.Event()): ...
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from playground.core.knobs import Range
from playground.core.making import Made
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.measure.machine import probe
from playground.models.made import PREFIX, check_room, making
from playground.models.resolve import resolve
from playground.models.tokenizer import load_tokenizer
from playground.run.recipes import Recipe, Table
from playground.run.training import Check, Emit, Pace, faster_dtype, perplexities, tell, text_loss, train
from playground.run.training_job import TITLES, TrainingJob, asked, device_of, material_of, stoppable, told, training_knobs, within
from playground.techniques.quantization import comes_quantized

MODULE = __name__
# gptqmodel 7.7: kernels for inference have no gradient, and a layer that computed once without one keeps to them.
UNTRAINABLE = ("gptq", "awq")


@dataclass(frozen=True)
class AdapterJob(TrainingJob):
    """What to train: an adapter of `rank` for the base `model`."""

    rank: int = 8

    def check(self) -> None:
        """Raises Problem("user") for what cannot be trained, as far as it shows without the model."""
        super().check()
        within("rank", self.rank, 1, 512)


def make(job: Mapping[str, Any], emit: Emit, check: Check) -> None:
    """Train and keep one adapter. Raises Problem with what is wrong with the job, and whatever `check` raises.

    Emits Phase, Progress, Score (perplexities by text, before and after), TrainStep and, at the end, Made.
    """
    import torch

    wanted = AdapterJob(**job)
    wanted.check()
    machine, started = probe(), time.perf_counter()
    device = device_of(wanted, machine)
    tell(emit, "load", wanted.model)
    resolved = resolve(wanted.model, stoppable(emit, check))
    if (method := comes_quantized(resolved.config)) in UNTRAINABLE:
        why = f"{wanted.model} comes quantized ({method}), in layers that no gradient goes through"
        raise Problem("user", f"{why}: train on the model that it was made from, and use the adapter beside this one.")
    material = material_of(wanted, load_tokenizer(resolved))
    check()
    torch.manual_seed(wanted.seed)
    dtype = faster_dtype(device)
    model, config = _with_adapter(wanted, resolved, dtype, device)
    check_room(sum(parameter.numel() * 4 for parameter in model.parameters() if parameter.requires_grad))
    before = perplexities(model, dtype, material, emit, check, "before training")
    begun = time.perf_counter()
    pace = Pace(wanted.steps, wanted.learning_rate, wanted.seed)
    losses = train(model, partial(text_loss, model, dtype), material, pace, emit, check)
    trained_s = time.perf_counter() - begun
    after = perplexities(model, dtype, material, emit, check, "after training")
    tell(emit, "save", wanted.name)
    facts = {
        "kind": "adapter",
        **asked(wanted, material),
        "base": {"model": wanted.model, "source": resolved.source},
        "targets": sorted(config.target_modules),
        "alpha": config.lora_alpha,
        "losses": losses,
        "perplexity": {name: {"before": before[name], "after": after[name]} for name in before},
        "training_s": trained_s,
        "seconds": time.perf_counter() - started,
        "dtype": dtype,
        "device": device,
        "machine": told(machine),
    }
    with making(wanted.name, facts) as folder:
        _save(model, config, folder)
        check()
    emit(Made(time.perf_counter_ns(), f"{PREFIX}{wanted.name}", facts))


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
    found = facts["perplexity"].items()
    rows = tuple((f"Perplexity of {TITLES.get(name, name)}", "", (values["before"], values["after"])) for name, values in found)
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
        *training_knobs(AdapterJob),
        Range("rank", "Rank", 1, 512, 1, AdapterJob.rank, "Of the two matrices that each layer gets: more can learn more."),
    ),
    model_label="the base",
    text=ASSETS / "training" / "logbook.txt",
    use="Use it with --set adapter={name}",
    table=_table,
    compared=_compared,
)
