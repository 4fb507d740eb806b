"""How events of the page are set up: none is part of the API, and those of a kind share a queue of their own.

Example::

    button.click(handler, inputs, outputs, **FORM)
"""

from __future__ import annotations

from typing import Any

PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
FORM: dict[str, Any] = {**PRIVATE, "concurrency_id": "form", "concurrency_limit": 8}
# What a change asks for while the answer to the change before is on its way must not be dropped, as Gradio does where nothing is said.
ESTIMATE: dict[str, Any] = {**PRIVATE, "concurrency_id": "estimate", "concurrency_limit": 4, "trigger_mode": "always_last"}
WATCH: dict[str, Any] = {**PRIVATE, "concurrency_id": "watch", "concurrency_limit": None}
