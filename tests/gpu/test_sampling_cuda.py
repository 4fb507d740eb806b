"""Sampling inside a captured CUDA graph: no synchronisation, other settings without a new capture, what the CPU keeps."""

from __future__ import annotations

from typing import Any

import pytest

VOCABULARY = 128_256


def on_gpu(temperature: float, top_k: int, top_p: float) -> tuple[Any, Any, Any]:
    import torch

    return torch.tensor(temperature, device="cuda"), torch.tensor(top_k, device="cuda"), torch.tensor(top_p, device="cuda")


@pytest.mark.parametrize("rows", [1, 8])
def test_a_captured_draw_follows_its_settings_and_its_seed(rows: int) -> None:
    import torch

    from playground.engines.sampling import greedy, narrowed, sample

    logits = (torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(0)) * 3).bfloat16().cuda()
    temperature, top_k, top_p = on_gpu(1.0, 50, 0.9)
    generator = torch.Generator("cuda").manual_seed(1)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        sample(logits, temperature, top_k, top_p, generator)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph):
        drawn = sample(logits, temperature, top_k, top_p, generator)

    def replay(times: int, seed: int) -> Any:
        generator.manual_seed(seed)
        found = []
        for _ in range(times):
            graph.replay()
            found.append(drawn.clone())
        return torch.stack(found)

    first = replay(20, 5)
    assert torch.equal(replay(20, 5), first)
    assert not torch.equal(replay(20, 6), first)
    assert len(set(first[:, 0].tolist())) > 1, "each replay draws anew"
    assert (narrowed(logits, temperature, top_k, top_p).gather(1, first.T) > 0).all()
    top_k.fill_(1)
    assert torch.equal(replay(3, 5), greedy(logits).expand(3, -1))
    top_k.fill_(0)
    top_p.fill_(1.0)
    temperature.fill_(3.0)
    assert len(set(replay(200, 7)[:, 0].tolist())) > 100


def test_no_kind_of_draw_waits_for_the_device() -> None:
    import torch

    from playground.engines.sampling import greedy, sample, sample_all

    logits = torch.randn(2, VOCABULARY, device="cuda")
    temperature, top_k, top_p = on_gpu(1.0, 50, 0.9)
    generator = torch.Generator("cuda").manual_seed(0)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        greedy(logits)
        sample_all(logits, temperature, generator)
        sample(logits, temperature, top_k, top_p, generator)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_the_gpu_keeps_what_the_cpu_keeps() -> None:
    import torch

    from playground.engines.sampling import narrowed

    logits = torch.randn(4, VOCABULARY, generator=torch.Generator().manual_seed(3)) * 4
    settings = on_gpu(0.8, 200, 0.95)
    here = narrowed(logits, *(setting.cpu() for setting in settings))
    there = narrowed(logits.cuda(), *settings).cpu()
    assert torch.equal(there > 0, here > 0)
    assert torch.allclose(there, here, rtol=1e-4, atol=1e-7)
