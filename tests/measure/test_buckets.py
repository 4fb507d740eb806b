"""Sizes of a cache that is allocated once."""

import pytest

from playground.measure.buckets import bucket


@pytest.mark.parametrize(
    ("tokens", "size"),
    [
        (1, 128), (127, 128), (128, 128), (129, 192), (192, 192), (193, 256), (256, 256), (257, 384), (384, 384), (385, 512),
        (513, 768), (769, 1024), (1025, 1536), (1537, 2048), (30_000, 32_768), (32_769, 49_152),
    ],
)  # fmt: skip
def test_a_bucket_is_a_power_of_two_or_one_and_a_half_of_one(tokens, size):
    assert bucket(tokens) == size


def test_a_bucket_holds_its_tokens_and_at_most_half_as_much_again():
    for tokens in range(128, 70_000):
        assert tokens <= bucket(tokens) < 1.5 * tokens


def test_more_tokens_never_have_a_smaller_bucket_and_there_are_few_of_them():
    sizes = [bucket(tokens) for tokens in range(1, 32_769)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 17  # two for each doubling from 128 to 32,768
    assert all(bucket(size) == size for size in set(sizes))
