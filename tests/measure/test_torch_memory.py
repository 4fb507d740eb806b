"""Bytes of real tensors, counted by hand, with the real classes of torch, transformers and bitsandbytes on the CPU."""

import pytest

from playground.measure.torch_memory import cache_bytes, cuda_peaks, module_bytes, reset_cuda_peaks, tensor_bytes

torch = pytest.importorskip("torch")


def test_parameters_and_buffers_by_hand():
    module = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.BatchNorm1d(4))
    # (32 + 4) weights and biases, 4 + 4 of the norm, running mean and variance 4 + 4, all float32, and one int64 counter
    assert module_bytes(module) == (36 + 8 + 8) * 4 + 8


def test_half_precision_takes_half():
    assert module_bytes(torch.nn.Linear(8, 4, dtype=torch.bfloat16)) == 36 * 2


def test_tied_weights_count_once():
    embedding, head = torch.nn.Embedding(100, 16), torch.nn.Linear(16, 100, bias=False)
    head.weight = embedding.weight
    assert module_bytes(torch.nn.ModuleList([embedding, head])) == 100 * 16 * 4


def test_overlapping_views_count_once_and_of_a_big_storage_only_what_is_used():
    whole = torch.zeros(1000)
    assert tensor_bytes([whole[:100], whole[50:150]]) == 150 * 4
    assert tensor_bytes([whole[:100], whole[500:600]]) == 200 * 4
    assert tensor_bytes(torch.zeros(1).expand(1000)) == 4


def test_what_has_no_memory_counts_nothing():
    assert tensor_bytes([torch.zeros(10, device="meta"), torch.zeros(0), None, "text", 3]) == 0


def test_a_wrapper_tensor_counts_its_inner_tensors():
    from torch.testing._internal.two_tensor import TwoTensor

    assert tensor_bytes(TwoTensor(torch.zeros(10), torch.ones(10))) == 2 * 10 * 4


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_4_bit_layer_counts_its_scales_and_its_code_book(kind):
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(256, 128, bias=False, quant_type=kind, compress_statistics=False).to("cpu")
    # 4 bits a weight, a float32 scale for each 64 weights, a code book of 16 float32
    assert module_bytes(layer) == 256 * 128 // 2 + 256 * 128 // 64 * 4 + 16 * 4


def test_a_4_bit_layer_with_double_quantisation_counts_the_nested_state():
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(256, 128, bias=False, quant_type="nf4", compress_statistics=True).to("cpu")
    scales = 256 * 128 // 64
    # scales in 8 bits, one float32 for each 256 of them, their code book of 256 float32 and their offset
    assert module_bytes(layer) == 256 * 128 // 2 + scales + scales // 256 * 4 + 256 * 4 + 4 + 16 * 4


def test_a_4_bit_layer_does_not_grow_by_being_used():
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear4bit(256, 128, bias=False, quant_type="nf4", compress_statistics=False, compute_dtype=torch.float32).to("cpu")
    layer(torch.zeros(1, 256))
    assert module_bytes(layer) == 256 * 128 // 2 + 256 * 128 // 64 * 4 + 16 * 4


def test_an_8_bit_layer_counts_its_weights_once_and_its_scales():
    bnb = pytest.importorskip("bitsandbytes")
    layer = bnb.nn.Linear8bitLt(256, 128, bias=False, has_fp16_weights=False).to("cpu")
    # one byte a weight (weight and CB are the same memory) and a float32 scale a row
    expected = 256 * 128 + 128 * 4
    assert module_bytes(layer) == expected
    layer(torch.zeros(1, 256, dtype=torch.float16))
    assert module_bytes(layer) == expected


def config():
    transformers = pytest.importorskip("transformers")
    return transformers.LlamaConfig(
        hidden_size=64, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, vocab_size=32
    )


def fill(cache, rows, tokens):
    for layer in range(3):
        cache.update(torch.zeros(rows, 2, tokens, 16), torch.zeros(rows, 2, tokens, 16), layer)


def test_a_dynamic_cache_is_its_formula():
    from transformers import DynamicCache

    cache = DynamicCache(config=config())
    assert cache_bytes(cache) == 0
    fill(cache, 2, 10)
    assert cache_bytes(cache) == 2 * 3 * 2 * 16 * 4 * 10 * 2


def test_a_static_cache_has_its_full_size_from_the_first_token_on():
    from transformers import StaticCache

    cache = StaticCache(config=config(), max_cache_len=50)
    fill(cache, 2, 10)
    keys_and_values = 2 * 3 * 2 * 16 * 4 * 50 * 2
    assert keys_and_values <= cache_bytes(cache) <= keys_and_values + 3 * 8


def test_no_cache_is_no_bytes_and_a_quantised_layer_is_walked():
    class Layer:
        def __init__(self):
            self._quantized_keys = (torch.zeros(100, dtype=torch.uint8), {"scale": torch.zeros(4), "shape": (10, 10)})
            self.keys = None

    class Cache:
        layers = [Layer(), Layer()]

    assert cache_bytes(None) == 0
    assert cache_bytes(Cache()) == 2 * (100 + 16)


def test_peaks_are_empty_without_cuda_and_resetting_them_is_harmless():
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA; tests/gpu measures real peaks")
    reset_cuda_peaks()
    assert cuda_peaks() == {}
