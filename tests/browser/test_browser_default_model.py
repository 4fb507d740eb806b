"""The main job on the real default model: two variants, text, live points, final charts, numbers, Stop, reload, the next run."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from driver import Server, close_without_errors, column, differ, open_page, run, set_number, status, wait_done, wait_points, wait_usable
from playwright.sync_api import Browser, Page, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]
FIVE_MINUTES_MS = 300_000


@pytest.fixture(scope="module")
def model_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app with the kept test models, so that the default model is fetched once and not for every test run."""
    home = tmp_path_factory.mktemp("model-home")
    (home / "models").symlink_to(Path(os.environ["PLAYGROUND_HOME"]) / "models", target_is_directory=True)
    server = Server(home)
    yield server
    server.stop()
    (home / "models").unlink()


@pytest.fixture
def model_page(model_server: Server, browser: Browser) -> Iterator[Callable[[], Page]]:
    pages: list[Page] = []

    def make() -> Page:
        pages.append(open_page(browser, model_server.url))
        set_number(pages[-1], "max-new-tokens", 24)
        set_number(pages[-1], "repeats", 2)
        return pages[-1]

    yield make
    close_without_errors(pages)


def test_the_main_job_on_the_default_model(model_page: Callable[[], Page]) -> None:
    page = model_page()
    expect(page.locator("#estimate")).to_contain_text("MB")
    differ(page, 1, "Quantization", "nf4")
    run(page)
    expect(column(page, 0).locator(".said")).to_contain_text("Paris", timeout=FIVE_MINUTES_MS)
    wait_points(page, 5)
    wait_done(page, FIVE_MINUTES_MS)
    for index in (0, 1):
        numbers = column(page, index).locator(".numbers")
        itl = numbers.locator("> div").filter(has_text="Inter-token latency").locator("dd").first
        assert re.fullmatch(r"[\d.,]+ (ms|s)", itl.inner_text())
        expect(column(page, index)).to_contain_text("Precision: ")
    expect(column(page, 1)).to_contain_text("210 of 210 Linear layers are Linear4bit (nf4")
    for panel in ("ttft_s", "itl_s", "memory", "output_tokens_per_s", "kld_mean", "ppl"):
        expect(page.locator(f'#final-charts [data-panel="{panel}"] .js-plotly-plot')).to_be_visible()
    table = page.locator("#comparison table").first
    weights = table.locator("tr").filter(has=page.get_by_text("Weights", exact=True))
    expect(weights).to_contain_text("269 MB")
    expect(weights).to_contain_text(re.compile(r"11[36] MB"))  # nf4 scales: 32 bits a block on a GPU, 16 on a CPU
    divergence = table.locator("tr").filter(has=page.get_by_text("KL divergence, mean", exact=True)).locator("td").nth(1)
    assert 0.05 < float(re.search(r"[\d.]+", divergence.inner_text())[0]) < 2  # type: ignore[index]
    expect(table).to_contain_text("noise floor")
    expect(table).to_contain_text("no energy counter is read on a CPU")
    for index in (0, 1):
        expect(column(page, index).locator(".verdict .bound")).to_be_visible()
    expect(page.locator("#comparison .predictions")).to_contain_text("Weights")
    expect(page.locator("#comparison")).to_contain_text("Quantization")  # what was expected of it
    expect(page.locator('#final-charts [data-panel="roofline"] .js-plotly-plot')).to_be_visible()
    page.get_by_role("button", name="Exact input").click()
    expect(page.locator("#prepared")).to_contain_text("<|im_start|>user")
    expect(page.locator("#prepared")).to_contain_text("tokens")
    set_number(page, "max-new-tokens", 32)
    expect(page.locator("#estimate")).to_contain_text("tokens/s", timeout=20_000)  # this machine was measured by the run


def test_stop_reload_and_the_next_run_on_the_default_model(model_page: Callable[[], Page]) -> None:
    page = model_page()
    set_number(page, "max-new-tokens", 400)
    run(page)
    expect(column(page, 0).locator(".said")).to_contain_text("Paris", timeout=FIVE_MINUTES_MS)
    page.reload()
    wait_usable(page)
    expect(column(page, 0).locator(".said")).to_contain_text("Paris", timeout=30_000)
    expect(status(page)).to_have_class(re.compile("running"))
    page.get_by_role("button", name="Stop", exact=True).click()
    expect(status(page)).to_have_class(re.compile("cancelled"), timeout=20_000)
    set_number(page, "max-new-tokens", 8)
    page.get_by_label("Score output quality").uncheck()
    run(page)
    wait_done(page, FIVE_MINUTES_MS)
    expect(column(page, 1)).to_contain_text("done")


def test_an_unknown_model_fails_with_a_sentence_and_the_form_keeps_what_was_typed(model_page: Callable[[], Page]) -> None:
    page = model_page()
    box = page.locator("#model input")
    box.click()
    box.fill("shape:lama-3.1-8b")
    box.press("Enter")
    box.blur()
    run(page)
    expect(page.locator("main, body").first).to_contain_text("did you mean 'shape:llama-3.1-8b'", timeout=60_000)
    expect(box).to_have_value("shape:lama-3.1-8b")
