"""The real app as a subprocess and a real browser; both once for all browser tests."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator

import pytest

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -r tests/requirements.txt")

from driver import CHROMIUM_FLAGS, LONG_MS, Server, choose_engine, choose_model, chromium_path, close_without_errors, open_page
from playwright.sync_api import Browser, Page, expect, sync_playwright

PAGES = pytest.StashKey[list[Page]]()
expect.set_options(timeout=LONG_MS)  # models run beside the browsers: on two cores five seconds can pass before a page answers


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app on a free port."""
    server = Server(tmp_path_factory.mktemp("browser-home"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure says what its pages said besides what it looked at."""
    report = yield
    if report.failed:
        for page in (page for page in item.stash.get(PAGES, []) if not page.is_closed()):
            texts = [
                text for text in page.locator("#message, #make-message, #sweep-message, #history-said").all_inner_texts() if text.strip()
            ]
            report.sections.append((page.url, "\n".join([*texts, *page.__dict__["console"][-20:]])))
    return report


@pytest.fixture
def visit(server: Server, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Callable[..., Page]]:
    """visit(width=400) opens the page as a new visitor; a script error on any page fails the test."""
    pages: list[Page] = []
    request.node.stash[PAGES] = pages

    def make(**size: int) -> Page:
        pages.append(open_page(browser, server.url, **size))
        return pages[-1]

    yield make
    close_without_errors(pages)


@pytest.fixture
def scripted(visit: Callable[..., Page]) -> Callable[..., Page]:
    """scripted("step_ms=20") opens the page with the scripted engine and that script."""

    def make(script: str = "step_ms=15,weights_mb=270", **size: int) -> Page:
        page = visit(**size)
        choose_engine(page, "Scripted")
        choose_model(page, f"script:{script}")
        return page

    return make
