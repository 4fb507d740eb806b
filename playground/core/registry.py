"""One file = one thing: every module of a package that defines the named attribute is found, without a second list of names.

Example::

    discover("playground.techniques", "TECHNIQUE")   # {"precision": <Precision>, ...}
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any


@functools.cache
def discover(package: str, attribute: str) -> dict[str, Any]:
    """Objects called `attribute` in the modules of `package`, by their `.name`, in alphabetical order of the modules."""
    root = importlib.import_module(package)
    found: dict[str, Any] = {}
    for info in sorted(pkgutil.iter_modules(root.__path__), key=lambda item: item.name):
        thing = getattr(importlib.import_module(f"{package}.{info.name}"), attribute, None)
        if thing is None:
            continue
        if thing.name in found:
            raise ValueError(f"two modules of {package} define {thing.name!r}")
        found[thing.name] = thing
    return found
