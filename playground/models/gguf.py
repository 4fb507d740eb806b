"""GGUF files: converted once to a folder of safetensors in the cache, then loaded like any other folder.

Reading facts needs no torch; `convert` does and runs in the worker. Example::

    resolve_gguf("~/m.gguf", Path("~/m.gguf").expanduser(), print).folder   # .../models/gguf/m-3f2a9c0d1e4b
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from playground.core.places import ELSEWHERE, no_room
from playground.core.problem import Problem
from playground.core.technique import GGUF_BITS
from playground.models.folder import check_folder
from playground.models.intact import GgufHeader, read_gguf
from playground.models.model import Kind, ModelFacts, OnProgress, ResolvedModel, cache, told

FLOAT32_BYTES = 1 << 30
_SOURCE = "source.json"


def resolve_gguf(name: str, path: Path, progress: OnProgress) -> ResolvedModel:
    """The folder that `path` was or is now converted to; a file with another size or date is converted anew."""
    stat = path.stat()
    key = hashlib.sha256(f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:12]
    target = cache() / "gguf" / f"{path.stem}-{key}"
    if (model := converted(name, target, "gguf")) is None:
        once(target, path.name, progress, lambda folder: convert(path, folder, path.name, progress))
        model = converted(name, target, "gguf")
    if model is None:
        raise Problem("model", f"{path} was converted to {target}, but that folder is not complete. Delete it and try again.")
    return replace(model, gguf=path)


def converted(name: str, folder: Path, kind: Kind) -> ResolvedModel | None:
    """The model of a folder that `convert` made, or None where there is none that is whole."""
    try:
        made = json.loads((folder / _SOURCE).read_text(encoding="utf-8"))
        bits = {GGUF_BITS: made[GGUF_BITS]} if GGUF_BITS in made else {}
        gguf = folder / made.get("gguf", "model.gguf")
        return ResolvedModel(name, folder, kind, made["source"], {**check_folder(folder), **bits}, gguf=gguf)
    except (OSError, ValueError, KeyError, Problem):
        return None


def peek_gguf(name: str, path: Path) -> ModelFacts | None:
    """Facts from the file's header, None where it cannot be read."""
    try:
        header = read_gguf(path)
    except (Problem, OSError, ImportError):
        return None
    values = header.values
    family = values.get("general.architecture", "")

    def value(key: str, default: Any = None) -> Any:
        return values.get(f"{family}.{key}", default)

    hidden, heads = value("embedding_length"), value("attention.head_count")
    if not isinstance(hidden, int) or not isinstance(heads, int) or heads < 1:
        return None
    config = {
        "model_type": family,
        "hidden_size": hidden,
        "intermediate_size": value("feed_forward_length"),
        "num_hidden_layers": value("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": value("attention.head_count_kv", heads),
        "head_dim": value("attention.key_length", value("rope.dimension_count", hidden // heads)),
        "vocab_size": value("vocab_size", values.get("tokenizer.ggml.tokens")),
        "max_position_embeddings": value("context_length"),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        GGUF_BITS: header.linear_bits,
    }
    return ModelFacts(name, "gguf", config)


def once(target: Path, what: str, progress: OnProgress, build: Callable[[Path], None]) -> None:
    """Let one process at a time build `target`: `build` fills a folder beside it, which is renamed when complete. A process that waited
    finds the folder of the other and builds nothing. Raises Problem("model") where the disk has no room for `what`."""
    from filelock import FileLock, Timeout

    target.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{target}.lock")
    while not lock.is_locked:
        try:
            lock.acquire(timeout=1)
        except Timeout:
            told(progress, f"waiting for another process that prepares {target.name}", 0, None, "")
    try:
        if converted(target.name, target, "folder") is not None:
            return
        for left in [*target.parent.glob(f"{target.name}.part-*"), target]:
            shutil.rmtree(left, ignore_errors=True)
        part = target.with_name(f"{target.name}.part-{os.getpid()}")
        part.mkdir()
        try:
            build(part)
            part.replace(target)
        except Exception as error:
            if not (why := no_room(error)):
                raise
            sentence = f"{why}: {what} does not fit into {target.parent}. {ELSEWHERE}"
            raise Problem("model", sentence, f"{type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
    finally:
        lock.release()


def convert(path: Path, folder: Path, label: str, progress: OnProgress) -> None:
    """Dequantise the GGUF file `path` into `folder` as safetensors, with tokenizer, chat template and generation config.

    float32 where that stays under 1 GiB, so that nothing is lost beyond the file's own quantization; otherwise 16 bit: bfloat16 for a
    bfloat16 file, float16 for all others. `label` is what the source line calls the file.
    """
    header = read_gguf(path)
    if int(header.values.get("split.count", 1)) > 1:
        raise Problem("model", f"{path} is one part of a split GGUF. Merge the parts first: llama-gguf-split --merge FIRST_PART WHOLE.gguf")
    dtype = "float32" if header.parameters * 4 <= FLOAT32_BYTES else "bfloat16" if "BF16" in header.types else "float16"
    needed = header.parameters * (4 if dtype == "float32" else 2)
    if (free := shutil.disk_usage(folder).free) < needed:
        raise Problem("model", f"Converting {path.name} needs {needed / 1e9:.1f} GB in {folder.parent}; {free / 1e9:.1f} GB are free.")
    told(progress, f"dequantising {path.name}", 0, needed)
    _save(path, folder, dtype)
    source = {"source": f"{label}, weights dequantised from GGUF {_quantization(header)} to {dtype}", GGUF_BITS: header.linear_bits}
    source["gguf"] = path.name if path.parent == folder else str(path.resolve())
    (folder / _SOURCE).write_text(json.dumps(source), encoding="utf-8")
    told(progress, f"dequantising {path.name}", needed, needed)


def _save(path: Path, folder: Path, dtype: str) -> None:
    import torch
    import transformers

    # From 5.2x on transformers keeps the blocks packed where it can, unless told otherwise.
    dense = {"quantization_config": transformers.GgufConfig(dequantize=True)} if hasattr(transformers, "GgufConfig") else {}
    common: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path.parent, **common)
    except Exception as error:  # the tokenizers library raises plain Exception for a broken vocabulary
        raise _unconvertible(path, error) from error
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype=getattr(torch, dtype), **common, **dense)
    except (ValueError, KeyError, ImportError, NotImplementedError) as error:
        raise _unconvertible(path, error) from error
    # save_pretrained refuses a model that still says it is GGUF, although its weights are dense by now.
    model.config.__dict__.pop("quantization_config", None)
    model.__dict__.pop("hf_quantizer", None)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _unconvertible(path: Path, error: Exception) -> Problem:
    lines = str(error).strip().splitlines()
    return Problem("model", f"transformers cannot convert {path.name}: {lines[0] if lines else type(error).__name__}", repr(error))


def _quantization(header: GgufHeader) -> str:
    return ", ".join(sorted(header.types - {"F32"})) or "F32"
