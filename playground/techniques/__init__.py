"""One file an optimisation. See `core.technique` for the contract; importing this package never imports torch."""

from playground.core.registry import discover
from playground.core.technique import Technique


def techniques() -> dict[str, Technique]:
    """Every technique by name."""
    return discover("playground.techniques", "TECHNIQUE")
