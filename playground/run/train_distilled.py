"""Distillation: teach a smaller model to say what a larger one says, and tell how far it is from it before and after.

The student is a copy of the teacher without the layers that change their input least, or another model with the same tokens. It learns on
windows of a text to make KL(teacher || student) over the full vocabulary small at every position. `make` runs in a process of
`run.making`; `DistilJob` is what it is asked for and needs no torch. The result is made:NAME, a whole model folder with its provenance; a
training that was stopped or failed leaves nothing. Example::

    job = DistilJob("pocket", text, keep_layers=24, steps=100)
    for event in making.make(MODULE, job.to_dict(), cancel=threading.Event()): ...
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from playground.core.knobs import Range, Text
from playground.core.making import Made
from playground.core.places import ASSETS
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.core.technique import kept_layers
from playground.engines.draft import same_tokens
from playground.measure.divergence import Divergence
from playground.measure.machine import probe
from playground.models.catalogue import find
from playground.models.made import PREFIX, check_room, making
from playground.models.model import ResolvedModel
from playground.models.resolve import resolve
from playground.models.tokenizer import Tokenizer, load_tokenizer
from playground.run.recipes import Recipe, Table
from playground.run.training import Check, Emit, Material, Pace, Rows, faster_dtype, logits, perplexities, scored_windows, tell, train
from playground.run.training_job import TITLES, TrainingJob, asked, device_of, material_of, stoppable, told, training_knobs, within
from playground.techniques.pruned_model import keep_layers, parameter_count
from playground.techniques.pruning import judging_text
from playground.techniques.quantization import comes_quantized

MODULE = __name__


@dataclass(frozen=True)
class DistilJob(TrainingJob):
    """Who teaches whom: `model` is the teacher. `student`: a model's name, or "" for a copy of the teacher with `keep_layers` of its
    layers: their number, or below 1 a share of them. `temperature`: by which the logits of both are divided before they are compared."""

    steps: int = 100
    learning_rate: float = 2e-4
    student: str = ""
    keep_layers: float = 0.8
    temperature: float = 1.0

    def check(self) -> None:
        """Raises Problem("user") for what cannot be distilled, as far as it shows without the models."""
        super().check()
        within("temperature", self.temperature, 0.1, 20)
        if self.student == self.model:
            raise Problem("user", f"{self.model} has nothing to learn from itself: name another student, or let it be a pruned copy.")
        if not self.student and not (0 < self.keep_layers < 1 or (self.keep_layers >= 1 and float(self.keep_layers).is_integer())):
            raise Problem("user", f"The layers to keep must be a whole number, or a share between 0 and 1, got {self.keep_layers:g}.")


@dataclass(frozen=True)
class _Pair:
    """The two models: where they are from, in torch, and in which dtype both multiply. `stored`: the dtype in which the student is kept."""

    teacher_at: ResolvedModel
    student_at: ResolvedModel
    teacher: Any
    student: Any
    dtype: str
    stored: str


def make(job: Mapping[str, Any], emit: Emit, check: Check) -> None:
    """Distil and keep one model. Raises Problem with what is wrong with the job, and whatever `check` raises.

    Emits Phase, Progress, Score (perplexities by text of the teacher, and of the student before and after), TrainStep and, at the end,
    Made.
    """
    import torch

    wanted = DistilJob(**job)
    wanted.check()
    machine, started = probe(), time.perf_counter()
    device = device_of(wanted, machine)
    tell(emit, "load", wanted.model)
    teacher_at = resolve(wanted.model, stoppable(emit, check))
    student_at = resolve(wanted.student, stoppable(emit, check)) if wanted.student else teacher_at
    tokenizer = _tokenizer(teacher_at, student_at)
    count = _layers_to_keep(wanted, teacher_at)
    material = material_of(wanted, tokenizer)
    check()
    torch.manual_seed(wanted.seed)
    pair = _loaded(teacher_at, student_at, tokenizer, count, device)
    check_room(_bytes(pair.student, pair.stored))
    compared = {"teacher": _figures(pair, pair.teacher, material, emit, check, "of the teacher")}
    what = "of the student before" if wanted.student else "of the pruned copy"
    compared["before"] = _figures(pair, pair.student, material, emit, check, what)
    begun = time.perf_counter()
    pace = Pace(wanted.steps, wanted.learning_rate, wanted.seed)
    losses = train(pair.student, partial(distance, pair.teacher, pair.student, pair.dtype, wanted.temperature), material, pace, emit, check)
    trained_s = time.perf_counter() - begun
    pair.student.to(getattr(torch, pair.stored))  # what is measured is what is kept
    compared["after"] = _figures(pair, pair.student, material, emit, check, "of the distilled model")
    facts = {
        "kind": "model",
        "source": _source(wanted, pair),
        **asked(wanted, material),
        **_origin(pair),
        "parameters": compared["after"]["parameters"],
        "losses": losses,
        "compared": compared,
        "training_s": trained_s,
        "seconds": time.perf_counter() - started,
        "dtype": pair.dtype,
        "device": device,
        "machine": told(machine),
    }
    _keep(wanted.name, facts, pair, tokenizer, emit, check)


def distance(teacher: Any, student: Any, dtype: str, temperature: float, rows: Rows) -> Any:
    """Mean KL(teacher || student) a position, in nats, times the temperature's square, which keeps the gradients' size (Hinton 2015)."""
    import torch

    with torch.no_grad():
        wanted = (logits(teacher, rows, dtype) / temperature).log_softmax(-1).flatten(0, 1)
    said = (logits(student, rows, dtype) / temperature).log_softmax(-1).flatten(0, 1)
    return torch.nn.functional.kl_div(said, wanted, log_target=True, reduction="batchmean") * temperature**2


def _tokenizer(teacher: ResolvedModel, student: ResolvedModel) -> Tokenizer:
    """The teacher's; raises Problem("user") where the student has other tokens, or numbers of its logits."""
    tokenizer = load_tokenizer(teacher)
    if student is not teacher:
        what = f"the student {student.name}"
        same_tokens(tokenizer, load_tokenizer(student), what, f"{teacher.name} can only teach tokens: a student cannot learn tokens")
        ours, theirs = (_text_config(one).get("vocab_size") for one in (teacher, student))
        if ours != theirs:
            raise Problem("user", f"{teacher.name} gives {ours} logits a token and {what} {theirs}, so they cannot be compared.")
    return tokenizer


