"""Sizes of a cache that is allocated once: few enough that a text of another length fits the one that is there.

Example::

    bucket(200)   # 256: three tokens more or less change nothing
"""

SMALLEST = 128


def bucket(tokens: int) -> int:
    """The smallest of 128, 192, 256, 384, 512, 768 ... that holds `tokens`: at most half as much again."""
    size = SMALLEST
    while size < tokens:
        size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return size
