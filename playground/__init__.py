"""Inference Playground: measure, compare and explain what inference optimisations of language models do.

Eight rooms on six floors, every import arrow points down: `core` is the ground; `models`, `techniques` and `measure`
stand on it; `engines` and `results` on those; `run` above them; `ui` and `cli` on top. Example::

    python -m playground run --model shape:tiny --variant precision=bf16 --max-new-tokens 8
"""

__version__ = "0.1.0"
