"""Writes a small GGUF file: one Llama layer, hidden size 32, Q8_0 blocks, 256 byte tokens, one merge and three special ones."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
from gguf.quants import quantize

HIDDEN, HEADS, FEED, CONTEXT = 32, 2, 64, 96
TEMPLATE = "{% for m in messages %}<|start|>{{ m['content'] }}<|end|>{% endfor %}"


def tokens() -> list[str]:
    """GPT-2's printable stand-ins for the 256 bytes, between three special tokens and one merged pair."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in kept]
    stand_in = {**{byte: chr(byte) for byte in kept}, **{byte: chr(256 + n) for n, byte in enumerate(others)}}
    return ["<|none|>", "<|start|>", "<|end|>", *(stand_in[byte] for byte in range(256)), "ab"]


def weights() -> dict[str, np.ndarray]:
    """Every tensor of the file before quantization, by GGUF name."""
    random = np.random.default_rng(7)
    shapes = {
        "token_embd": (len(tokens()), HIDDEN),
        "output": (len(tokens()), HIDDEN),
        "blk.0.attn_q": (HIDDEN, HIDDEN),
        "blk.0.attn_k": (HIDDEN, HIDDEN),
        "blk.0.attn_v": (HIDDEN, HIDDEN),
        "blk.0.attn_output": (HIDDEN, HIDDEN),
        "blk.0.ffn_gate": (FEED, HIDDEN),
        "blk.0.ffn_up": (FEED, HIDDEN),
        "blk.0.ffn_down": (HIDDEN, FEED),
    }
    norms = ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")
    drawn = {f"{name}.weight": random.normal(0, 0.05, shape).astype(np.float32) for name, shape in shapes.items()}
    return drawn | {f"{name}.weight": np.ones(HIDDEN, dtype=np.float32) for name in norms}


def write(path: Path) -> Path:
    """Write the file and return its path."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(1)
    writer.add_feed_forward_length(FEED)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(tokens()))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens())
    writer.add_token_types([3, 3, 3] + [1] * 257)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_chat_template(TEMPLATE)
    for name, tensor in weights().items():
        if tensor.ndim == 1:
            writer.add_tensor(name, tensor)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, quantize(tensor, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
