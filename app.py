"""Serve the page: `python app.py` opens http://localhost:7860.

Flags: --host, --port, --share; GRADIO_SERVER_NAME, GRADIO_SERVER_PORT and GRADIO_SHARE give their defaults. On a Hugging Face Space the
page listens on every address. Agents find the same API at /gradio_api/mcp/, as long as the package mcp is installed. Nothing here imports
torch: models run in worker processes.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from importlib.util import find_spec
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")


PAGES = 256  # open at once: each that watches holds up to three of the events that Gradio handles at a time, 40 if nothing is said


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    on_space = bool(os.environ.get("SPACE_ID"))
    parser = argparse.ArgumentParser(description="Inference Playground: compare ways to run a language model, side by side.")
    parser.add_argument("--host", default=os.environ.get("GRADIO_SERVER_NAME", "0.0.0.0" if on_space else "127.0.0.1"), help="address")
    parser.add_argument("--port", type=int, default=int(os.environ.get("GRADIO_SERVER_PORT", "7860")), help="port (default: 7860)")
    shared = os.environ.get("GRADIO_SHARE", "").lower() in ("1", "true")
    parser.add_argument("--share", action="store_true", default=shared, help="make a public link through Gradio's servers")
    return parser


def _end_without_waiting_for_pages(server: Any) -> None:
    """Each open page holds a stream that would never end by itself: cut them off after a second, without a traceback for each."""
    server.config.timeout_graceful_shutdown = 1
    told = "timeout graceful shutdown exceeded"
    logging.getLogger("uvicorn.error").addFilter(
        lambda record: told not in f"{record.getMessage()} {record.exc_info and record.exc_info[1]}"
    )


def main() -> None:
    """Parse, build, serve until interrupted or terminated."""
    options = arguments().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that a plain `kill`, too, ends the workers and removes temporary files
    from starlette.middleware import Middleware

    from playground.results.store import open_store
    from playground.run.experiment import clear_leftovers
    from playground.run.jobs import Jobs
    from playground.ui.api import answer_agents_in_json
    from playground.ui.first import FirstScripts
    from playground.ui.page import build_page, calm_queue, send_updates_whole
    from playground.ui.theme import look

    clear_leftovers()
    store = open_store()
    if store.warning:
        print(f"Warning: {store.warning}", file=sys.stderr, flush=True)
    jobs = Jobs(store)
    page = build_page(jobs, store).queue(default_concurrency_limit=8, max_size=PAGES * 8)
    calm_queue(page)
    send_updates_whole(page)
    try:
        _, url, _ = page.launch(
            server_name=options.host, server_port=options.port, share=options.share, quiet=True, prevent_thread_lock=True, ssr_mode=False,
            max_threads=PAGES * 3,
            mcp_server=find_spec("mcp") is not None, app_kwargs={"middleware": [Middleware(FirstScripts)]}, **look(),
        )  # fmt: skip
        _end_without_waiting_for_pages(page.server)
        answer_agents_in_json(page)
        print(f"Inference Playground is ready: {url}", flush=True)
        page.block_thread()
    finally:
        jobs.close()
        store.close()


if __name__ == "__main__":
    main()
