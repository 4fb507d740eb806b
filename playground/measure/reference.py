"""The baseline's log-probabilities on disk, for the variants that are compared with it: one file a window of text or an output.

A file holds the token ids (int64) and the log-probabilities (float32 [positions, vocabulary]) of the last `positions` of them. It appears
only when it is complete, and is mapped into memory when read. Runs in the worker; torch and numpy are imported inside. Example::

    if reason := keep(folder / "english-0", ids, logprobs): ...    # "" where it worked
    stored = opened(folder / "english-0"); stored.ids; stored[0:32]
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playground.core.places import no_room


@dataclass(frozen=True)
class Stored:
    """Token ids, and rows of log-probabilities that stay on disk until they are asked for."""

    ids: tuple[int, ...]
    rows: Any

    @property
    def shape(self) -> tuple[int, int]:
        """Positions, vocabulary."""
        return int(self.rows.shape[0]), int(self.rows.shape[1])

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: slice) -> Any:
        """A float32 tensor with a copy of these rows."""
        import numpy as np
        import torch

        return torch.from_numpy(np.array(self.rows[place]))


def keep(path: Path, ids: tuple[int, ...], logprobs: Any) -> str:
    """Write one file; the reason where that failed, else "". A write that fails leaves nothing behind."""
    import numpy as np

    part = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            for array in (np.array(ids, dtype=np.int64), np.ascontiguousarray(logprobs.numpy(), dtype=np.float32)):
                np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
                file.write(array.data)  # not np.save, whose error for a full disk does not say so
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        why = no_room(error).replace("The", "the") or error.strerror or str(error)
        return f"the baseline's log-probabilities could not be stored: {why}"
    return ""


def opened(path: Path) -> Stored:
    """What `keep` wrote. Raises OSError (FileNotFoundError where there is nothing), or ValueError or EOFError for a damaged file."""
    import numpy as np

    with path.open("rb") as file:
        ids = np.load(file)
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return Stored(tuple(int(token) for token in ids), np.memmap(path, dtype, "r", file.tell(), shape))


def comparable(path: Path, ids: tuple[int, ...], vocabulary: int) -> Stored | str:
    """The baseline's figures for the same tokens and vocabulary, or the reason why there is nothing to compare with."""
    stored = opened_or_why(path, "log-probabilities", "the baseline left no log-probabilities to compare with")
    if isinstance(stored, str):
        return stored
    if stored.ids != ids:
        return "the baseline's model splits the text into other tokens, so positions cannot be compared"
    return other_vocabulary(stored, vocabulary) or stored


def opened_or_why(path: Path, what: str, nothing: str) -> Stored | str:
    """What `keep` wrote, or a sentence: `nothing` where there is no file, else that the baseline's `what` cannot be read."""
    try:
        return opened(path)
    except FileNotFoundError:
        return nothing
    except (OSError, ValueError, EOFError) as error:
        return f"the baseline's {what} cannot be read ({error})"


def other_vocabulary(stored: Stored, vocabulary: int) -> str:
    """Why figures over another vocabulary cannot be compared, "" over the same."""
    if stored.shape[1] == vocabulary:
        return ""
    return f"the baseline's vocabulary has {stored.shape[1]} entries and this model's {vocabulary}"