def _text_config(resolved: ResolvedModel) -> Mapping[str, Any]:
    found: Mapping[str, Any] = resolved.config.get("text_config") or resolved.config
    return found


def _layers_to_keep(job: DistilJob, teacher: ResolvedModel) -> int:
    """How many layers of the teacher the pruned copy has, 0 for another student; raises Problem("user") for none and for all."""
    if job.student:
        return 0
    layers = int(_text_config(teacher).get("num_hidden_layers", 0))
    count = kept_layers(layers, job.keep_layers) if job.keep_layers < 1 else int(job.keep_layers)
    if not 0 < count < layers:
        raise Problem("user", f"{teacher.name} has {layers} layers, so a pruned copy keeps 1 to {layers - 1} of them, got {count}.")
    return count


def _loaded(teacher_at: ResolvedModel, student_at: ResolvedModel, tokenizer: Tokenizer, count: int, device: str) -> _Pair:
    import torch

    from playground.models.weights import build_random, load_pretrained

    def load(resolved: ResolvedModel, dtype: str) -> Any:
        build = build_random if resolved.random_weights else load_pretrained
        return build(resolved.folder, getattr(torch, dtype), device)

    if method := comes_quantized(student_at.config):
        raise Problem(
            "user", f"{student_at.name} comes quantized ({method}), and only plain weights can be trained: choose another student."
        )
    dtype = faster_dtype(device)
    teacher, student = load(teacher_at, dtype), load(student_at, "float32")  # steps are too small for bfloat16 weights
    if count:
        keep_layers(student, judging_text(tokenizer, device), count)
    student.requires_grad_(True)
    student.get_input_embeddings().weight.requires_grad_(False)  # and the output head where it is the same
    stored = str(student_at.config.get("dtype") or student_at.config.get("torch_dtype") or "float32")
    return _Pair(teacher_at, student_at, teacher, student, dtype, stored)


def _figures(pair: _Pair, model: Any, material: Material, emit: Emit, check: Check, about: str) -> dict[str, Any]:
    """Size and perplexity of one of the two, and of the student how far it is from the teacher, by text."""
    import torch

    found: dict[str, Any] = {
        "layers": len(model.get_decoder().layers),
        "parameters": parameter_count(model),
        "weights_bytes": _bytes(model, pair.stored),
        "perplexity": perplexities(model, pair.dtype, material, emit, check, about),
        "kld_mean": {},
        "top1_agreement": {},
    }
    if model is pair.teacher:
        return found
    tell(emit, "quality", f"divergence from the teacher {about}")
    apart = {name: Divergence() for name in material.scored}
    for name, row in scored_windows(material, check):
        with torch.no_grad():
            theirs, ours = (logits(one, [row], pair.dtype)[0].log_softmax(-1) for one in (pair.teacher, model))
        apart[name].add(theirs, ours)
    for name, divergence in apart.items():
        values = divergence.values()
        for figure in ("kld_mean", "top1_agreement"):
            found[figure][name] = values[figure]
    return found


