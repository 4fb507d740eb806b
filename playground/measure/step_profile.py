"""One decode step under torch's profiler: where its time goes, by part of the model. Runs in the worker; torch is imported inside.

Hooks on the model's modules mark the parts while the step runs and are gone afterwards: a module's role is read from its name and class,
so any Hugging Face decoder will do. What runs inside two parts belongs to the inner one (a norm inside attention is norms). Sampling is
what the step does after the model's forward pass; residual sums, rotary tables and masks are everything else. On a GPU the seconds are
those of kernels, counted where the operator that launched them ran, or to the part that the operator itself marks (a kernel that no
operator launched is everything else); copies and fills of memory are no kernels. On a CPU they are those of operators, each without the
operators that it calls; the interpreter's own time is in none. Example::

    profile_step(model, lambda: next(steps), "cuda", rows=1, cached_tokens=40).parts["attention"]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from playground.core.events import Profile
from playground.core.problem import Problem

REST, SAMPLING = "everything else", "sampling"
NO_PARTS = "the step runs as compiled code, in which a profiler finds no parts of the model"
PARTS = ("embedding", "attention", "MLP", "norms", "head", SAMPLING, REST)
MARK = "part:"
_ATTENTION = ("attn", "attention")
_MLP = ("mlp", "moe", "ffn", "feed_forward", "moeblock", "feedforward")

Span = tuple[float, float, str]


def profile_step(model: Any, step: Callable[[], object], device: str, *, rows: int, cached_tokens: int) -> Profile:
    """Run `step` twice, to warm up and under the profiler, and say what the second did.

    step: one forward pass of `model` and the choice of the tokens, done when they are on the host. device: cpu or cuda. rows,
    cached_tokens: of the second step, for the event. Raises Problem("unsupported") where the profiler sees no kernels of a GPU, or on a CPU
    no part of the model, since a compiled step runs none of its modules; on a GPU the parts are then empty.
    """
    from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

    activities = {ProfilerActivity.CPU} | ({ProfilerActivity.CUDA} if device == "cuda" else set())
    if not activities <= set(supported_activities()):
        raise Problem("unsupported", "This build of torch cannot profile a GPU.")
    with _marks(model) as end_of_step:
        with profile(activities=activities, schedule=schedule(wait=0, warmup=1, active=1, repeat=1)) as profiler:
            for _ in range(2):
                step()
                end_of_step()
                profiler.step()
        events = profiler.events()
    seen = {part for _, _, part in _spans(events)} - {SAMPLING}
    if device == "cpu":
        if not seen:
            raise Problem("unsupported", NO_PARTS)
        return Profile(time.perf_counter_ns(), device, None, None, operator_parts(events), rows, cached_tokens)
    kernels = [event for event in events if _is_kernel(event)]
    if not kernels:
        raise Problem("unsupported", "The profiler saw no kernel: the GPU's driver does not let programs trace them here.")
    busy = union_s((event.time_range.start * 1e-6, event.time_range.end * 1e-6) for event in kernels)
    parts = kernel_parts(events) if seen else {}
    return Profile(time.perf_counter_ns(), device, busy, len(kernels), parts, rows, cached_tokens)


def operator_parts(events: Iterable[Any]) -> dict[str, float]:
    """Seconds of operators by part, from the profiler's events."""
    events = list(events)
    operators = ((event.time_range.start, event.self_cpu_time_total * 1e-6) for event in events if _is_operator(event))
    return _by_part(_spans(events), operators)


def kernel_parts(events: Iterable[Any]) -> dict[str, float]:
    """Seconds of kernels by part, from the profiler's events."""
    events = list(events)
    launched = [
        (_middle(event), kernel.duration * 1e-6)
        for event in events
        if _is_operator(event)
        for kernel in event.kernels
        if not _moves_memory(kernel.name)
    ]
    parts = _by_part(_spans(events), launched)
    total = sum(event.time_range.end - event.time_range.start for event in events if _is_kernel(event)) * 1e-6
    parts[REST] += max(total - sum(seconds for _, seconds in launched), 0.0)
    return parts


def union_s(intervals: Iterable[tuple[float, float]]) -> float:
    """Seconds in which at least one of the intervals (start, end) runs."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def _by_part(spans: Iterable[Span], items: Iterable[tuple[float, float]]) -> dict[str, float]:
    """Seconds of the items (moment, seconds) by the innermost span that runs at their moment."""
    totals = dict.fromkeys(PARTS, 0.0)
    coming = sorted(spans, key=lambda span: (span[0], -span[1]), reverse=True)
    running: list[Span] = []
    for moment, seconds in sorted(items):
        while coming and coming[-1][0] <= moment:
            running.append(coming.pop())
        while running and running[-1][1] <= moment:
            running.pop()
        totals[running[-1][2] if running else REST] += seconds
    return totals


def _spans(events: Iterable[Any]) -> list[Span]:
    return [
        (event.time_range.start, event.time_range.end, event.name.removeprefix(MARK))
        for event in events
        if _on_cpu(event) and event.name.startswith(MARK)
    ]


def _on_cpu(event: Any) -> bool:
    return bool(event.device_type.name == "CPU")


def _middle(event: Any) -> float:
    """A moment that belongs to a mark around an operator, and to one that the operator sets itself."""
    return float(event.time_range.start + event.time_range.end) / 2


def _is_operator(event: Any) -> bool:
    return _on_cpu(event) and not event.is_user_annotation


def _is_kernel(event: Any) -> bool:
    """Marks appear on the GPU's time line too, as annotations."""
    return event.device_type.name == "CUDA" and not (event.is_user_annotation or event.name.startswith(MARK) or _moves_memory(event.name))


def _moves_memory(name: str) -> bool:
    return name.startswith(("Memcpy", "Memset"))


@contextmanager
def _marks(model: Any) -> Iterator[Callable[[], None]]:
    """Mark the parts of `model` for the profiler; gives the function that ends the step, and with it sampling."""
    from torch.profiler import record_function

    running: list[Any] = []
    hooks = []

    def begin(part: str) -> None:
        running.append(record_function(MARK + part))
        running[-1].__enter__()

    def end(*_: object) -> None:
        running.pop().__exit__(None, None, None)

    def close() -> None:
        while running:  # nothing, where a captured step ran no module
            end()

    try:
        for module, part in _roles(model):
            hooks.append(module.register_forward_pre_hook(lambda *_, part=part: begin(part)))
            hooks.append(module.register_forward_hook(end, always_call=True))
        hooks.append(model.register_forward_hook(lambda *_: begin(SAMPLING)))
        yield close
    finally:
        for hook in hooks:
            hook.remove()
        close()


def _roles(model: Any) -> Iterator[tuple[Any, str]]:
    """Each module that is a part of the model, with the part."""
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        part = "head" if module is head else _role(path.rpartition(".")[2], module)
        if part and module is not model:
            yield module, part


def _role(attribute: str, module: Any) -> str | None:
    """The part that a module's attribute name, or the end of its class name, speaks of. Norms first: their names say what they stand next
    to. The beginning of a class name is the architecture's (Qwen3MoeModel)."""
    import torch

    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    kind = type(module).__name__.lower()
    if "norm" in attribute.lower() or kind.endswith("norm"):
        return "norms"
    if any(word in attribute.lower() or kind.endswith(word) for word in _ATTENTION):
        return "attention"
    return "MLP" if any(word in attribute.lower() or kind.endswith(word) for word in _MLP) else None
