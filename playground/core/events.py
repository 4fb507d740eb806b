"""The truth of a run: the list of raw events that it produced. Every number on the page is derived from these.

Stamps (`t_ns`) are `time.perf_counter_ns()` of the process that saw the event; on Linux the clock is the same for all processes of a
machine, so worker and parent stamps can be laid side by side. Events travel as JSON lines. Example::

    from_json(to_json(Tick(t_ns=12, tokens=((5,), (7,)))))
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from playground.core.making import Made, TrainStep

PassKind = Literal["warmup", "timed"]


@dataclass(frozen=True)
class Phase:
    """A new stage of the run began: load, ceilings, compile, evidence, warmup, timed, energy, quality, profile. `detail` is for people
    ("timed pass 2 of 3")."""

    t_ns: int
    name: str
    detail: str = ""


@dataclass(frozen=True)
class Progress:
    """Progress of something long, such as a download: `done` of `total` (None: unknown) in `unit` ("B", "tokens")."""

    t_ns: int
    name: str
    done: float
    total: float | None = None
    unit: str = "B"


@dataclass(frozen=True)
class Loaded:
    """The engine is ready. `seconds`: load time (fetching not counted); `model`: name, source, kind, random_weights, config facts,
    and as `footprint` the fields of core.technique.Footprint that the engine changes; `provenance`: host, cpu, gpu, driver, versions,
    commit."""

    t_ns: int
    seconds: float
    model: Mapping[str, Any] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reused: bool = False


@dataclass(frozen=True)
class Compiled:
    """The decode steps of this run's batches are ready: compiled and, on a GPU, captured. `seconds`: None where an earlier run's were
    used."""

    t_ns: int
    seconds: float | None


@dataclass(frozen=True)
class Evidence:
    """Proof that a technique took effect (`ok`), or that it did not, in one sentence with numbers."""

    t_ns: int
    technique: str
    ok: bool
    text: str


@dataclass(frozen=True)
class Prepared:
    """The exact texts after the chat template and their token counts, one entry a prompt."""

    t_ns: int
    texts: tuple[str, ...]
    token_counts: tuple[int, ...]
    templated: bool


@dataclass(frozen=True)
class BatchStart:
    """Tokenised input of one batch is ready and the clock starts. `rows`: indices of the requests in this batch; `prompt_tokens`: their
    token counts, without padding. A pass over the workload holds one or more batches. `arrivals_s`: seconds after t_ns at which each row's
    request arrives (empty: all wait there)."""

    t_ns: int
    kind: PassKind
    index: int
    rows: tuple[int, ...]
    prompt_tokens: tuple[int, ...]
    arrivals_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Tick:
    """One decode step of the batch begun last: for each of its rows the token ids produced in this step (empty: row finished)."""

    t_ns: int
    tokens: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class BatchEnd:
    """The batch begun last is complete."""

    t_ns: int


@dataclass(frozen=True)
class Text:
    """Streamed text of one request: one piece a token ("" while a character is incomplete). Sent for the first pass only, so that timed
    passes do nothing but decode."""

    t_ns: int
    row: int
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """The final output of one request, from the first timed pass. "".join(pieces) is the text; one piece a token id."""

    t_ns: int
    row: int
    prompt: str
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...]


@dataclass(frozen=True)
class Gauge:
    """Physical quantities sampled at one moment, such as {"gpu_util": 0.4, "power_w": 310.0, "rss_bytes": 1e9}."""

    t_ns: int
    source: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Memory:
    """Memory by name in bytes, after a stage ("load", "timed"): weights_bytes, kv_cache_bytes, peak_allocated_bytes, ..."""

    t_ns: int
    stage: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Score:
    """Quality figures by metric name; `missing`: why a figure could not be measured; `about`: text, window, stride, positions."""

    t_ns: int
    values: Mapping[str, float] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)
    about: str = ""


@dataclass(frozen=True)
class Departure:
    """Where the greedy output of a request departs from the baseline's: the token `position`, both tokens there (`theirs` is the
    baseline's), and the probability of each in this variant and in the baseline (None: not known)."""

    t_ns: int
    row: int
    position: int
    ours: int
    theirs: int
    ours_text: str
    theirs_text: str
    p_ours: float
    p_theirs: float
    baseline_p_ours: float | None = None
    baseline_p_theirs: float | None = None


