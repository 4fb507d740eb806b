"""Scripted runs: lists of events with delays that are known, so that every metric can be computed by hand."""

from collections.abc import Sequence

from playground.core.events import BatchEnd, BatchStart, Done, Event, Loaded, Memory, Output, Phase, Tick

MS = 1_000_000
CONFIG = {
    "model_type": "llama", "hidden_size": 8, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
    "intermediate_size": 16, "vocab_size": 32,
}  # fmt: skip


def batch(
    kind: str, index: int, at_ms: float, delays_ms: Sequence[float], rows: Sequence[int] = (0,), prompts: Sequence[int] = (10,)
) -> list[Event]:
    """One batch that starts at `at_ms`; each row gets one token after each delay."""
    events: list[Event] = [BatchStart(int(at_ms * MS), kind, index, tuple(rows), tuple(prompts))]
    for step, delay in enumerate(delays_ms):
        at_ms += delay
        events.append(Tick(int(at_ms * MS), tuple((100 + step,) for _ in rows)))
    events.append(BatchEnd(int((at_ms + 5) * MS)))
    return events


def run(*passes: list[Event], **loaded: object) -> list[Event]:
    """A complete run of these passes, with weights of 1000 bytes and a KV cache of 200."""
    model = {"config": CONFIG, "source": "a test", **loaded}
    memory = {"weights_bytes": 1000.0, "kv_cache_bytes": 200.0, "kv_bytes_per_number": 2.0}
    return [
        Memory(0, "start", {"rss_bytes": 5000.0}),
        Loaded(0, 1.5, model, {"host": "here", "gpu": ""}),
        *(event for item in passes for event in (Phase(0, "timed"), *item)),
        Memory(0, "timed", {**memory, "peak_rss_bytes": 7000.0}),
        Output(0, 0, "Hello", (1, 2, 3, 4), ("a", "b", "c", "d")),
        Done(10**12),
    ]
