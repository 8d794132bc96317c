"""Noise that can be entered anywhere: sample i's is a function of (seed, i) and of nothing else.

Philox 4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011)
scrambles a counter of 128 bits under a key, so there is no state to advance:

    counter = (index mod 2^32, index div 2^32, group, stream)   key = (seed mod 2^32, seed div 2^32)

Each use of noise has a stream number of its own, and word j of a stream is word j mod 4 of group
j div 4. Seeds and indices lie in 0..2^63-1. Words become

    a uniform    u_j = (word j div 2^8) 2^-24                           exact in float32
    two normals  r cos t and r sin t, from words a = 2k and b = 2k + 1  (Box and Muller, in float32)
                 r = sqrt(-2 ln((a + 1/2) 2^-32)),  t = 2 pi b 2^-32

(a + 1/2) 2^-32 is rounded to float32 too. Near 1 its grid is 2^-24, so the smallest radii are 0 and
sqrt(k) 3.5e-4; a few pairs in a million are moved by more than 1e-5 for it. Host and graph round
alike.

So no normal exceeds sqrt(66 ln 2) = 6.764, which a = 0 reaches. b is read as a signed integer: that
takes a whole turn off t, which then lies in [-pi, pi], where float32 is finest.

Words and uniforms are the same bits on every machine. numpy's float32 logarithm and sines may
differ in the last bit between machines, and between the body of an array and its tail. So noise is
computed for whole, aligned blocks of 4096 indices, and shorter ranges are cut out of them.
"""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from scgan_infer.arguments import whole
from scgan_infer.bundle.interfaces import BLOCK as BLOCK

TOGETHER = 4  # blocks whose noise is made at a time
WIDE = 600  # numbers a row from which on one block's is
NUMBER_BYTES = 26  # of memory for each number of a row while noise is made, in all
CLUSTER, MAPPER, DECODER = 0, 1, 2

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Floats: TypeAlias = NDArray[np.float32]
Words: TypeAlias = NDArray[np.uint64]
FourWords: TypeAlias = tuple[Words, Words, Words, Words]
Keys: TypeAlias = tuple[tuple[Words, Words], ...]
Streams: TypeAlias = tuple[tuple[int, int], ...]

