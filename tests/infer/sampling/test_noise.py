import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import uniforms

from scgan_infer.sampling import noise
from scgan_infer.sampling.noise import BLOCK, CLUSTER, DECODER, MAPPER

LAST = 2**63 - 1

# kat_vectors of Random123, philox4x32 with 10 rounds: counter, key, words
KNOWN = [
    (
        "00000000 00000000 00000000 00000000",
        "00000000 00000000",
        "6627e8d5 e169c58d bc57ac4c 9b00dbd8",
    ),
    (
        "ffffffff ffffffff ffffffff ffffffff",
        "ffffffff ffffffff",
        "408f276d 41c83b0e a20bc7c6 6d5451fd",
    ),
    (
        "243f6a88 85a308d3 13198a2e 03707344",
        "a4093822 299f31d0",
        "d16cfe09 94fdcceb 5001e420 24126ea1",
    ),
]

seeds = st.integers(0, LAST)
counts = st.integers(1, 13)
streams = st.sampled_from([CLUSTER, MAPPER, DECODER])
# anywhere, and close to the borders of blocks and of the index's low word
starts = st.integers(0, LAST - 4 * BLOCK) | st.builds(
    lambda border, offset: max(0, border + offset),
    st.sampled_from([0, BLOCK, 2**32, 7 * 2**32, 2**62]),
    st.integers(-BLOCK - 2, BLOCK + 2),
)


def words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint32)


def documented_words(seed, index, group, stream):
    """Words of one index, [4], straight from the specification of counter and key."""
    counter = np.array([[index & 0xFFFFFFFF], [index >> 32], [group], [stream]], np.uint32)
    return noise.philox(counter, (seed & 0xFFFFFFFF, seed >> 32))[:, 0]


def box_muller(a, b):
    """Two normals of two words, in double precision but for the uniform, whose float32 grid shows near 1."""
    uniform = np.float32(a) * np.float32(2**-32) + np.float32(2**-33)
    radius, angle = math.sqrt(-2 * math.log(uniform)), 2 * math.pi * int(b) / 2**32
    return radius * math.cos(angle), radius * math.sin(angle)


def same(x, y):
    return x.dtype == y.dtype == np.float32 and x.shape == y.shape and x.tobytes() == y.tobytes()


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_philox_gives_the_published_words(counter, key, expected):
    low, high = words(key)
    counters = np.repeat(words(counter)[:, None], 5, axis=1)
    assert (noise.philox(counters, (int(low), int(high))) == words(expected)[:, None]).all()


