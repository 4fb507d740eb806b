"""What several tests of the page share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from test_ui_form import WORLD

from playground.results.store import Store
from playground.run.jobs import Jobs
from playground.ui.handlers import App


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An App with a queue and a store of its own."""
    store = Store(tmp_path / "results.sqlite")
    jobs = Jobs(store)
    yield App(jobs, store, WORLD)
    jobs.close()
    store.close()