@dataclass(frozen=True)
class Energy:
    """The energy window: the workload repeated `passes` times. `joules`: the device's counter over `seconds`; None: `reason` says why."""

    t_ns: int
    joules: float | None
    seconds: float
    output_tokens: int
    passes: int
    reason: str = ""


@dataclass(frozen=True)
class Ceilings:
    """What the device can do at best, measured: bytes a second of a large copy (read plus written), operations a second of a large matrix
    product, seconds that one small kernel costs to launch, and bytes a second of weights that a product with one row reads, which on some
    processors stays far below a copy (None: not measured); graph_kernel_s: seconds of one small kernel in a replayed CUDA graph (None: no
    CUDA). `key`: what they hold for (`measure.ceilings.device_key`); `dtype`: torch's
    name; `fresh`: measured in this run."""

    t_ns: int
    key: str
    device: str
    dtype: str
    copy_bytes_per_s: float
    matmul_flops: float
    launch_s: float
    measured_at: str
    fresh: bool = True
    matvec_bytes_per_s: float | None = None
    graph_kernel_s: float | None = None


@dataclass(frozen=True)
class Profile:
    """One decode step of `rows` rows with `cached_tokens` tokens each before it, under the profiler.

    kernel_s: time in which at least one kernel ran; kernels: their launches; both None without a GPU. `parts`: seconds by part of the model
    (kernels on a GPU, operators on a CPU), empty where compiled code has none. `reason`: why there is no profile, else "".
    """

    t_ns: int
    device: str = ""
    kernel_s: float | None = None
    kernels: int | None = None
    parts: Mapping[str, float] = field(default_factory=dict)
    rows: int = 0
    cached_tokens: int = 0
    reason: str = ""


@dataclass(frozen=True)
class Counts:
    """What techniques counted in the timed passes, or of the loaded model, by name: forward passes, accepted tokens, shares of zeros."""

    t_ns: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Warned:
    """Something a person should know that does not stop the run."""

    t_ns: int
    message: str


@dataclass(frozen=True)
class Done:
    """The run is complete."""

    t_ns: int


@dataclass(frozen=True)
class Cancelled:
    """A person stopped the run."""

    t_ns: int


@dataclass(frozen=True)
class Failed:
    """The run failed; `kind` is one of core.problem.PROBLEM_KINDS."""

    t_ns: int
    kind: str
    message: str
    detail: str = ""


Event = (
    Phase | Progress | Loaded | Compiled | Evidence | Prepared | BatchStart | Tick | BatchEnd | Text | Output | Gauge | Memory | Score
    | Departure | Energy | Ceilings | Profile | Counts | TrainStep | Made | Warned | Done | Cancelled | Failed
)  # fmt: skip
_TYPES: dict[str, type] = {cls.__name__: cls for cls in Event.__args__}
ENDINGS = (Done, Cancelled, Failed)


def to_json(event: Event) -> str:
    """One line of JSON, without a line break."""
    data = {f.name: getattr(event, f.name) for f in dataclasses.fields(event)}
    return json.dumps({"type": type(event).__name__, **data}, ensure_ascii=False, separators=(",", ":"))


def from_json(line: str | Mapping[str, Any]) -> Event:
    """The event of one line, or of what it holds; raises ValueError for anything else."""
    try:
        data = json.loads(line) if isinstance(line, str) else dict(line)
        cls = _TYPES[data.pop("type")]
        return cls(**{name: _frozen(value) for name, value in data.items()})  # type: ignore[no-any-return]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {str(line)[:200]!r}") from error


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value
