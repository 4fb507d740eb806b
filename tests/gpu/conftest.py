"""All tests of this folder need a CUDA device, and are skipped with the reason where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from playground.measure.machine import probe


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    """pytest hands over the items of all folders."""
    machine = probe()
    missing = pytest.mark.skipif(machine.device != "cuda", reason=f"needs a CUDA device: {machine.no_cuda or 'none found'}")
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            item.add_marker(missing)