_M0, _M1, _LOW, _32 = (np.array(value, np.uint64) for value in (*MULTIPLIERS, 0xFFFFFFFF, 32))
_8 = np.array(8, np.uint32)
_GRID, _SPACING, _HALF, _TURN, _MINUS_2 = (
    np.array(value, np.float32)
    for value in (2.0**-24, 2.0**-32, 2.0**-33, math.pi * 2.0**-31, -2.0)
)


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Return Philox 4x32-10 of each counter.

    Args:
        counter: [4, n]; counter[0] is the least significant word.
        key: two words of 32 bits.

    Returns:
        [4, n] random words.
    """
    c0, c1, c2, c3 = counter.astype(np.uint64)
    words = _rounds((c0, c1, c2, c3), np.empty_like(c0), np.empty_like(c0), _keys(*key))
    return np.stack(words).astype(np.uint32)


def normals(seed: int, start: int, n: int, stream: int, count: int) -> Floats:
    """Return `count` standard normals of a stream for samples start..start+n-1: [n, count]."""
    seed, start, n = whole("seed", seed), whole("start", start), whole("n", n)
    numbers = range(start // BLOCK, (start + max(n, 1) - 1) // BLOCK + 1)
    blocks = [_block(seed, block, ((stream, count),))[1] for block in numbers]
    return np.concatenate(blocks)[start % BLOCK :][:n]


def block_noise(
    seed: int, block: int, m: int, q: int, blocks: int = 1, h: int = 1
) -> tuple[Floats, Floats, Floats]:
    """Return the noise of n = 4096 blocks samples from 4096 block on, for bundle sizes m, q and h.

    Several blocks are made faster together; their indices must agree in all but the low 32 bits.

    Returns:
        u [n] that chooses the cluster ([n, h] a row's choice, where h > 1), w [n, m] for the mapper
        and z [n, q] for the decoder, in new arrays: the bits that `normals` gives for them.
    """
    seed, block = whole("seed", seed), whole("block", block)
    u, w, z = _block(seed, block, ((MAPPER, m), (DECODER, q)), blocks, h)
    return u, w, z


def redrawn(seed: int, index: Words, repeat: Words, h: int) -> Floats:
    """Return the uniforms [n, h] of repeats [n] of the draw of samples [n]; repeat 0 is the first.

    Repeat t takes the groups of the stream from t ceil(h / 4) on.
    """
    groups = -(-h // 4)
    columns = []
    for group in range(groups):
        counter = np.stack(
            [
                *(index & _LOW, index >> _32),
                *(repeat * np.uint64(groups) + np.uint64(group), np.full_like(index, CLUSTER)),
            ]
        )
        words = philox(counter.astype(np.uint32), (seed & 0xFFFFFFFF, seed >> 32))
        columns += list((words >> _8).astype(np.float32) * _GRID)
    return np.stack(columns[:h], axis=1)


def layout(streams: Streams, h: int = 1) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Return what the noise of a sample is made of: streams of (stream, normals) and h uniforms.

    Returns:
        The (group, stream) of each row of words, the uniforms' first; and the (row, first word) of
        each pair of normals, stream by stream. An odd count leaves the last normal unused.
    """
    rows, pairs = [(group, CLUSTER) for group in range(-(-h // 4))], []
    for stream, count in streams:
        words = range(0, count, 2)
        pairs += [(len(rows) + word // 4, word % 4) for word in words]
        rows += [(word // 4, stream) for word in words[::2]]
    return rows, pairs


_thread = threading.local()


def _block(seed: int, block: int, streams: Streams, blocks: int = 1, h: int = 1) -> list[Floats]:
    """Return the blocks' uniforms [n] or [n, h], then normals [n, count] for each stream."""
    workspace, key = getattr(_thread, "workspace", None), (streams, h, blocks * BLOCK)
    if workspace is None or (workspace.streams, workspace.h, workspace.size) != key:
        workspace = _thread.workspace = _Workspace(streams, blocks, h)
    words = workspace.words(seed, block)
    uniforms = [
        (words[j % 4][j // 4].astype(np.uint32) >> _8).astype(np.float32) * _GRID for j in range(h)
    ]
    return [uniforms[0] if h == 1 else np.stack(uniforms, axis=1), *workspace.normals(words)]


class _Workspace:
    """One thread's buffers for some blocks; fresh memory would cost as much as the arithmetic."""

    def __init__(self, streams: Streams, blocks: int = 1, h: int = 1) -> None:
        self.streams, self.h = streams, h
        self.size = blocks * BLOCK
        rows, self.pairs = layout(streams, h)
        self.group, self.stream = np.array(rows, np.uint64).T[:, :, None]
        self.offsets = np.arange(self.size, dtype=np.uint64)
        self.low, self.high = _buffers(2, np.uint64, self.size)
        self.state = _buffers(6, np.uint64, len(rows), self.size)
        self.ab = _buffers(2, np.uint32, len(self.pairs), self.size)
        self.rts = _buffers(3, np.float32, len(self.pairs), self.size)

    def words(self, seed: int, block: int) -> FourWords:
        """Return words 0..3 of each row of the layout, [G, n], as `_rounds` leaves them.

        Counters differ in their first word only, so most of two rounds is one number per row.
        """
        index = block * BLOCK
        assert 0 <= seed < 2**63, seed
        assert 0 <= index < 2**63, index
        assert index % 2**32 + self.size <= 2**32, index
        (k0, k1), (k2, k3), *keys = _keys(seed & 0xFFFFFFFF, seed >> 32)
        low, high = self.low, self.high
        c0, c1, c2, c3, p0, p1 = self.state

        product = self.group * _M1
        row0, row1 = (product >> _32) ^ np.uint64(index >> 32) ^ k0, product & _LOW
        np.add(self.offsets, np.uint64(index & 0xFFFFFFFF), low)
        np.multiply(low, _M0, low)
        np.right_shift(low, _32, high)
        np.bitwise_and(low, _LOW, low)
        np.bitwise_xor(high, self.stream ^ k1, c2)

        product = row0 * _M0
        np.multiply(c2, _M1, c1)
        np.right_shift(c1, _32, p0)
        np.bitwise_xor(p0, row1 ^ k2, c0)
        np.bitwise_xor(low, (product >> _32) ^ k3, c2)
        np.copyto(c3, product)
        return _rounds((c0, c1, c2, c3), p0, p1, tuple(keys))

    def normals(self, words: FourWords) -> list[Floats]:
        """Return normals [n, count] of each (stream, count)."""
        (a, b), (r, t, s) = self.ab, self.rts
        for pair, (row, word) in enumerate(self.pairs):
            np.copyto(a[pair], words[word][row], casting="unsafe")
            np.copyto(b[pair], words[word + 1][row], casting="unsafe")
        np.copyto(r, a, casting="unsafe")
        np.multiply(r, _SPACING, r)
        np.add(r, _HALF, r)
        np.log(r, r)
        np.multiply(r, _MINUS_2, r)
        np.sqrt(r, r)
        np.copyto(t, b.view(np.int32), casting="unsafe")
        np.multiply(t, _TURN, t)
        np.sin(t, s)
        np.cos(t, t)
        np.multiply(r, t, t)
        np.multiply(r, s, s)
        pairs = iter(range(len(self.pairs)))
        results = []
        for _, count in self.streams:
            normal = np.empty((self.size, count), np.float32)
            for column in range(0, count, 2):
                pair = next(pairs)
                normal[:, column] = t[pair]
                if column + 1 < count:
                    normal[:, column + 1] = s[pair]
            results.append(normal)
        return results


def _rounds(counter: FourWords, p0: Words, p1: Words, keys: Keys) -> FourWords:
    """Apply a round of Philox per key, in place, with scratch p0 and p1.

    Each round multiplies two words to 64 bits and keeps the products whole: the high 32 bits of
    words 1 and 3 are to be ignored, before and after.
    """
    c0, c1, c2, c3 = counter
    for k0, k1 in keys:
        np.multiply(c0, _M0, p0)
        np.multiply(c2, _M1, p1)
        np.bitwise_and(c1, _LOW, c1)
        np.right_shift(p1, _32, c0)
        np.bitwise_xor(c0, c1, c0)
        np.bitwise_xor(c0, k0, c0)
        np.bitwise_and(c3, _LOW, c3)
        np.right_shift(p0, _32, c2)
        np.bitwise_xor(c2, c3, c2)
        np.bitwise_xor(c2, k1, c2)
        c1, c3, p0, p1 = p1, p0, c3, c1
    return c0, c1, c2, c3


@lru_cache(maxsize=16)
def _keys(low: int, high: int) -> Keys:
    """Return the pair of key words of each round."""
    steps = [
        [(word + i * step) & 0xFFFFFFFF for word, step in zip((low, high), KEY_STEPS, strict=True)]
        for i in range(ROUNDS)
    ]
    return tuple((np.array(k0, np.uint64), np.array(k1, np.uint64)) for k0, k1 in steps)


def _buffers(count: int, dtype: type[np.generic], *shape: int) -> list[NDArray[Any]]:
    """Return uninitialised arrays that numpy computes on fast.

    Each starts on a cache line, which saves a sixth of the time. None ends where another begins:
    numpy 1.26 takes neighbours for overlapping arrays and falls back to sines 20 times slower.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memories = [np.empty(size + 128, np.uint8) for _ in range(count)]
    return [
        memory[-memory.ctypes.data % 64 :][:size].view(dtype).reshape(shape) for memory in memories
    ]
