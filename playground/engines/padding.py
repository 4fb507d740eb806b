"""Rows of different lengths as one tensor: padded on the left, with the mask and the positions that leave the padding out.

Where a cache holds the first tokens of each row already, the padding comes behind these, so that they stay where the cache has them.
Example::

    ids, mask, positions = left_padded(Batch(((1, 2, 3), (1, 4)), max_new_tokens=8), shared=1, device="cpu")   # ids[1] is 1 0 4 ...
"""

from __future__ import annotations

from typing import Any

from playground.core.engine import Batch


def left_padded(batch: Batch, shared: int, device: str) -> tuple[Any, Any, Any]:
    """Token ids [rows, longest prompt + new tokens] with room for the new ones, their mask (1: a token, 0: padding), None where nothing is
    padded (a mask would forbid sdpa's fastest kernels), and their positions, all int64. shared: tokens of each row before its padding."""
    import torch

    longest = max(len(row) for row in batch.token_ids)
    ids = torch.zeros(len(batch.token_ids), longest + batch.max_new_tokens, dtype=torch.long)
    mask = torch.ones_like(ids)
    for number, row in enumerate(batch.token_ids):
        begin = shared + longest - len(row)
        ids[number, :shared] = torch.tensor(row[:shared])
        ids[number, begin:longest] = torch.tensor(row[shared:])
        mask[number, shared:begin] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
    padded = any(len(row) < longest for row in batch.token_ids)
    return ids.to(device), mask.to(device) if padded else None, positions.to(device)
