"""Tokenizers: the pieces of a stream make the whole text, whatever the tokens split."""

from __future__ import annotations

import random

import pytest
import tiny_gguf as tiny

from playground.models.resolve import resolve
from playground.models.tokenizer import ByteTokenizer, FolderTokenizer, load_tokenizer

TEXTS = ["plain words, and more", "emoji 👩‍🚀🎉 end", "中文分词测试，你好", "mixed é 日本 🤖\n\ttabs", "  two leading spaces"]


def streamed(tokenizer, ids) -> str:
    piece = tokenizer.pieces()
    return "".join(piece(token_id) for token_id in ids)


@pytest.fixture
def byte_level(tmp_path):
    """A tokenizer whose every token is one byte, so that each non-ASCII character is split."""
    return saved(tmp_path, {token: i for i, token in enumerate(tiny.tokens())}, "ByteLevel")


@pytest.fixture
def byte_fallback(tmp_path):
    """A Llama 2 style tokenizer: words with a leading ▁, and single bytes for what it has no word for."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrstuvwxyz,", "▁hello", "▁world"]
    return saved(tmp_path, {token: i for i, token in enumerate(words)}, "ByteFallback")


def saved(folder, vocabulary, style):
    import tokenizers
    from tokenizers import decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    backend = tokenizers.Tokenizer(
        models.BPE(vocabulary, [], byte_fallback=style == "ByteFallback", unk_token="<unk>" if "<unk>" in vocabulary else None)
    )
    special = {"eos_token": "<|end|>", "bos_token": "<|start|>"}
    if style == "ByteLevel":
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
    else:
        special = {"eos_token": "</s>", "bos_token": "<s>"}
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "llama", "eos_token_id": [7, 8]}')
    return FolderTokenizer(folder)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("style", ["byte_level", "byte_fallback"])
def test_the_pieces_make_the_whole_text(request, style, text):
    tokenizer = request.getfixturevalue(style)
    ids = tokenizer.encode(text)
    assert len(ids) >= len(text)
    assert streamed(tokenizer, ids) == tokenizer.decode(ids) == text


def test_a_character_is_said_when_its_last_byte_is_there_and_not_before(byte_level):
    piece = byte_level.pieces()
    assert [piece(token_id) for token_id in byte_level.encode("a🎉b")] == ["a", "", "", "", "🎉", "b"]


def test_special_tokens_are_shown_as_nothing(byte_level):
    a, b = byte_level.encode("ab")
    end = next(iter(byte_level.eos_ids - {7, 8}))
    assert streamed(byte_level, [a, *[end] * 50, b]) == "ab"


def test_random_bytes_neither_stop_the_stream_nor_lose_text(byte_level):
    noise = [random.Random(5).randrange(3, 259) for _ in range(3000)]
    whole = byte_level.decode(noise)
    said = streamed(byte_level, noise)
    assert whole.startswith(said)
    assert whole[len(said) :].strip("\ufffd") == ""
    assert len(whole) - len(said) < 64


def test_one_incomplete_byte_again_and_again_is_still_said(byte_level):
    lead = byte_level.encode("🎉")[0]
    assert len(streamed(byte_level, [lead] * 500)) > 500 - 65


def test_end_tokens_come_from_the_tokenizer_and_the_configuration(byte_level, tmp_path):
    own = byte_level._tokenizer.eos_token_id
    assert byte_level.eos_ids == {own, 7, 8}
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [9, 10]}')
    assert FolderTokenizer(tmp_path).eos_ids == {own, 7, 8, 9, 10}


def test_without_a_template_there_is_no_chat_text(byte_level):
    assert byte_level.chat("hello") is None


def test_a_shape_without_the_default_model_counts_bytes(home):
    tokenizer = load_tokenizer(resolve("shape:llama-3.2-1b", lambda event: None))
    assert isinstance(tokenizer, ByteTokenizer)
    assert tokenizer.encode("é") == (0xC3, 0xA9)
    assert tokenizer.chat("hello") is None
    assert tokenizer.eos_ids == frozenset()
    assert tokenizer.vocab_size == 128256


@pytest.mark.parametrize("text", TEXTS)
def test_byte_pieces_make_the_whole_text(text):
    tokenizer = ByteTokenizer(512)
    assert streamed(tokenizer, tokenizer.encode(text)) == text


def test_ids_that_are_no_bytes_show_as_a_dot():
    assert streamed(ByteTokenizer(512), [104, 300, 105]) == "h·i"


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_the_default_model_streams_every_text_whole(default_model, text):
    tokenizer = load_tokenizer(default_model)
    ids = tokenizer.encode(text)
    assert streamed(tokenizer, ids) == tokenizer.decode(ids) == text


@pytest.mark.slow
def test_the_default_model_has_its_chat_template_with_one_start_token_a_message(default_model):
    tokenizer = load_tokenizer(default_model)
    text = tokenizer.chat("Hello")
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    ids = tokenizer.encode_chat(text)
    start, end = tokenizer.encode_chat("<|im_start|><|im_end|>")
    assert (ids.count(start), ids.count(end)) == (3, 2)
    assert tokenizer.eos_ids == {end}


@pytest.mark.slow
def test_a_shape_uses_the_default_model_s_tokenizer_where_it_fits(default_model):
    fits = load_tokenizer(resolve("shape:llama-3.2-1b", lambda event: None))
    assert fits.encode("hello") == load_tokenizer(default_model).encode("hello")
    assert streamed(fits, [100_000]) == "·"
    assert isinstance(load_tokenizer(resolve("shape:tiny", lambda event: None)), ByteTokenizer)
