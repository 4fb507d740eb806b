"""The README's table of techniques is the one that registry and recordings give today, and it says what they say."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from playground.core.problem import Problem
from playground.engines import engines
from playground.models.recording import FOLDER, Recording, find, read, recordings
from playground.results.techniques_table import BEGIN, END, first_sentence, renewed, table
from playground.techniques import techniques

README = Path(__file__).resolve().parents[2] / "README.md"
RENEW = "python -m playground techniques --write README.md"


def rows(*recorded: Recording) -> dict[str, list[str]]:
    """Cells of the table by the technique's title."""
    lines = table(techniques(), engines(), recorded).splitlines()
    cells = [[cell.strip() for cell in line.removeprefix("| ").removesuffix(" |").split(" | ")] for line in lines]
    return {row[0].strip("*"): row for row in cells[2:]}


def test_the_readme_has_todays_table_of_techniques() -> None:
    text = README.read_text(encoding="utf-8")
    made = table(techniques(), engines(), [read(path) for path in recordings(FOLDER).values()])
    assert renewed(text, made) == text, f"README's table of techniques is not current. Renew it with: {RENEW}"
    assert RENEW in BEGIN


def test_every_technique_has_a_row_with_what_it_is_and_where_it_pays() -> None:
    found = rows()
    assert set(found) == {technique.title for technique in techniques().values()}
    for technique in techniques().values():
        row = found[technique.title]
        assert technique.explain.what.startswith(row[1])
        assert technique.explain.helps.startswith(row[4])
        assert row[4]


def test_an_engine_has_a_technique_or_not_or_all_but_what_it_refuses() -> None:
    found = rows()
    assert found["Batching"][2:4] == ["yes", "yes"]
    assert found["Fusion"][2:4] == ["no", "yes"]
    assert found["Draft model"][2:4] == ["yes", "no"]
    assert found["Weight-only quantization"][3] == "yes, but not fp8 on cpu"
    assert found["Quantization"][3] == "yes", "what an engine has by default makes int8 possible"


def test_an_effect_is_a_ratio_to_the_baseline_with_machine_and_date() -> None:
    quantized = rows(read(find("h200-smollm2-135m-quantization")))["Quantization"][5]
    assert "nf4: time per token × 1.31, weights × 0.433" in quantized  # 24.4 over 18.6 ms, 116 over 269 MB
    assert quantized.endswith("(smollm2-135m-instruct, 42 tokens in, transformers, fp16, NVIDIA H200, 2026-11-22)")


def test_a_run_out_of_memory_is_told_in_place_of_ratios() -> None:
    recording = read(find("h200-llama-3.1-70b-offloading"))
    assert rows(recording)["Offloading"][5].startswith("Offload none: runs out of memory; cpu: time per token × 5.46")
    first, second = recording.specs[:2]
    turned = dataclasses.replace(recording, specs=(second, first), events=recording.events[1::-1])
    told = rows(turned)["Offloading"][5]
    assert told.startswith("pinned, Share offloaded 0.2: runs where the baseline runs out of memory (")


def test_a_line_names_what_its_baseline_has_that_no_device_has_by_default() -> None:
    compiled = rows(read(find("h200-llama-3.2-1b-torchao-compiled")))["torchao"][5]
    assert "transformers, KV cache static, reduce_overhead, NVIDIA H200" in compiled
    kernels = rows(read(find("h200-llama-3.2-1b-attention-kernels")))["Attention"][5]
    assert kernels.endswith("(llama-3.2-1b, 8,192 tokens in, transformers, sdpa_math, NVIDIA H200, 2026-11-28)")


def test_a_difference_that_the_intervals_do_not_show_is_called_none() -> None:
    assert "KV cache off: no difference in time per token shown" in rows(read(find("h200-llama-3.2-1b-kv-cache")))["KV cache"][5]


def test_a_variant_that_differs_in_two_techniques_is_held_against_the_first_that_differs_in_one() -> None:
    found = rows(read(find("h200-llama-3.1-8b-quantization")))["Quantization"][5]
    assert "int8: time per token × 4.15, weights × 0.566, against fp16" in found  # 84.3 over 20.3 ms; the baseline has bf16
    compiled = rows(read(find("epyc-smollm2-135m-compiled-graph")))["Compiled graph"][5]
    assert compiled.startswith("default: time per token × 0.838, throughput × 1.19, against static cache")  # 50.7 over 60.5 ms


def test_a_variant_in_another_engine_shows_the_effect_of_no_technique() -> None:
    found = rows(read(find("h200-llama-3.2-1b-launch-bound")))  # bf16 and nf4 in transformers, bf16 and int4 in graph
    assert {title for title, row in found.items() if row[5]} == {"Quantization", "Weight-only quantization"}
    assert found["Weight-only quantization"][5].endswith("(llama-3.2-1b, 61 tokens in, graph, NVIDIA H200, 2026-11-23)"), (
        "the engine of both"
    )
    assert found["Weight-only quantization"][5].startswith("int4: ")


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("One thing. Another.", "One thing"),
        ("Reads 1.5 GB, e.g. weights. More.", "Reads 1.5 GB, e.g. weights"),
        ("No full stop", "No full stop"),
        ("fp16 is small. bf16 too.", "fp16 is small"),
    ],
)
def test_the_first_sentence_ends_at_its_full_stop(text: str, first: str) -> None:
    assert first_sentence(text) == first


def test_a_file_without_the_marks_is_refused_and_one_with_them_keeps_the_rest() -> None:
    assert renewed(f"a\n{BEGIN}\nold\n{END}\nb", "new") == f"a\n{BEGIN}\nnew\n{END}\nb"
    with pytest.raises(Problem, match="There is no place for the table"):
        renewed(f"a\n{END}\n{BEGIN}", "new")
