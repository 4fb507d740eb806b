"""One file an engine. See `core.engine` for the contract; importing this package never imports torch."""

from playground.core.engine import Engine
from playground.core.problem import Problem, did_you_mean
from playground.core.registry import discover


def engines() -> dict[str, type[Engine]]:
    """Every engine class by name."""
    return discover("playground.engines", "ENGINE")


def engine_class(name: str) -> type[Engine]:
    """The engine of that name; raises Problem("user") with the nearest name for an unknown one."""
    known = engines()
    if name not in known:
        raise Problem("user", "engine: " + did_you_mean("there is no engine", name, known))
    return known[name]
