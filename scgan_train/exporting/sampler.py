"""Counter-based noise as a graph, so that `sampler.onnx` samples by itself.

It computes what `scgan_infer.sampling.noise` specifies, on tensors [G, n] whose rows are the G
(group, stream) pairs that a sample needs. The four words of a counter are held as two numbers of
64 bits,

    A = 2^32 c0 + c1,    B = 2^32 c2 + c3,

for which a round of Philox with multipliers M0, M1 and keys k0, k1 is, modulo 2^64,

    A' = M1 (B div 2^32)  xor  2^32 A  xor  2^32 k0
    B' = M0 (A div 2^32)  xor  2^32 B  xor  2^32 k1

since a product's high half meets the counter's odd word, and its low half becomes the new one:
fourteen operators, whatever G is. In the first round the counter's numbers depend on the row or on
the index, not on both, and broadcast.

Numbers are int64, and uint64 only to shift right: older runtimes multiply no unsigned integers and
shift no signed ones. OpenVINO computes both in 32 bits and returns NaN without a word: give it
`generator.onnx` and noise from outside.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scgan_infer.sampling.noise import DECODER, KEY_STEPS, MAPPER, MULTIPLIERS, ROUNDS, layout
from scgan_train.graph import Var, const, op

WORD = 2**32


def noise(seed: Var, index: Var, m: int, q: int, h: int = 1) -> tuple[Var, Var, Var | None]:
    """Return u [n] ([n, h] where h > 1), w [n, m] and z [n, q] of seed [1] and index [n].

    Both are int64. No z where q is 0.
    """
    rows, pairs = layout(((MAPPER, m), (DECODER, q)), h)
    a, b = _philox(seed, index, rows)

    uniforms = []
    for j in range(h):
        words = op.gather(b if j % 4 > 1 else a, _int(j // 4, ()), axis=0)
        if j % 2:
            words = op.mul(words, _int(WORD, ()))
        bits = op.cast(op.cast(_shift(words, 40, ()), to=np.int32), to=np.float32)
        uniforms.append(op.mul(bits, const(2.0**-24)))
    u = uniforms[0]
    if h > 1:
        u = op.concat([op.unsqueeze(uniform, _int(1)) for uniform in uniforms], axis=1)

    indices = np.array([row + (len(rows) if word else 0) for row, word in pairs])
    words = op.gather(op.concat([a, b], axis=0), const(indices, np.int64), axis=0)
    even = op.cast(_shift(words, 32), to=np.uint32)
    # 2^32 times the low word, signed: a chain of casts is shorter, and onnxruntime 1.15 shortens
    # it wrongly
    odd = op.mul(words, _int(WORD))
    unit = op.add(op.mul(op.cast(even, to=np.float32), _real(2.0**-32)), _real(2.0**-33))
    radius = op.sqrt(op.mul(op.log(unit), _real(-2.0)))
    angle = op.mul(op.cast(odd, to=np.float32), _real(math.pi * 2.0**-63))
    normals = op.concat([op.mul(radius, op.cos(angle)), op.mul(radius, op.sin(angle))], axis=0)

    def columns(first: int, count: int) -> Var:
        order = [first + j // 2 + len(pairs) * (j % 2) for j in range(count)]
        return op.transpose(op.gather(normals, const(order, np.int64), axis=0), perm=[1, 0])

    return u, columns(0, m), columns((m + 1) // 2, q) if q else None


def _philox(seed: Var, index: Var, rows: Sequence[tuple[int, int]]) -> tuple[Var, Var]:
    """Return A and B, [G, n] int64: Philox 4x32-10 of every row and index."""
    group, stream = np.array(rows, np.int64).T[:, :, None]
    seeds = (seed, _high(seed))
    keys = [_keys(word, step) for word, step in zip(seeds, KEY_STEPS, strict=True)]
    m0, m1 = map(_int, MULTIPLIERS)

    def xor(x: Var, y: Var, z: Var) -> Var:
        return op.bitwise_xor(op.bitwise_xor(x, y), z)

    low = op.mul(op.bitwise_and(index, _int(WORD - 1)), m0)
    a = xor(const(group * MULTIPLIERS[1], np.int64), keys[0][0], op.bitwise_and(index, _int(-WORD)))
    b = xor(const(stream * WORD, np.int64), keys[1][0], low)
    for k0, k1 in zip(keys[0][1:], keys[1][1:], strict=True):
        p0, p1 = op.mul(_high(a), m0), op.mul(_high(b), m1)
        a = xor(op.mul(a, _int(WORD)), k0, p1)
        b = xor(op.mul(b, _int(WORD)), k1, p0)
    return a, b


def _keys(word: Var, step: int) -> Sequence[Var]:
    """Return 2^32 times one key word of each round, [1] each."""
    steps: NDArray[np.int64] = np.array(
        [i * step % WORD * WORD for i in range(ROUNDS)], np.uint64
    ).view(np.int64)
    keys = op.add(op.mul(word, _int(WORD)), const(steps, np.int64))
    return op.split(keys, num_outputs=ROUNDS, axis=0)


def _high(value: Var) -> Var:
    return op.cast(_shift(value, 32), to=np.int64)


def _shift(value: Var, bits: int, shape: tuple[int, ...] = (1,)) -> Var:
    unsigned = op.cast(value, to=np.uint64)
    return op.bit_shift(unsigned, const(np.full(shape, bits), np.uint64), direction="RIGHT")


def _int(value: int, shape: tuple[int, ...] = (1,)) -> Var:
    return const(np.full(shape, value), np.int64)


def _real(value: float) -> Var:
    return const([value])
