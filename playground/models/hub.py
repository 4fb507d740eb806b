"""Models of the Hugging Face hub, kept in the hub's own cache. What is there once is never looked up again.

Fetches safetensors, configuration and tokenizer files only, never pickles. A hub that does not answer costs a few seconds at most.
Example::

    resolve_hub("qwen3-0.6b", "Qwen/Qwen3-0.6B", print).source   # "Qwen/Qwen3-0.6B @ c1899de"
"""

from __future__ import annotations

import errno
import os
import re
import socket
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TypeVar

from playground.core.places import home, no_room
from playground.core.problem import Problem
from playground.models.folder import HOW_TO_CONVERT, PICKLES, WHY_NO_PICKLE, check_folder, peek_folder
from playground.models.model import ModelFacts, OnProgress, ResolvedModel, cache, told

ANSWER_S = 3.0
FILES = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken"]
NOT_FILES = ["*/*", "consolidated*"]  # other formats and copies of the same weights
TOKENIZERS = ["tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece*.model", "*.tiktoken"]
NETWORK_FAULTS = (errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EADDRNOTAVAIL)
_SHARD = re.compile(r"-\d+-of-\d+\.safetensors$")
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
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(hub_id, local_files_only=True, allow_patterns=FILES, ignore_patterns=NOT_FILES))
        check_folder(folder)
        return None if _missing(hub_id, folder) else folder
    except (OSError, HFValidationError, Problem):
        return None


def peek_hub(name: str, hub_id: str, ask: bool = True) -> ModelFacts | None:
    """Facts from config.json, out of the cache or, if `ask`, fetched within a few seconds; None where neither works."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    try:
        found = try_to_load_from_cache(hub_id, "config.json")
        if not isinstance(found, str):
            if not ask:
                return None
            found = _start(lambda: hf_hub_download(hub_id, "config.json", etag_timeout=ANSWER_S)).result(ANSWER_S)
    except _errors():
        return None
    facts = peek_folder(name, Path(found).parent)
    return ModelFacts(name, "hub", facts.config) if facts else None


def _fetch(hub_id: str, progress: OnProgress) -> Path:
    from huggingface_hub import HfApi, snapshot_download

    told(progress, f"asking the hub for {hub_id}", 0, None, "")
    info = _answer(hub_id, _start(lambda: HfApi().model_info(hub_id, timeout=ANSWER_S, files_metadata=True)), ANSWER_S + 1)
    sizes = {item.rfilename: item.size or 0 for item in info.siblings or [] if _wanted(item.rfilename)}
    _check_listing(hub_id, [item.rfilename for item in info.siblings or []])
    _write_listing(hub_id, str(info.sha), list(sizes))
    total = sum(sizes.values())
    counts: dict[int, float] = {}
    bar = _counting_bar(counts)
    future = _start(
        lambda: snapshot_download(hub_id, allow_patterns=FILES, ignore_patterns=NOT_FILES, etag_timeout=ANSWER_S, tqdm_class=bar)
    )
    while not future.done():
        told(progress, f"fetching {hub_id}", min(total, max(counts.values(), default=0)), total)
        wait([future], timeout=0.2)
    folder = Path(_answer(hub_id, future))
    # A hub that falls silent between its list and its files makes the client return what was there before.
    if missing := _missing(hub_id, folder):
        raise Unreachable("model", f"{hub_id} was fetched only in part: {missing}. Try again to fetch the rest.")
    told(progress, f"fetching {hub_id}", total, total)
    return folder


def fetched(hub_id: str, download: Callable[[], str]) -> Path:
    """The folder that `download` gives, with a hub's faults as sentences: raises Problem("model"), Unreachable where no hub answers."""
    return Path(_answer(hub_id, _start(download)))


def _answer(hub_id: str, future: Future[T], timeout_s: float | None = None) -> T:
    try:
        return future.result(timeout_s)
    except _errors() as error:
        raise _explained(hub_id, error) from error


def _missing(hub_id: str, folder: Path) -> str:
    """What a snapshot lacks, "" when it is complete. What we fetched is compared with the list noted before its first file. What
    others fetched needs a tokenizer and, for weights in parts, their index; `check_folder` looks for the parts."""
    names = [path.name for path in folder.iterdir() if path.is_file()]
    try:
        listed = _listing(hub_id, folder.name).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        if any(_SHARD.search(name) for name in names) and "model.safetensors.index.json" not in names:
            return "model.safetensors.index.json is missing"
        return "" if any(fnmatch(name, known) for name in names for known in TOKENIZERS) else "its tokenizer is missing"
    lacking = sorted(set(listed) - set(names))
    return f"{len(lacking)} of {len(listed)} files are missing, first {lacking[0]}" if lacking else ""


def _write_listing(hub_id: str, commit: str, files: list[str]) -> None:
    try:
        path = _listing(hub_id, commit)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        part.write_text("\n".join(files), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise _local_fault(hub_id, home(), error) from error


def _listing(hub_id: str, commit: str) -> Path:
    return cache() / "hub" / hub_id.replace("/", "--") / f"{commit}.files"


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
    network = (errors.HfHubHTTPError, ConnectionError, TimeoutError, socket.gaierror, ssl.SSLError)
    if isinstance(cause, OSError) and cause.errno not in (None, *NETWORK_FAULTS) and not isinstance(cause, network):
        return _local_fault(hub_id, Path(constants.HF_HUB_CACHE), cause)
    why = "HF_HUB_OFFLINE is set" if constants.is_offline_mode() else "the model hub does not answer"
    what = "Without it the default model smollm2-135m-instruct, shapes such as shape:llama-3.2-1b, folders and .gguf files work."
    return Unreachable("model", f"{hub_id} {_state(hub_id)}: {why}. {what}", detail)


def _state(hub_id: str) -> str:
    from huggingface_hub import try_to_load_from_cache

    try:
        found = try_to_load_from_cache(hub_id, "config.json")
        missing = _missing(hub_id, Path(found).parent) if isinstance(found, str) else ""
    except OSError as error:
        return f"cannot be read from the hub's cache ({error.strerror}) and cannot be fetched"
    if missing:
        return f"is on this machine only in part ({missing}), and the rest cannot be fetched"
    return "is not on this machine and cannot be fetched"


def _local_fault(hub_id: str, folder: Path, error: OSError) -> Problem:
    detail = f"{type(error).__name__}: {error}"
    if why := no_room(error):
        return Problem("model", f"{why}: {hub_id} does not fit into {folder}. Free some room, or name another place in $HF_HOME.", detail)
    where = error.filename or folder
    return Problem(
        "model", f"{hub_id} cannot be stored in {folder}: {error.strerror} ({where}). Make it a folder you can write to.", detail
    )


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