def _bytes(model: Any, dtype: str) -> int:
    """Of a model's weights in that dtype, each once."""
    import torch

    return sum(int(parameter.numel()) for parameter in model.parameters()) * int(getattr(torch, dtype).itemsize)


def _source(job: DistilJob, pair: _Pair) -> str:
    """What the page says of where these weights come from."""
    if job.student:
        return f"{job.student} distilled from {job.model} in {job.steps} steps; before: {pair.student_at.source}"
    layers, of = (len(model.get_decoder().layers) for model in (pair.student, pair.teacher))
    kept = f"{layers} of {of} layers kept"
    return f"layer-pruned and distilled from {job.model} in {job.steps} steps ({kept}); teacher: {pair.teacher_at.source}"


def _origin(pair: _Pair) -> dict[str, Any]:
    """Both models' sources, which layers the pruned copy has kept of the teacher's, and under which licence."""
    gone = set(getattr(pair.student.config.get_text_config(), "pruned_layers", ())) if pair.student_at is pair.teacher_at else None
    kept = {} if gone is None else {"kept_layers": [at for at in range(len(pair.teacher.get_decoder().layers)) if at not in gone]}
    entry = find(pair.student_at.name)
    return {
        "teacher_source": pair.teacher_at.source,
        "student_source": pair.student_at.source,
        **kept,
        "stored": pair.stored,
        "licence": entry.licence if entry else "",
    }


def _keep(name: str, facts: Mapping[str, Any], pair: _Pair, tokenizer: Tokenizer, emit: Emit, check: Check) -> None:
    """Write the student as a model folder, whole or not at all."""
    tell(emit, "save", name)
    with making(name, facts) as folder:
        pair.student.save_pretrained(str(folder))
        tokenizer.save(folder)
        check()
    emit(Made(time.perf_counter_ns(), f"{PREFIX}{name}", facts))


def _table(facts: Mapping[str, Any]) -> Table:
    """Size and quality of the teacher, and of the student before and after; nothing where the teacher would be held against itself."""
    found = list(facts["compared"].values())

    def row(title: str, unit: str, figure: str, text: str = "") -> tuple[str, str, tuple[float | None, ...]]:
        return title, unit, tuple(one[figure].get(text) if text else one[figure] for one in found)

    rows = [row("Layers", "", "layers"), row("Parameters", "", "parameters"), row("Weights", "B", "weights_bytes")]
    for name in found[0]["perplexity"]:
        title = TITLES.get(name, name)
        rows.append(row(f"Perplexity of {title}", "", "perplexity", name))
        rows.append(row(f"KL divergence, {title}", "nats", "kld_mean", name))
        rows.append(row(f"Same top token, {title}", "share", "top1_agreement", name))
    return Table(("teacher", "before" if facts["student"] else "pruned", "distilled"), tuple(rows))


def _compared(facts: Mapping[str, Any]) -> list[RunSpec]:
    """The teacher, what the student was before, and what it is now."""
    teacher, made = RunSpec(model=facts["model"]), RunSpec(model=f"{PREFIX}{facts['name']}")
    if facts["student"]:
        return [teacher, RunSpec(model=facts["student"]), made]
    left_out = 1 - len(facts["kept_layers"]) / facts["compared"]["teacher"]["layers"]
    return [teacher, teacher.replace(knobs={"prune": "layers", "prune_share": round(left_out, 4)}), made]


RECIPE = Recipe(
    name="distil",
    kind="model",
    title="A distilled model",
    about="teach a layer-pruned copy of a model, or another one, from its logits, to be used as --model made:NAME",
    order=20,
    module=MODULE,
    job=DistilJob,
    knobs=(
        Range("keep_layers", "Layers to keep", 0.0, 1000, 0.01, DistilJob.keep_layers, "Of the teacher: their number, or below 1 a share."),
        Text("student", "Another student", "A model with the same tokens, in place of a pruned copy of the teacher."),
        *training_knobs(DistilJob),
        Range("temperature", "Temperature", 0.1, 20, 0.1, DistilJob.temperature, "By which the logits of both are divided."),
    ),
    model_label="the teacher",
    text=ASSETS / "training" / "general.txt",
    use="Use it with --model {name}, or as a draft of its teacher: --set speculative=draft --set draft_model={name}",
    table=_table,
    compared=_compared,
)
