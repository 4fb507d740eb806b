"""GGUF files: converted once, with the right numbers, and checked before anything loads them."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest
import tiny_gguf as tiny
from full_disk import ELSEWHERE, FILE_TOO_LARGE, files_end_at

from playground.core.problem import Problem
from playground.models.resolve import peek, resolve

torch = pytest.importorskip("torch")


def refused(path) -> str:
    with pytest.raises(Problem) as caught:
        resolve(str(path), lambda event: None)
    assert caught.value.kind == "model"
    return caught.value.message


def test_a_gguf_file_becomes_a_folder_with_its_weights_dequantised_in_float32(home, tiny_gguf):
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize, quantize
    from safetensors.torch import load_file

    events = []
    model = resolve(str(tiny_gguf), events.append)
    assert model.kind == "gguf"
    assert model.source == "tiny.gguf, weights dequantised from GGUF Q8_0 to float32"
    assert "quantization_config" not in model.config
    assert events[-1].done == events[-1].total == 4 * sum(tensor.size for tensor in tiny.weights().values())
    found = load_file(model.folder / "model.safetensors")
    for ours, theirs in [("blk.0.ffn_up", "model.layers.0.mlp.up_proj"), ("token_embd", "model.embed_tokens"), ("output", "lm_head")]:
        kind = GGMLQuantizationType.Q8_0
        expected = dequantize(quantize(tiny.weights()[f"{ours}.weight"], kind), kind)
        assert np.array_equal(found[f"{theirs}.weight"].numpy(), expected), ours


def test_tokenizer_chat_template_and_end_token_come_with_it(home, tiny_gguf):
    from playground.models.tokenizer import load_tokenizer
    from playground.models.weights import load_pretrained

    model = resolve(str(tiny_gguf), lambda event: None)
    tokenizer = load_tokenizer(model)
    assert tokenizer.chat("hi") == "<|start|>hi<|end|>"
    assert tokenizer.encode_chat("<|start|>hi<|end|>") == (1, tokenizer.encode("h")[-1], tokenizer.encode("i")[-1], 2)
    assert tokenizer.eos_ids == {2}
    loaded = load_pretrained(model.folder, torch.float32, "cpu")
    assert torch.isfinite(loaded(torch.tensor([tokenizer.encode("hello")])).logits).all()


def test_a_converted_file_is_not_converted_again_until_it_changes(home, tiny_gguf):
    first = resolve(str(tiny_gguf), lambda event: None)

    def refuse(event):
        raise AssertionError(event)

    assert resolve(str(tiny_gguf), refuse) == first
    os.utime(tiny_gguf, (1, 1))
    assert resolve(str(tiny_gguf), lambda event: None).folder != first.folder


def test_a_disk_that_fills_while_a_file_is_converted_is_a_sentence_and_the_next_try_works(home, tiny_gguf):
    with files_end_at(tiny_gguf.stat().st_size):
        message = refused(tiny_gguf)
    folder = home / "models" / "gguf"
    assert message == f"{FILE_TOO_LARGE}: {tiny_gguf.name} does not fit into {folder}. {ELSEWHERE}"
    assert [path for path in folder.iterdir() if path.is_dir()] == []
    assert resolve(str(tiny_gguf), lambda event: None).folder.parent == folder


def test_a_converted_folder_that_was_damaged_is_made_again(home, tiny_gguf):
    model = resolve(str(tiny_gguf), lambda event: None)
    weights = model.folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-10])
    assert resolve(str(tiny_gguf), lambda event: None).folder == model.folder
    assert weights.stat().st_size == len(whole)


def test_two_at_once_convert_once_and_leave_nothing_behind(home, tiny_gguf):
    models, starts = [], []

    def work():
        models.append(resolve(str(tiny_gguf), lambda event: starts.append(event) if event.done == 0 and event.total else None))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(models) == 2
    assert models[0] == models[1]
    assert len(starts) == 1
    assert [path.name for path in models[0].folder.parent.iterdir() if ".part-" in path.name] == []


def test_stopping_in_the_middle_leaves_nothing_behind_and_the_next_try_works(home, tiny_gguf):
    class Stopped(Exception):
        pass

    def stop(event):
        raise Stopped

    with pytest.raises(Stopped):
        resolve(str(tiny_gguf), stop)
    assert [path.name for path in (home / "models" / "gguf").iterdir() if path.is_dir()] == []
    assert resolve(str(tiny_gguf), lambda event: None).kind == "gguf"


def test_peek_reads_the_header_only(home, tiny_gguf):
    facts = peek(str(tiny_gguf))
    assert (facts.kind, facts.config["max_position_embeddings"]) == ("gguf", tiny.CONTEXT)
    expected = {"num_hidden_layers": 1, "hidden_size": 32, "head_dim": 16, "vocab_size": 260, "tie_word_embeddings": False}
    assert {name: facts.config[name] for name in expected} == expected
    assert not (home / "models").exists()


def test_a_truncated_file_is_found_with_the_bytes_expected_and_found(home, tiny_gguf):
    data = tiny_gguf.read_bytes()
    tiny_gguf.write_bytes(data[: len(data) // 2 + 5000])
    message = refused(tiny_gguf)
    assert "is cut short" in message
    assert f"{len(data) // 2 + 5000:,} found" in message
    assert int(message.split("cut short: ")[1].split()[0].replace(",", "")) in range(len(data) - 32, len(data) + 1)
    for length in (0, 3, 23, 24, 100, 3000):
        tiny_gguf.write_bytes(data[:length])
        assert "cut short" in refused(tiny_gguf), length


def test_another_format_is_told_from_a_gguf_file(home, tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"PK\x03\x04" + bytes(100))
    assert "is not a GGUF file" in refused(tmp_path / "x.gguf")
    (tmp_path / "x.gguf").write_bytes(b"GGUF\x01\x00\x00\x00" + bytes(100))
    assert "has GGUF version 1" in refused(tmp_path / "x.gguf")


def test_an_architecture_that_transformers_does_not_know_is_named(home, tmp_path):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "odd.gguf", "oddity")
    writer.add_tensor("x.weight", np.zeros((32, 32), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert "transformers cannot convert odd.gguf" in refused(tmp_path / "odd.gguf")


@pytest.mark.parametrize(("key", "value"), [("llama.attention.head_count", 0), ("general.alignment", 0)])
def test_a_header_with_a_zero_where_none_can_be_gives_no_facts(home, tmp_path, key, value):
    import gguf

    writer = gguf.GGUFWriter(tmp_path / "zero.gguf", "llama")
    writer.add_embedding_length(32)
    writer.add_head_count(2 if key != "llama.attention.head_count" else value)
    if key == "general.alignment":
        writer.add_uint32(key, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert peek(str(tmp_path / "zero.gguf")) is None
