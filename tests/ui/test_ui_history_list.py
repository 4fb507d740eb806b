"""The list of the tab "History" without a browser: safe to show, named, and with what can be done."""

from __future__ import annotations

from typing import Any

from playground.results.listing import Line, Page, RunLine
from playground.ui.history_list import ACTIONS, list_html

EVIL = "<img src=x onerror=alert(1)>&\"'"
SAFE = "&lt;img src=x onerror=alert(1)&gt;&amp;&quot;&#x27;"


def line(**given: Any) -> Line:
    ttft = {"value": 0.25, "low": None, "high": None, "kind": "measured"}
    absent = {"value": None, "low": None, "high": None, "kind": "not_available"}
    runs = [
        RunLine(index=0, label="fp32", model="m", status="done", fingerprint="f", device="cpu", metrics={"ttft_s": ttft, "itl_s": absent}),  # type: ignore[typeddict-item]
        RunLine(index=1, label="", model="other", status="cancelled", fingerprint="g", device="cpu", metrics={}),
    ]
    usual: dict[str, Any] = {
        "id": "k3x9abcd", "title": "Title", "source": "", "created_at": "2026-01-02T03:04:05+00:00", "label": "", "note": "",
        "pinned": False, "model": "m", "status": "done", "statuses": ["done"], "techniques": ["precision"], "devices": ["My CPU"],
        "runs": runs,
    }  # fmt: skip
    return Line(**{**usual, **given})  # type: ignore[typeddict-item]


def html(*lines: Line, filtered: bool = False) -> str:
    return list_html(Page(total=len(lines), experiments=list(lines), facets={}), filtered)


def test_whatever_a_person_or_a_file_wrote_is_text() -> None:
    evil_run = RunLine(index=0, label=EVIL, model=EVIL, status=EVIL, fingerprint="", device="", metrics={})
    page = html(line(id=EVIL, title=EVIL, label=EVIL, note=EVIL, status=EVIL, devices=[EVIL], created_at=EVIL, runs=[evil_run]))
    assert "<img" not in page
    assert page.count(SAFE) > 10


def test_a_line_names_what_ran_when_and_where_and_what_can_be_done_with_it() -> None:
    page = html(line())
    assert "2026-01-02 03:04 UTC · My CPU · Precision" in page
    assert "250 ms" in page
    assert page.count('<td class="none">–</td>') == 4 + 5, "what was not measured is not 0"
    assert "other <small>stopped</small>" in page
    assert 'data-run="k3x9abcd:1" aria-label="Choose other"' in page
    for do, words in ACTIONS:
        assert f'data-do="{do}" data-id="k3x9abcd">{words}</button>' in page
    assert 'aria-label="Pinned"' not in page


def test_a_label_takes_the_place_of_the_title_which_stands_below_and_a_pin_can_be_taken_away() -> None:
    page = html(line(label="Mine", note="of the day", pinned=True))
    assert ">Mine</button>" in page
    assert "Title<br>" in page
    assert '<p class="noted">of the day</p>' in page
    assert 'data-do="pin" data-id="k3x9abcd">Unpin</button>' in page
    assert 'aria-label="Pinned"' in page


def test_an_empty_list_says_how_to_fill_it_or_that_nothing_fits() -> None:
    assert "press Run: it will stand here" in html()
    assert "No experiment fits these filters" in html(filtered=True)
