"""Find frames that are the same picture, in an archive of any size.

Two pictures are near duplicates when their perceptual hashes (256 bits) differ in at most 10. On
development frames recompression at quality 50 changes at most 6 bits and scaling by 0.6 at most 4;
of 180,000 pairs of distinct frames 2 differ in 10 or fewer, both of one video.

Hashes are cut into 11 bands: of two that differ in at most 10 bits at least one band is equal (the
pigeonhole principle), so only hashes that share a band are compared. Time O(n log n) and the pairs
that share a band; memory about 150 bytes a frame.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_PATIENTS", "Duplicates", "find_duplicates"]

MOST_PATIENTS = 8
"""A picture seen with more patients is no patient's own (a test card): it ties none together."""
_MOST_BITS = 10
# In bytes; the last, of the highest frequencies, is the most even and can be the shortest.
_BANDS = [slice(3 * i, 3 * i + 3) for i in range(10)] + [slice(30, 32)]
# Of a band's value that very many share only so many neighbours in order are compared: such values
# are of pictures nearly without features, and ten other bands remain.
_MOST_SHARING = 2000

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """What was found, by frame.

    Attributes:
        first: int64 (n,), index of the earliest frame that shows the same; -1 = there is none.
        exact: bool (n,), that frame has the same bytes.
        picture: int64 (n,), number of the picture that the frame shows; alike frames share it.
        patients: int64 (pictures,), how many patients a picture occurs with.
    """

    first: Ints
    exact: npt.NDArray[np.bool_]
    picture: Ints
    patients: Ints


def find_duplicates(
    digests: npt.NDArray[np.uint8], hashes: npt.NDArray[np.uint8], patients: Ints
) -> Duplicates:
    """Find duplicates among all frames.

    Args:
        digests: uint8 (n, 32), SHA-256 of each frame's bytes.
        hashes: uint8 (n, 32), perceptual hashes; all zero = none, compared by bytes only.
        patients: int64 (n,), number of each frame's patient.
    """
    count = len(digests)
    if count == 0:
        none = np.empty(0, np.int64)
        return Duplicates(none, np.empty(0, bool), none, none)
    of_bytes, _ = _values(digests)
    # What has no hash is compared by its bytes: the digest stands in, and is no one's neighbour.
    plain = np.logical_not(hashes.any(axis=1))
    keys = np.concatenate([np.where(plain[:, None], digests, hashes), plain[:, None]], axis=1)
    _, value = _values(keys.astype(np.uint8))
    earliest = np.full(value.max() + 1, count, np.int64)
    np.minimum.at(earliest, value, np.arange(count))
    near = earliest.copy()
    found = list(_near_values(hashes[earliest], np.logical_not(plain[earliest])))
    pairs = np.concatenate(found) if found else np.empty((0, 2), np.int64)
    for a, b in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
        np.minimum.at(near, a, earliest[b])
    index = np.arange(count)
    exact = of_bytes < index
    first = np.where(exact, of_bytes, np.where(near[value] < index, near[value], -1))
    picture = _connected(pairs, len(earliest))[value]
    shown = np.unique(np.stack([picture, patients], axis=1), axis=0)[:, 0]
    return Duplicates(first, exact, picture, np.bincount(shown, minlength=picture.max() + 1))


def _values(rows: npt.NDArray[np.uint8]) -> tuple[Ints, Ints]:
    """For each row the index of the first that equals it, and the number of its value."""
    whole = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    _, first, value = np.unique(whole, return_index=True, return_inverse=True)
    return first[value].astype(np.int64), value.astype(np.int64)


def _connected(pairs: Ints, count: int) -> Ints:
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(pairs), np.int8)
    graph = coo_array((ones, (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _near_values(hashes: npt.NDArray[np.uint8], usable: npt.NDArray[np.bool_]) -> Iterator[Ints]:
    """Yield pairs (a, b) of distinct hashes that differ in at most 10 bits; some more than once."""
    words = np.ascontiguousarray(hashes).view(np.uint64)
    index = np.flatnonzero(usable)
    for band in _BANDS:
        key = np.zeros(len(index), np.int64)
        for column in hashes[index, band].T:
            key = key * 256 + column
        order = index[np.argsort(key, kind="stable")]
        key = np.sort(key)
        at = np.arange(len(order) - 1)
        for step in range(1, _MOST_SHARING + 1):
            at = at[at < len(order) - step]
            at = at[key[at] == key[at + step]]
            if not len(at):
                break
            a, b = order[at], order[at + step]
            close = np.bitwise_count(words[a] ^ words[b]).sum(axis=1) <= _MOST_BITS
            if close.any():
                yield np.stack([a[close], b[close]], axis=1)
