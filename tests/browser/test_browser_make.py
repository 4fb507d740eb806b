"""The tab "Make": an adapter made on the page, stopped, found again and compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from driver import LONG_MS, choose_model, open_tab, wait_usable
from playwright.sync_api import Page, expect

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


def begin(page: Page, name: str, steps: int) -> None:
    """Ask for an adapter of the tiny shape, which learns from our text."""
    page.locator("#make-name textarea, #make-name input").first.fill(name)
    choose_model(page, "shape:tiny", "make-model", "Tiny shape (random weights)")
    box = page.locator("#make-adapt-steps input")
    box.fill(str(steps))
    box.blur()
    page.locator("#make").click()


def test_an_adapter_is_made_found_again_after_a_reload_and_put_beside_its_base(visit: Visit) -> None:
    page = visit()
    open_tab(page, "Make")
    progress = page.locator("#make-progress")
    expect(progress).to_contain_text("Nothing is trained until you press Make")
    page.locator("#make").click()
    expect(page.locator("#make-message [role=alert]")).to_contain_text("Give it a name")
    begin(page, "boats", 4)
    expect(progress).to_contain_text("Made.", timeout=LONG_MS)
    expect(page.locator("#make-message")).not_to_contain_text("Not started")
    expect(page.locator("#make-losses .plot")).to_be_visible()
    expect(page.locator("#make-reached")).to_contain_text("Perplexity of your text, held out")
    page.reload()
    wait_usable(page)
    open_tab(page, "Make")
    expect(page.locator("#make-reached h3")).to_have_text("made:boats", timeout=LONG_MS)
    page.locator("#make").click()
    expect(page.locator("#make-message [role=alert]")).to_contain_text("Give it a name")
    page.locator("#make-compare").click()
    expect(page.locator("#summary-1")).to_have_text("LoRA adapter made:boats instead of none")
    expect(page.locator("#model input")).to_have_value("Tiny shape (random weights)")
    open_tab(page, "Make")
    page.locator("#made input").click()
    page.get_by_role("option", name="boats", exact=True).click()
    expect(page.locator("#made-about")).to_contain_text("--set adapter=made:boats")
    page.locator("#made-delete").click()
    expect(page.locator("#made-about")).to_contain_text("boats is deleted")


def test_a_stopped_training_leaves_nothing_and_too_short_a_text_is_said_to_be(visit: Visit) -> None:
    page = visit()
    open_tab(page, "Make")
    begin(page, "endless", 100_000)
    expect(page.locator("#make-progress")).to_contain_text("of 100,000", timeout=LONG_MS)
    page.locator("#make-stop").click()
    expect(page.locator("#make-progress")).to_contain_text("Stopped. Nothing was kept.", timeout=LONG_MS)
    expect(page.locator("#make-compare")).to_have_count(0)
    page.locator("#make-source").get_by_text("your text").click()
    page.locator("#make-text textarea").fill("Too short.")
    begin(page, "endless", 3)
    expect(page.locator("#make-progress [role=alert]")).to_contain_text("The text is too short", timeout=LONG_MS)
