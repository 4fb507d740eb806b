"""Random weights of shapes: the right architecture, dtype, quantization and size, and the same numbers each time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from playground.models.resolve import resolve
from playground.models.weights import build_random, load_pretrained

torch = pytest.importorskip("torch")

# shape:tiny by hand: per layer q 64*64, k and v 64*32 each, o 64*64, three of 64*192 in the MLP.
LINEARS = 2 * 7
LINEAR_WEIGHTS = 2 * (64 * 64 + 2 * 64 * 32 + 64 * 64 + 3 * 64 * 192)
OTHER_WEIGHTS = 2 * 512 * 64 + 5 * 64


@pytest.fixture
def tiny(home):
    return resolve("shape:tiny", lambda event: None).folder


@pytest.fixture
def ids():
    return torch.arange(1, 9)[None]


def stored_bytes(model) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in {id(p): p for p in model.parameters()}.values())


def bnb_config(kind: str, compute=None):
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type=kind, bnb_4bit_compute_dtype=compute or torch.float32)


@pytest.mark.parametrize(("dtype", "size"), [("float32", 4), ("float16", 2), ("bfloat16", 2)])
def test_a_shape_loads_in_each_precision_and_takes_the_bytes_it_should(tiny, ids, dtype, size):
    model = build_random(tiny, getattr(torch, dtype), "cpu")
    with torch.inference_mode():
        logits = model(ids).logits
    assert logits.shape == (1, 8, 512)
    assert logits.dtype == getattr(torch, dtype)
    assert torch.isfinite(logits).all()
    assert stored_bytes(model) == (LINEAR_WEIGHTS + OTHER_WEIGHTS) * size
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_a_4_bit_shape_has_every_decoder_linear_in_half_a_byte_a_weight_and_keeps_the_head(tiny, ids, kind):
    bnb = pytest.importorskip("bitsandbytes")
    model = build_random(tiny, torch.float32, "cpu", bnb_config(kind))
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear4bit)]
    assert len(layers) == LINEARS
    assert type(model.lm_head) is torch.nn.Linear
    assert {layer.weight.quant_state.quant_type for layer in layers} == {kind}
    assert sum(layer.weight.numel() * layer.weight.element_size() for layer in layers) == LINEAR_WEIGHTS // 2
    with torch.inference_mode():
        assert torch.isfinite(model(ids).logits).all()


def test_an_int8_shape_has_every_decoder_linear_in_one_byte_a_weight(tiny, ids):
    bnb = pytest.importorskip("bitsandbytes")
    model = build_random(tiny, torch.float16, "cpu", bnb_config("int8"))
    layers = [module for module in model.modules() if isinstance(module, bnb.nn.Linear8bitLt)]
    assert len(layers) == LINEARS
    assert sum(layer.weight.numel() * layer.weight.element_size() for layer in layers) == LINEAR_WEIGHTS
    assert {layer.weight.dtype for layer in layers} == {torch.int8}
    with torch.inference_mode():
        assert torch.isfinite(model(ids).logits).all()


def test_quantized_weights_are_the_same_numbers_as_the_plain_ones_but_for_rounding(tiny, ids):
    pytest.importorskip("bitsandbytes")
    with torch.inference_mode():
        plain = build_random(tiny, torch.float32, "cpu")(ids).logits
        int8 = build_random(tiny, torch.float32, "cpu", bnb_config("int8"))(ids).logits
    assert torch.nn.functional.cosine_similarity(plain.flatten(), int8.flatten(), dim=0) > 0.99


def test_the_same_seed_gives_the_same_weights_in_every_dtype_and_another_seed_others(tiny):
    full, half, other = (
        build_random(tiny, dtype, "cpu", seed=seed) for dtype, seed in [(torch.float32, 0), (torch.bfloat16, 0), (torch.float32, 1)]
    )
    for (name, a), b, c in zip(full.named_parameters(), half.parameters(), other.parameters(), strict=True):
        assert torch.equal(a.to(torch.bfloat16), b), name
        if "norm" in name:
            assert torch.equal(a, torch.ones_like(a)), name
        else:
            assert not torch.equal(a, c), name
            assert 0.015 < a.std() < 0.025, name


@pytest.mark.parametrize("shape", ["shape:tiny", "shape:llama-3.2-1b", "shape:qwen3-0.6b"])
def test_rotary_frequencies_are_those_that_the_library_computes_itself(home, shape):
    from transformers import AutoConfig, AutoModelForCausalLM

    small = {"num_hidden_layers": 1, "vocab_size": 64, "bos_token_id": None, "eos_token_id": None}
    config = {**resolve(shape, lambda event: None).config, **small}
    expected = dict(AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).named_buffers())
    found = dict(build_random(config, torch.bfloat16, "cpu").named_buffers())
    assert expected
    assert expected.keys() == found.keys()
    for name, buffer in expected.items():
        assert torch.equal(buffer, found[name]), name


def test_the_output_head_is_the_embedding_itself_where_the_architecture_ties_them(home):
    config = {**resolve("shape:smollm2-135m", lambda event: None).config, "num_hidden_layers": 1}
    model = build_random(config, torch.bfloat16, "cpu")
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.parametrize("name", ["smollm2-135m", "qwen3-0.6b", "llama-3.2-1b", "llama-3.1-8b", "tiny"])
def test_the_catalogue_states_the_parameters_that_the_architecture_has(home, name):
    from transformers import AutoConfig, AutoModelForCausalLM

    from playground.models.catalogue import find

    entry = find(f"shape:{name}")
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**entry.config))
    assert sum(parameter.numel() for parameter in model.parameters()) == entry.parameters


def test_a_saved_folder_loads_again_with_the_same_logits(tiny, ids, tmp_path):
    model = build_random(tiny, torch.float32, "cpu")
    model.save_pretrained(tmp_path)
    again = load_pretrained(tmp_path, torch.float32, "cpu")
    with torch.inference_mode():
        assert torch.equal(model(ids).logits, again(ids).logits)
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.slow
def test_the_default_model_in_nf4_still_knows_the_capital_of_france(default_model):
    bnb = pytest.importorskip("bitsandbytes")
    from playground.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(default_model)
    model = load_pretrained(default_model.folder, torch.float32, "cpu", bnb_config("nf4"))
    assert sum(isinstance(module, bnb.nn.Linear4bit) for module in model.modules()) == 30 * 7
    prompt = torch.tensor([tokenizer.encode_chat(tokenizer.chat("What is the capital of France?"))])
    ids = model.generate(prompt, max_new_tokens=12, do_sample=False)[0, prompt.shape[1] :].tolist()
    assert "Paris" in tokenizer.decode(ids)


@pytest.mark.slow
def test_the_default_model_in_fp32_says_paris_and_stops_at_its_end_token(default_model):
    from playground.models.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(default_model)
    model = load_pretrained(default_model.folder, torch.float32, "cpu")
    prompt = torch.tensor([tokenizer.encode_chat(tokenizer.chat("What is the capital of France?"))])
    ids = model.generate(prompt, max_new_tokens=24, do_sample=False)[0, prompt.shape[1] :].tolist()
    assert tokenizer.decode(ids) == "The capital of France is Paris."
    assert ids[-1] in tokenizer.eos_ids


def test_the_code_of_an_architecture_is_there_before_the_clock_of_loading_starts():
    """In a process of its own: what is imported here is imported for all."""
    code = (
        "import sys; from playground.models.weights import import_architecture; import_architecture({'model_type': 'no such thing'}); "
        "name = 'transformers.models.llama.modeling_llama'; before = name in sys.modules; "
        "import_architecture({'model_type': 'llama'}); print(before, name in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    assert done.stdout.split() == ["False", "True"]
