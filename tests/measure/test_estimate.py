"""Sizes against published parameter counts and formulas."""

import pytest

from playground.core.problem import Problem
from playground.core.technique import Footprint
from playground.measure.estimate import estimate, kv_bytes_per_token, parameters, tokens_allocated

SMOLLM2_135M = {
    "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
    "num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_1B = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "tie_word_embeddings": True,
}  # fmt: skip
LLAMA_8B = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
}  # fmt: skip
QWEN3_06B = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "tie_word_embeddings": True, "attention_bias": False,
}  # fmt: skip
QWEN2_05B = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24, "num_attention_heads": 14,
    "num_key_value_heads": 2, "vocab_size": 151936, "tie_word_embeddings": True,
}  # fmt: skip
MISTRAL_7B = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
    "num_key_value_heads": 8, "vocab_size": 32768, "tie_word_embeddings": False,
}  # fmt: skip
SMOLLM3_3B = {
    "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
    "num_key_value_heads": 4, "vocab_size": 128256,
}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "published"),
    [
        (SMOLLM2_135M, 134_515_008),
        (LLAMA_1B, 1_235_814_400),
        (LLAMA_8B, 8_030_261_248),
        (QWEN3_06B, 596_049_920),
        (QWEN2_05B, 494_032_768),
        (MISTRAL_7B, 7_248_023_552),
        (SMOLLM3_3B, 3_075_098_624),
    ],
    ids=["SmolLM2-135M", "Llama-3.2-1B", "Llama-3.1-8B", "Qwen3-0.6B", "Qwen2.5-0.5B", "Mistral-7B-v0.3", "SmolLM3-3B"],
)
def test_parameters_are_the_published_count(config, published):
    count = parameters(config)
    assert count.total == published
    assert count.embedding + count.linear + count.head + count.norm == count.total
    assert count.note == ""


BIASED = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "vocab_size": 64, "tie_word_embeddings": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "config",
    [
        {**BIASED, "model_type": "llama", "attention_bias": True, "mlp_bias": True},
        {**BIASED, "model_type": "qwen2"},
        {**BIASED, "model_type": "qwen3", "head_dim": 16, "attention_bias": True},
        {**BIASED, "model_type": "mistral", "tie_word_embeddings": True},
    ],
    ids=lambda config: config["model_type"],
)
def test_parameters_are_those_that_transformers_builds(config):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    options = {name: value for name, value in config.items() if name != "model_type"}
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(config["model_type"], **options))
    assert parameters(config).total == model.num_parameters()


def test_a_config_inside_a_multimodal_one_is_found():
    assert parameters({"model_type": "gemma3", "text_config": LLAMA_1B}).total == 1_235_814_400


def test_an_unknown_architecture_is_counted_as_llama_and_says_so():
    count = parameters({**LLAMA_1B, "model_type": "newthing"})
    assert count.total == 1_235_814_400
    assert "newthing" in count.note
    assert "experts" in parameters({**LLAMA_1B, "model_type": "mixtral", "num_local_experts": 8}).note


def test_a_config_without_sizes_is_a_problem_that_names_the_size():
    with pytest.raises(Problem, match="intermediate_size"):
        parameters({**LLAMA_1B, "intermediate_size": None})


def test_llama_8b_keeps_128_kib_a_token_in_bf16():
    assert kv_bytes_per_token(LLAMA_8B, 2) == 128 * 1024


def test_weights_follow_the_bits_and_quantised_linear_layers_leave_embedding_and_norms_alone():
    count = parameters(LLAMA_1B)
    assert estimate(LLAMA_1B, Footprint(weight_bits=16, kv_bits=16), 100, 28).weights_bytes == 2 * count.total
    four_bit = estimate(LLAMA_1B, Footprint(weight_bits=16, linear_bits=4.5, kv_bits=16), 100, 28)
    assert four_bit.weights_bytes == round(2 * (count.embedding + count.norm) + count.linear * 4.5 / 8)


def test_an_output_head_has_bits_of_its_own_only_where_it_is_not_the_embedding():
    packed = Footprint(weight_bits=16, linear_bits=4, head_bits=8, kv_bits=16)
    own, tied = parameters(LLAMA_8B), parameters(LLAMA_1B)
    expected = 2 * (own.embedding + own.norm) + own.linear / 2 + own.head
    assert estimate(LLAMA_8B, packed, 100, 28).weights_bytes == expected
    assert estimate(LLAMA_1B, packed, 100, 28).weights_bytes == 2 * (tied.embedding + tied.norm) + tied.linear / 2


def test_the_kv_cache_counts_prompt_and_output_of_each_row():
    per_row = estimate(LLAMA_8B, Footprint(weight_bits=16, kv_bits=16), 100, 28)
    assert per_row.kv_cache_bytes == 128 * 1024 * 128
    assert estimate(LLAMA_8B, Footprint(weight_bits=16, kv_bits=16, rows=8), 100, 28).kv_cache_bytes == 8 * 128 * 1024 * 128
    assert estimate(LLAMA_8B, Footprint(weight_bits=16, kv_bits=16, kv_share=0), 100, 28).kv_cache_bytes == 0


def test_a_cache_in_buckets_is_counted_at_the_size_that_is_allocated():
    bucketed = Footprint(weight_bits=16, kv_bits=16, kv_bucketed=True)
    # The last token is never fed back: 129 of 130 tokens are cached, and the smallest buckets are 128 and 192.
    assert [tokens_allocated(bucketed, tokens) for tokens in (100, 129, 130, 193, 194)] == [128, 128, 192, 192, 256]
    assert tokens_allocated(Footprint(), 130) == 130
    assert estimate(LLAMA_8B, bucketed, 100, 30).kv_cache_bytes == 192 * 128 * 1024
    assert estimate(LLAMA_8B, Footprint(weight_bits=16, kv_bits=16), 100, 30).kv_cache_bytes == 130 * 128 * 1024


def test_activations_by_hand_and_the_total_is_the_sum():
    # 2 rows x 100 tokens x (8 x 576 + 2 x 1536) numbers x 4 bytes + 2 rows of 49152 float32 logits
    found = estimate(SMOLLM2_135M, Footprint(rows=2), 100, 28)
    assert found.activation_bytes == 2 * 100 * (8 * 576 + 2 * 1536) * 4 + 2 * 49152 * 4
    assert found.total_bytes == found.weights_bytes + found.kv_cache_bytes + found.activation_bytes


def test_a_score_matrix_grows_with_the_square_and_no_cache_means_the_whole_text_at_once():
    plain, stored = (estimate(SMOLLM2_135M, Footprint(score_matrix=matrix), 100, 28).activation_bytes for matrix in (False, True))
    assert stored - plain == 9 * 100**2 * (4 + 4)
    without = estimate(SMOLLM2_135M, Footprint(kv_share=0), 100, 28).activation_bytes
    assert without - plain == 28 * (8 * 576 + 2 * 1536) * 4
