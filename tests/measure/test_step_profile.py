"""The profile of a decode step: events by hand, and a small random model on the CPU."""

import statistics
import types

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from playground.core import events as ev
from playground.core.engine import Batch
from playground.core.plan import plan_for
from playground.core.problem import Problem
from playground.core.spec import RunSpec
from playground.engines import engine_class
from playground.measure.machine import probe
from playground.measure.step_profile import PARTS, kernel_parts, operator_parts, profile_step, union_s
from playground.techniques import techniques

MARKED = ("embedding", "attention", "MLP", "norms", "head", "sampling")


def event(name, start, end, device="CPU", self_us=None, kernels=(), annotation=False):
    """One event of the profiler; microseconds."""
    return types.SimpleNamespace(
        name=name,
        device_type=types.SimpleNamespace(name=device),
        time_range=types.SimpleNamespace(start=start, end=end),
        self_cpu_time_total=end - start if self_us is None else self_us,
        kernels=[types.SimpleNamespace(name=kernel, duration=duration) for kernel, duration in kernels],
        is_user_annotation=annotation,
    )


def mark(part, start, end, device="CPU", **given):
    return event(f"part:{part}", start, end, device, annotation=True, **given)


EVENTS = [
    event("ProfilerStep*", 0, 1000, annotation=True),
    mark("attention", 100, 400, kernels=[("part:attention", 260)]),
    mark("norms", 110, 150),
    event("aten::rsqrt", 120, 140, kernels=[("rsqrt_kernel", 5)]),
    event("aten::linear", 200, 300, self_us=10),
    event("aten::mm", 210, 290, kernels=[("gemm", 80), ("splitk_reduce", 20)]),
    mark("MLP", 400, 600),
    event("aten::mul", 400, 450, kernels=[("mul_kernel", 30)]),
    event("aten::add", 610, 620, kernels=[("add_kernel", 7)]),
    mark("sampling", 700, 900),
    event("aten::argmax", 710, 730, kernels=[("reduce", 12)]),
    event("aten::copy_", 740, 890, kernels=[("Memcpy DtoH (Device -> Pageable)", 3)]),
    event("rsqrt_kernel", 500, 505, "CUDA"),
    event("gemm", 510, 590, "CUDA"),
    event("splitk_reduce", 580, 600, "CUDA"),
    event("mul_kernel", 650, 680, "CUDA"),
    event("add_kernel", 700, 707, "CUDA"),
    event("reduce", 800, 812, "CUDA"),
    event("launched_by_hand", 820, 824, "CUDA"),
    event("Memcpy DtoH (Device -> Pageable)", 830, 833, "CUDA"),
    mark("attention", 500, 600, "CUDA"),
]


def in_us(parts):
    return {part: round(seconds * 1e6, 6) for part, seconds in parts.items()}


def test_operators_count_where_they_ran_and_the_innermost_part_wins():
    assert in_us(operator_parts(EVENTS)) == {
        "embedding": 0,
        "attention": 10 + 80,
        "MLP": 50,
        "norms": 20,
        "head": 0,
        "sampling": 20 + 150,
        "everything else": 10,
    }


def test_kernels_count_where_they_were_launched_and_copies_do_not():
    parts = kernel_parts(EVENTS)
    assert list(parts) == list(PARTS)
    assert in_us(parts) == {
        "embedding": 0,
        "attention": 100,
        "MLP": 30,
        "norms": 5,
        "head": 0,
        "sampling": 12,
        "everything else": 7 + 4,
    }


def test_an_operator_that_names_its_own_part_is_counted_there():
    """As in compiled code, whose modules run no hooks."""
    events = [event("playground::linear", 100, 200, kernels=[("reduce", 31)]), mark("MLP", 110, 195), event("reduce", 300, 331, "CUDA")]
    assert in_us(kernel_parts(events))["MLP"] == 31


def test_a_step_that_runs_no_module_has_no_parts_rather_than_one_that_is_everything_else(llama):
    with pytest.raises(Problem, match="compiled code, in which a profiler finds no parts"):
        profile_step(llama, lambda: torch.ones(8).sum(), "cpu", rows=1, cached_tokens=4)


def test_time_in_which_kernels_overlap_counts_once():
    assert union_s([(0, 10), (2, 5), (8, 12), (20, 21)]) == 13
    assert union_s([]) == 0


@pytest.fixture
def llama():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=256, intermediate_size=512, num_hidden_layers=3, num_attention_heads=8, num_key_value_heads=4, vocab_size=5000
    )
    return LlamaForCausalLM(config).eval()


def greedy_step(model, chosen):
    ids = torch.tensor([[1, 2, 3, 4]])

    def step():
        with torch.inference_mode():
            chosen.append(model(ids, use_cache=False).logits[:, -1].argmax(dim=-1).tolist())

    return step


