"""A disk that fills, as far as one process can see."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

FILE_TOO_LARGE = "The disk takes no file of that size"
ELSEWHERE = "Free some room, or name another place in $PLAYGROUND_HOME."


@contextlib.contextmanager
def files_end_at(size: int) -> Iterator[None]:
    """No file of this process grows beyond that many bytes."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
