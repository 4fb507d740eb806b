"""The catalogue: what is offered, and what a broken file says."""

from __future__ import annotations

import pytest

from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL
from playground.models.catalogue import catalogue, find

SHAPE = """
[[shape]]
name = "one"
title = "One"
parameters = 1
note = ""
[shape.config]
model_type = "llama"
hidden_size = 8
intermediate_size = 8
num_hidden_layers = 1
num_attention_heads = 1
num_key_value_heads = 1
head_dim = 8
vocab_size = 8
max_position_embeddings = 8
"""
MODEL = '[[model]]\nname = "a"\nkind = "hub"\ntitle = "A"\nhub = "x/a"\nparameters = 1\nlicence = "MIT"\n'


def test_the_default_and_the_shapes_that_the_page_promises_are_there():
    names = {entry.name for entry in catalogue()}
    assert names >= {DEFAULT_MODEL, "shape:tiny", "shape:llama-3.2-1b", "shape:llama-3.1-8b", "shape:qwen3-0.6b"}
    assert catalogue()[0].name == DEFAULT_MODEL


def test_every_entry_says_what_a_person_needs_to_choose_it():
    for entry in catalogue():
        assert entry.title, entry.name
        assert entry.note, entry.name
        assert entry.parameters > 0, entry.name
        assert entry.kind == "shape" or (entry.hub and entry.licence), entry.name


def test_a_model_is_found_by_its_name_and_by_its_hub_id():
    assert find("qwen3-0.6b") == find("Qwen/Qwen3-0.6B")
    assert find("qwen3-0.6b").config["num_hidden_layers"] == 28
    assert find("nothing") is None


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[model", "cannot be read"),
        ("[[modle]]", "there is no table 'modle'; did you mean 'model'"),
        ("model = 1", r"write each model as a \[\[model\]\] table"),
        (MODEL.replace("licence", "license"), "there is no setting 'license'; did you mean 'licence'"),
        (MODEL.replace('licence = "MIT"\n', ""), "model 'a': licence is missing"),
        (MODEL.replace("parameters = 1", 'parameters = "1"'), "parameters must be a whole number, got '1'"),
        (MODEL.replace('"hub"', '"hubb"'), "did you mean 'hub'"),
        (MODEL + 'shape = "ome"\n' + SHAPE, "there is no shape 'ome'; did you mean 'one'"),
        (MODEL + MODEL, "the name 'a' is there twice"),
        (SHAPE.replace("head_dim = 8", "head_dim = 0"), "config.head_dim must be a whole number above 0, got 0"),
        (SHAPE.replace('model_type = "llama"', ""), "config.model_type must be a text"),
    ],
)
def test_a_broken_file_says_what_is_wrong_in_it(tmp_path, text, sentence):
    path = tmp_path / "models.toml"
    path.write_text(text)
    with pytest.raises(Problem, match=sentence):
        catalogue(path)


def test_a_file_that_is_right_is_read(tmp_path):
    path = tmp_path / "models.toml"
    path.write_text(MODEL + 'shape = "one"\n' + SHAPE)
    model, shape = catalogue(path)
    assert (model.name, model.kind, model.config) == ("a", "hub", shape.config)
    assert shape.name == "shape:one"