def hooks_of(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


def test_a_step_of_a_small_model_is_shared_out_among_all_parts(llama):
    chosen = []
    found = profile_step(llama, greedy_step(llama, chosen), "cpu", rows=1, cached_tokens=3)
    assert (found.device, found.kernel_s, found.kernels, found.rows, found.cached_tokens) == ("cpu", None, None, 1, 3)
    assert tuple(found.parts) == PARTS
    assert len(chosen) == 2
    assert all(found.parts[part] > 0 for part in MARKED)


def test_the_parts_add_up_to_all_operators(llama, monkeypatch):
    seen = []
    monkeypatch.setattr("playground.measure.step_profile.operator_parts", lambda events: seen.extend(events) or operator_parts(events))
    parts = profile_step(llama, greedy_step(llama, []), "cpu", rows=1, cached_tokens=3).parts
    outermost = [item for item in seen if not item.is_user_annotation and (not item.cpu_parent or item.cpu_parent.is_user_annotation)]
    assert len(outermost) > 50
    assert sum(parts.values()) == pytest.approx(sum(item.cpu_time_total for item in outermost) * 1e-6, rel=1e-6)


@pytest.fixture
def one_thread():
    """Threads that wait for each other on a busy machine take time that no operator needs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_larger_head_takes_a_larger_share(llama, one_thread):
    def share(model):
        looks = [profile_step(model, greedy_step(model, []), "cpu", rows=1, cached_tokens=3).parts for _ in range(5)]
        return statistics.median(parts["head"] / sum(parts.values()) for parts in looks)

    wide = LlamaForCausalLM(LlamaConfig(**{**llama.config.to_dict(), "vocab_size": 400_000})).eval()
    assert share(wide) > 2 * share(llama)


def test_profiling_leaves_no_hook_behind_even_if_the_step_fails(llama):
    before = hooks_of(llama)
    profile_step(llama, greedy_step(llama, []), "cpu", rows=1, cached_tokens=3)
    assert hooks_of(llama) == before

    def fails():
        with torch.inference_mode():
            llama(torch.tensor([[1]]), use_cache=False)
        raise ValueError("a step that fails")

    with pytest.raises(ValueError, match="a step that fails"):
        profile_step(llama, fails, "cpu", rows=1, cached_tokens=3)
    with pytest.raises(IndexError):
        profile_step(llama, lambda: llama(torch.tensor([[10**6]]), use_cache=False), "cpu", rows=1, cached_tokens=3)
    assert hooks_of(llama) == before


@pytest.mark.parametrize(
    ("name", "own"),
    [
        ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4}),
        ("qwen3", {"head_dim": 16}),
        ("qwen3_moe", {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2, "head_dim": 16}),
        ("gemma3_text", {"head_dim": 16}),
        ("gpt_neox", {}),
    ],
)
def test_the_parts_of_other_architectures_are_found_by_their_roles(name, own):
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = AutoConfig.for_model(name, **({} if name == "gpt2" else sizes), **own, vocab_size=300)
    model = AutoModelForCausalLM.from_config(config).eval()
    parts = profile_step(model, greedy_step(model, []), "cpu", rows=1, cached_tokens=3).parts
    assert all(parts[part] > 0 for part in MARKED), parts
    assert parts["everything else"] < sum(parts.values()) / 2


def plan(**knobs):
    return plan_for(RunSpec(model="shape:tiny", device="cpu", knobs=knobs), techniques(), engine_class("transformers"), probe())


@pytest.fixture(scope="module")
def engine():
    loaded = engine_class("transformers")()
    loaded.load(plan(), lambda event: None)
    yield loaded
    loaded.close()


def tokens_of(engine, batch):
    return [tick.tokens for tick in engine.generate(batch)]


@pytest.mark.parametrize("kv_cache", ["dynamic", "static", "off"])
def test_the_engine_profiles_a_step_in_the_middle_and_changes_nothing(engine, kv_cache):
    engine.setup(plan(kv_cache=kv_cache))
    batch = Batch(((5, 6, 7), (8, 9, 10, 11, 12)), 12)
    before = tokens_of(engine, batch)
    cache_bytes = engine.memory()["kv_cache_bytes"]
    found = engine.profile(batch)
    assert (found.rows, found.cached_tokens) == (2, 5 + 6 - 1)
    assert tuple(found.parts) == PARTS
    assert engine.memory()["kv_cache_bytes"] == cache_bytes
    assert tokens_of(engine, batch) == before
    assert engine.last_step_tokens == (1 if kv_cache != "off" else 5 + 11)


def test_the_profiled_step_has_the_cached_tokens_that_the_profile_names(engine, monkeypatch):
    engine.setup(plan())
    before = []

    def twice(model, step, device, **given):
        step()  # as the profiler does before it looks
        before.append(engine.cache.get_seq_length())
        step()
        return ev.Profile(1, rows=1)

    monkeypatch.setattr("playground.measure.step_profile.profile_step", twice)
    assert engine.profile(Batch(((5, 6, 7),), 100)).cached_tokens == before[0] == 3 + 16 - 1


def test_a_sampled_batch_that_would_end_early_is_profiled_too(engine):
    engine.setup(plan())
    found = engine.profile(Batch(((5, 6, 7),), 8, ignore_eos=False, temperature=1.0, seed=3))
    assert found.parts["sampling"] > 0


def test_two_output_tokens_are_enough_and_one_says_why_not(engine):
    engine.setup(plan())
    assert engine.profile(Batch(((5, 6, 7),), 2)).cached_tokens == 3
    with pytest.raises(Problem, match="no decode step"):
        engine.profile(Batch(((5, 6, 7),), 1))


def test_a_script_has_the_profile_that_it_asks_for():
    fake = engine_class("fake")()
    batch = Batch(((1, 2, 3),), 8)
    made = {}
    for script in ("script:step_ms=4", "script:step_ms=40,kernels=300,kernel_ms=2"):
        fake.load(types.SimpleNamespace(spec=RunSpec(model=script, engine="fake")), lambda event: None)
        made[script] = fake.profile(batch)
    on_cpu, on_gpu = made.values()
    assert (on_cpu.device, on_cpu.kernel_s, on_cpu.kernels) == ("cpu", None, None)
    assert (on_gpu.device, on_gpu.kernel_s, on_gpu.kernels, on_gpu.cached_tokens) == ("cuda", 0.002, 300, 6)
    assert sum(on_cpu.parts.values()) == pytest.approx(0.004)
    assert sum(on_gpu.parts.values()) == pytest.approx(0.002)