def test_the_published_words_become_the_first_noise():
    """Seed, index, group and stream 0 are the first known answer."""
    a, b, c, d = words(KNOWN[0][2])
    assert uniforms(0, 0, 1)[0] == (int(a) // 256) / 2**24
    expected = [*box_muller(a, b), *box_muller(c, d)]
    np.testing.assert_allclose(noise.normals(0, 0, 1, CLUSTER, 4)[0], expected, rtol=0, atol=1e-6)


@settings(max_examples=60)
@given(seeds, starts, streams, counts, st.integers(1, 9))
@example(1, 0, CLUSTER, 4, 9)
def test_every_number_is_made_of_the_words_that_the_specification_names(
    seed, start, stream, count, n
):
    u, normals = uniforms(seed, start, n), noise.normals(seed, start, n, stream, count)
    for i in range(n):
        assert u[i] == (documented_words(seed, start + i, 0, CLUSTER)[0] >> 8) / 2**24
        groups = [documented_words(seed, start + i, group, stream) for group in range(4)]
        drawn = np.concatenate(groups)
        expected = np.ravel([box_muller(*drawn[k : k + 2]) for k in range(0, 14, 2)])[:count]
        np.testing.assert_allclose(normals[i], expected, rtol=0, atol=2e-6)


@settings(max_examples=60)
@given(seeds, starts, streams, counts, st.integers(1, 2 * BLOCK), st.integers(0, 2 * BLOCK))
def test_a_range_holds_the_bits_of_any_part_of_it(seed, start, stream, count, n, cut):
    cut = min(cut, n - 1)
    whole = noise.normals(seed, start, n, stream, count)
    assert same(whole[cut:], noise.normals(seed, start + cut, n - cut, stream, count))
    assert same(
        whole[: cut + 1, : count - 1], noise.normals(seed, start, cut + 1, stream, count - 1)
    )
    u = uniforms(seed, start, n)
    assert same(u[cut:], uniforms(seed, start + cut, n - cut))
    assert (u * 2**24 % 1 == 0).all()
    assert (u < 1).all()


@settings(max_examples=40)
@given(
    seeds,
    st.integers(0, 2**49 - 1),
    st.integers(0, 9),
    st.integers(0, 17),
    st.sampled_from([1, 2, 4]),
)
def test_blocks_hold_the_bits_of_their_parts(seed, place, m, q, blocks):
    u, w, z = noise.block_noise(seed, 4 * place, m, q, blocks)
    start, n = 4 * place * BLOCK, blocks * BLOCK
    assert same(u, uniforms(seed, start, n))
    assert same(w, noise.normals(seed, start, n, MAPPER, m))
    assert same(z, noise.normals(seed, start, n, DECODER, q))
    assert all(array.flags.c_contiguous for array in (u, w, z))


def test_an_empty_range_is_empty():
    assert uniforms(3, 5000, 0).shape == (0,)
    assert noise.normals(3, 5000, 0, MAPPER, 2).shape == (0, 2)


def test_streams_seeds_and_indices_differ_in_every_bit_that_they_have():
    base = noise.normals(5, 0, BLOCK, MAPPER, 4)
    others = [noise.normals(5, 0, BLOCK, DECODER, 4)]
    others += [noise.normals(5 ^ 2**bit, 0, BLOCK, MAPPER, 4) for bit in range(63)]
    others += [noise.normals(5, 2**bit, BLOCK, MAPPER, 4) for bit in range(12, 63)]
    for other in others:
        assert np.mean(base == other) < 1e-3


def test_blocks_already_handed_out_are_not_written_again():
    u, w, z = noise.block_noise(1, 0, 2, 6)
    before = [array.copy() for array in (u, w, z)]
    noise.block_noise(2, 1, 2, 6)
    assert all(map(same, before, (u, w, z)))


def test_threads_do_not_disturb_each_other():
    jobs = [(seed, block, 1 + block % 3, 6 - seed % 2) for seed in range(4) for block in range(40)]
    alone = [noise.block_noise(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: noise.block_noise(*job), jobs))
    for one, other in zip(alone, together, strict=True):
        assert all(map(same, one, other))


def test_the_largest_normal_is_the_one_stated():
    """The extreme words, each eighth of a turn: sqrt(66 ln 2) is reached and not passed; nothing is NaN."""
    a = np.repeat(np.array([0, 1, 2**31, 2**32 - 1], np.uint64), 8)
    b = np.tile(np.arange(0, 2**32, 2**29, dtype=np.uint64), 4)
    rows = [np.resize(word, (2, BLOCK)) for word in (a, b, a, b)]
    (normals,) = noise._Workspace(((MAPPER, 2),)).normals(tuple(rows))
    largest = math.sqrt(66 * math.log(2))
    assert largest > 6.76
    assert np.isfinite(normals).all()
    assert normals.max() == pytest.approx(largest, abs=1e-6)
    assert normals.min() == pytest.approx(-largest, abs=1e-6)


@pytest.mark.parametrize("draws", [10**6, pytest.param(10**8, marks=pytest.mark.slow)])
def test_normals_are_normal_and_independent(draws):
    """Moments, tails, distribution; independence of words, streams, indices and seeds. Limits: five sigma.

    Features of a row are its normals x and (x^2 - 1) / sqrt 2: means 0, variances 1, all uncorrelated. Their
    products within a row, with the next row's and with the next seed's have known means and variances.
    """
    m, q, seed = 3, 5, 20210419
    blocks = -(-draws // ((m + q) * BLOCK))
    rows = blocks * BLOCK
    sums = np.zeros(2 * (m + q))
    within, after, across = np.zeros((3, 2 * (m + q), 2 * (m + q)))
    bins = np.zeros(2 * 7 * 64, np.int64)
    u_pairs = np.zeros(64 * 64, np.int64)
    previous = np.zeros((1, 2 * (m + q)))
    for block in range(blocks):
        u, w, z = noise.block_noise(seed, block, m, q)
        _, v, y = noise.block_noise(seed + 1, block, m, q)
        here, there = features(w, z), features(v, y)
        sums += here.sum(axis=0)
        within += here.T @ here
        across += here.T @ there
        after += np.concatenate([previous, here[:-1]]).T @ here
        previous = here[-1:]
        bins += np.bincount(
            np.floor(here[:, : m + q] * 64 + 7 * 64).astype(np.int64).ravel(), minlength=len(bins)
        )
        u_pairs += np.bincount(
            (u[::2] * 64).astype(int) * 64 + (u[1::2] * 64).astype(int), minlength=64 * 64
        )

    limit, root = 5.0, math.sqrt(rows)
    assert np.abs(sums / root).max() < limit
    assert np.abs(across / root).max() < limit
    assert np.abs(after / root).max() < limit
    x, square = np.arange(m + q), np.arange(m + q) + m + q
    mean, sigma = np.eye(len(sums)), np.ones_like(within)
    sigma[x, x], sigma[square, square] = math.sqrt(2), math.sqrt(14)
    sigma[x, square] = sigma[square, x] = math.sqrt(5)
    assert np.abs((within - rows * mean) / sigma / root).max() < limit

    n = bins.sum()
    assert n == rows * (m + q)
    edges = np.arange(1 - 7 * 64, 7 * 64 + 1) / 64
    below = np.array([math.erfc(-edge / math.sqrt(2)) / 2 for edge in edges])
    assert (
        np.abs(np.cumsum(bins) / n - below).max() * math.sqrt(n) < 1.95
    )  # Kolmogorov-Smirnov, p = 0.001
    for sigmas in (3, 4, 5):
        share = math.erfc(sigmas / math.sqrt(2))
        beyond = bins[: (7 - sigmas) * 64].sum() + bins[(7 + sigmas) * 64 :].sum()
        assert abs(beyond - n * share) < limit * math.sqrt(n * share) + 1
    expected = u_pairs.sum() / len(u_pairs)
    chi2 = ((u_pairs - expected) ** 2 / expected).sum()
    assert abs(chi2 - (len(u_pairs) - 1)) < limit * math.sqrt(2 * len(u_pairs))


def features(w, z):
    x = np.concatenate([w, z], axis=1).astype(np.float64)
    return np.concatenate([x, (x**2 - 1) / math.sqrt(2)], axis=1)


def test_numbers_of_few_bits_name_the_same_noise():
    made, wanted = (
        noise.block_noise(np.uint8(3), np.uint8(255), 2, 1),
        noise.block_noise(3, 255, 2, 1),
    )
    assert all(map(np.array_equal, made, wanted))
    seed, start, n = np.uint8(3), np.int32(2**31 - 2), np.uint8(5)
    assert np.array_equal(noise.normals(seed, start, n, 1, 2), noise.normals(3, 2**31 - 2, 5, 1, 2))
