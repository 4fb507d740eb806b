"""Models of the Hugging Face hub, kept in the hub's own cache. What is there once is never looked up again.

Fetches safetensors, configuration and tokenizer files only, never pickles. A hub that does not answer costs a few seconds at most.
Example::

    resolve_hub("qwen3-0.6b", "Qwen/Qwen3-0.6B", print).source   # "Qwen/Qwen3-0.6B @ c1899de"
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from playground.core.problem import Problem
from playground.models.folder import HOW_TO_CONVERT, PICKLES, WHY_NO_PICKLE, check_folder, has_chat_template, peek_folder
from playground.models.model import ModelFacts, OnProgress, ResolvedModel, told

ANSWER_S = 3.0
FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
NOT_FILES = ["*/*", "consolidated*"]  # other formats and copies of the same weights
T = TypeVar("T")


class Unreachable(Problem):
    """The hub does not answer, or this machine is told not to ask it."""


def resolve_hub(name: str, hub_id: str, progress: OnProgress) -> ResolvedModel:
    """The snapshot in the hub's cache, fetched if it is not there; raises Problem("model"), Unreachable where no hub answers."""
    folder = cached(hub_id) or _fetch(hub_id, progress)
    return ResolvedModel(name, folder, "hub", f"{hub_id} @ {folder.name[:7]}", check_folder(folder))


def cached(hub_id: str) -> Path | None:
    """The folder of a complete snapshot on this machine, None otherwise. No network."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=FILES, ignore_patterns=NOT_FILES))
        check_folder(folder)
    except (LocalEntryNotFoundError, HFValidationError, Problem):
        return None
    return folder


def peek_hub(name: str, hub_id: str) -> ModelFacts | None:
    """Facts from config.json, out of the cache or fetched within a few seconds; None where neither works."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json") if hub_id.count("/") == 1 else None
    if isinstance(found, str):
        facts = peek_folder(name, Path(found).parent)
        template = True if has_chat_template(Path(found).parent) else None
        return ModelFacts(name, "hub", facts.config, has_chat_template=template) if facts else None
    try:
        path = _start(lambda: hf_hub_download(hub_id, "config.json", etag_timeout=ANSWER_S)).result(ANSWER_S)
        return ModelFacts(name, "hub", json.loads(Path(path).read_text(encoding="utf-8")))
    except _errors():
        return None


def _fetch(hub_id: str, progress: OnProgress) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    told(progress, f"asking the hub for {hub_id}", 0, None, "")
    try:
        info = _start(lambda: HfApi().model_info(hub_id, timeout=ANSWER_S, files_metadata=True)).result(ANSWER_S + 1)
        sizes = {item.rfilename: item.size or 0 for item in info.siblings or []}
        _check_listing(hub_id, list(sizes))
        total = sum(size for file, size in sizes.items() if _wanted(file))
        counts: dict[int, float] = {}
        bar = _counting_bar(counts)
        future = _start(
            lambda: snapshot_download(hub_id, allow_patterns=FILES, ignore_patterns=NOT_FILES, etag_timeout=ANSWER_S, tqdm_class=bar)
        )
        while not future.done():
            told(progress, f"fetching {hub_id}", min(total, max(counts.values(), default=0)), total)
            wait([future], timeout=0.2)
        folder = Path(future.result())
        told(progress, f"fetching {hub_id}", total, total)
    except _errors() as error:
        raise _explained(hub_id, error) from error
    return folder


def _wanted(file: str) -> bool:
    return any(fnmatch(file, pattern) for pattern in FILES) and not any(fnmatch(file, pattern) for pattern in NOT_FILES)


def _check_listing(hub_id: str, files: list[str]) -> None:
    if any(file.endswith(".safetensors") and _wanted(file) for file in files):
        return
    if pickles := [file for file in files if file.endswith(PICKLES)]:
        raise Problem("model", f"{hub_id} has its weights only as a pickle ({pickles[0]}). {WHY_NO_PICKLE} {HOW_TO_CONVERT}")
    if ggufs := [file for file in files if file.endswith(".gguf")]:
        raise Problem("model", f"{hub_id} holds GGUF files: download one, such as {ggufs[0]}, and give its path as the model.")
    raise Problem("model", f"{hub_id} has no safetensors weights: it is not a model that can be loaded here.")


def _errors() -> tuple[type[Exception], ...]:
    """What the hub's client raises when something is wrong outside this program; transport errors are no OSError."""
    from huggingface_hub import errors

    return (OSError, ValueError, TimeoutError, getattr(errors, "HTTPError", OSError), errors.HfHubHTTPError)


def _explained(hub_id: str, error: Exception) -> Problem:
    from huggingface_hub import constants, errors

    detail = f"{type(error).__name__}: {error}"
    cause = error.__cause__ if isinstance(error, errors.LocalEntryNotFoundError) and error.__cause__ else error
    if isinstance(cause, errors.GatedRepoError):
        page = f"{constants.ENDPOINT}/{hub_id}"
        return Problem("model", f"{hub_id} is gated: accept its licence on {page}, then run `hf auth login` or set HF_TOKEN.", detail)
    if isinstance(cause, errors.RepositoryNotFoundError | errors.HFValidationError):
        return Problem("model", f"The hub has no model {hub_id!r}. Check the spelling; for a private model run `hf auth login`.", detail)
    if isinstance(cause, OSError) and not isinstance(cause, errors.HfHubHTTPError | ConnectionError) and cause.errno == 28:
        return Problem("model", f"The disk is full: {hub_id} does not fit into {constants.HF_HUB_CACHE}.", detail)
    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the model hub does not answer"
    what = "Without it the default model smollm2-135m-instruct, shapes such as shape:llama-3.2-1b, folders and .gguf files work."
    return Unreachable("model", f"{hub_id} is not on this machine and cannot be fetched: {why}. {what}", detail)


def _start(function: Callable[[], T]) -> Future[T]:
    """Run in a daemon thread: name look-ups and sockets without a time limit must hold up neither the caller nor the end of the process."""
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name="hub").start()
    return future


def _counting_bar(counts: dict[int, float]) -> Any:
    """A tqdm class that shows nothing and counts the bytes of each bar in `counts`."""
    from tqdm.std import tqdm

    class CountingBar(tqdm):  # type: ignore[type-arg,misc,unused-ignore]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs.pop("name", None)
            self.counts_bytes = kwargs.get("unit") == "B"
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if self.counts_bytes:
                counts[id(self)] = counts.get(id(self), 0) + (n or 0)
            return None

    return CountingBar
