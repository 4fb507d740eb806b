"""Events of whole runs with given times, as a worker would send them."""

from playground.core.events import BatchEnd, BatchStart, Ceilings, Counts, Done, Loaded, Memory, Profile, Tick
from playground.core.spec import RunSpec, Workload
from playground.results.result import result

MS = 1_000_000
WOBBLE = (0.995, 1.0, 1.005)  # of three passes: intervals of about 1.2 % to either side
LLAMA_1B = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False,
}  # fmt: skip
SMOLLM2_135M = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
H200 = Ceilings(0, "H200", "cuda", "bfloat16", 4.27e12, 7.9e14, 4.5e-6, "2026-01-01T00:00:00+00:00")


def cpu(dtype, matmul_flops):
    """Two cores of a server."""
    return Ceilings(0, f"EPYC {dtype}", "cpu", dtype, 14e9, matmul_flops, 3.7e-6, "2026-01-01T00:00:00+00:00")


def run(label="", *, step_ms, ttft_ms=None, config=LLAMA_1B, ceilings=H200, device="cuda", prompt=46, new=16, kernels=None, kernel_ms=None,
        memory=None, score=None, wobble=WOBBLE, a_step=1, **knobs):  # fmt: skip
    """Spec and events of three passes; a profile where `kernels` are given; `a_step`: tokens of a row in each step after the first."""
    spec = RunSpec(knobs=knobs, label=label, workload=Workload(max_new_tokens=new))
    rows = int(knobs.get("batch_size", 1))
    events = [Loaded(0, 1.0, {"config": config, "device": device})]
    for index, factor in enumerate(wobble):
        start, first = index * 1e12, (ttft_ms or step_ms) * factor * MS
        events.append(BatchStart(int(start), "timed", index, tuple(range(rows)), (prompt,) * rows))
        events += [
            Tick(int(start + first + count * step_ms * factor * MS), ((7,) * (a_step if count else 1),) * rows) for count in range(new)
        ]
        events.append(BatchEnd(int(start + 9e11)))
    events += [
        Memory(0, "timed", memory or {}),
        *([Counts(0, {"target_passes": 3 * new, "speculated_tokens": 3 * (1 + (new - 1) * a_step)})] if a_step > 1 else []),
    ]
    events += [event for event in (score, ceilings) if event]
    if kernels:
        events.append(Profile(0, device, kernel_ms / 1000, kernels, {"MLP": kernel_ms / 1000}, rows, prompt + new // 2))
    elif device == "cpu":
        events.append(Profile(0, "cpu", None, None, {"MLP": step_ms / 1000}, rows, prompt + new // 2))
    return spec, [*events, Done(0)]


def document(one, baseline=None):
    """The result of a run against another."""
    return result(*one, baseline=baseline)


def verdict(one, baseline=None):
    """The verdict of a run against another."""
    return document(one, baseline)["verdict"]
