// The noise of sample i is a function of (seed, i): the contract of scgan_infer/sampling/noise.py, in 32-bit integers.
//
//   counter = (index mod 2^32, index div 2^32, group, stream)      key = (seed mod 2^32, seed div 2^32)
//   a uniform is (word div 2^8) 2^-24; two normals come from two words by Box and Muller

const M0 = 0xd2511f53
const M1 = 0xcd9e8d57
const STEP0 = 0x9e3779b9
const STEP1 = 0xbb67ae85
const ROUNDS = 10
const CHOICE = 0
const MAPPER = 1
const DECODER = 2
const TURN = Math.fround(Math.PI * 2 ** -31)
const words = new Uint32Array(4)

// The high 32 bits of a product of two words, by halves.
function high(a, b) {
  const a0 = a & 0xffff
  const a1 = a >>> 16
  const b0 = b & 0xffff
  const b1 = b >>> 16
  const middle = a1 * b0 + ((a0 * b0) >>> 16)
  return a1 * b1 + (middle >>> 16) + ((a0 * b1 + (middle & 0xffff)) >>> 16)
}

// Philox 4x32-10 (Salmon and others, 2011) into `words`.
export function philox(c0, c1, c2, c3, k0, k1) {
  for (let round = 0; round < ROUNDS; round++) {
    const high0 = high(M0, c0)
    const low0 = Math.imul(M0, c0)
    const high1 = high(M1, c2)
    const low1 = Math.imul(M1, c2)
    c0 = high1 ^ c1 ^ k0
    c1 = low1
    c2 = high0 ^ c3 ^ k1
    c3 = low0
    k0 = (k0 + STEP0) | 0
    k1 = (k1 + STEP1) | 0
  }
  words[0] = c0
  words[1] = c1
  words[2] = c2
  words[3] = c3
  return words
}

// The key of a seed in 0 .. 2^63 - 1, given as text; null where it is none.
export function key(seed) {
  if (!/^\d{1,19}$/.test(seed) || BigInt(seed) >= 2n ** 63n) return null
  return [Number(BigInt(seed) & 0xffffffffn), Number(BigInt(seed) >> 32n)]
}

// The uniforms of one sample, of the so many-th repeat of its draw, into out[at .. at + h - 1].
export function uniforms([k0, k1], index, h, repeat, out, at) {
  const groups = Math.ceil(h / 4)
  for (let j = 0; j < h; j++) {
    if (j % 4 === 0) {
      philox(index % 2 ** 32, Math.floor(index / 2 ** 32), repeat * groups + j / 4, CHOICE, k0, k1)
    }
    out[at + j] = (words[j % 4] >>> 8) / 2 ** 24
  }
}

// Standard normals [n, count] of a stream, for samples from .. from + n - 1.
function normals([k0, k1], from, n, stream, count) {
  const out = new Float32Array(n * count)
  for (let i = 0, at = 0; i < n; i++) {
    const index = from + i
    const low = index % 2 ** 32
    const above = Math.floor(index / 2 ** 32)
    for (let j = 0; j < count; j += 2) {
      if (j % 4 === 0) philox(low, above, j / 4, stream, k0, k1)
      const uniform = Math.fround(Math.fround(words[j % 4]) * 2 ** -32 + 2 ** -33)
      const radius = Math.sqrt(-2 * Math.log(uniform))
      const angle = Math.fround(Math.fround(words[(j % 4) + 1] | 0) * TURN)
      out[at++] = radius * Math.cos(angle)
      if (j + 1 < count) out[at++] = radius * Math.sin(angle)
    }
  }
  return out
}

// u [n, h], w [n, m] and z [n, q] of samples from .. from + n - 1.
export function noise(key, from, n, { h, m, q }) {
  const u = new Float32Array(n * h)
  for (let i = 0; i < n; i++) uniforms(key, from + i, h, 0, u, i * h)
  return { u, w: normals(key, from, n, MAPPER, m), z: normals(key, from, n, DECODER, q) }
}
