// A bundle in the browser: noise, then mappers.onnx, then decoder.onnx, in blocks of 4096 rows.

import * as ort from './runtime/ort.js'
import { noise, uniforms } from './noise.js'

const BLOCK = 4096
const GRID = 2 ** 24
const MOST_REPEATS = 10_000
const ENOUGH = 64 // blocks of draws that tell whether all rows will find their cluster
const NEWEST = 2 // format
const GRAPHS = ['encoder.onnx', 'head.onnx', 'mappers.onnx', 'decoder.onnx']
const EXTENTS = { u: 'h', w: 'm', z: 'q', x: 'd', latent: 'e', c: 'g' }

let ready

// Start onnxruntime: one thread, for more need headers that plain file servers don't send.
export function start() {
  ready ??= fetch(new URL('./runtime/ort.wasm', import.meta.url)).then(async answer => {
    ort.env.wasm.numThreads = 1
    ort.env.wasm.wasmBinary = await answer.arrayBuffer()
    ort.env.logLevel = 'error'
  })
  return ready
}

// Open a bundle; `read` gives a promise of the bytes of one of its files.
export async function open(read) {
  const manifest = JSON.parse(new TextDecoder().decode(await read('bundle.json')))
  if (!(manifest.format >= 1 && manifest.format <= NEWEST)) {
    throw new Error(
      `bundle.json: format ${manifest.format} is not one that this page reads (1 to ${NEWEST})`,
    )
  }
  const names = GRAPHS.filter(name => manifest.files[name])
  const bytes = await Promise.all(
    names.map(async name => [name, await checked(name, await read(name), manifest)]),
  )
  await start()
  const sessions = {}
  for (const [name, data] of bytes) sessions[name] = await ort.InferenceSession.create(data)
  return new Bundle(manifest, sessions)
}

// Browsers have SHA-256 for pages from https and localhost only.
async function checked(name, data, manifest) {
  if (crypto.subtle) {
    const hash = new Uint8Array(await crypto.subtle.digest('SHA-256', data))
    const text = Array.from(hash, byte => byte.toString(16).padStart(2, '0')).join('')
    if (text !== manifest.files[name].sha256)
      throw new Error(`${name} is not the file that bundle.json names`)
  }
  return data
}

class Bundle {
  constructor(manifest, sessions) {
    this.manifest = manifest
    this.sessions = sessions
    this.columns = manifest.columns
    this.given = manifest.given ?? [] // [{column, place, low, high}, ...]
    this.sizes = { h: 1, g: 0, ...manifest.sizes }
    const ends = manifest.thresholds
    this.weights = ends.map((end, i) => (end - (i ? ends[i - 1] : 0)) / GRID)
  }

  // Samples 0 .. n - 1 of a draw {key, temperature, cluster (null for all), c}: their noise and what `run` gives.
  // `each` gets how many there are by now, and may end it: then there is no result.
  async sample(draw, n, each = () => true) {
    const { h, m, q, e, d } = this.sizes
    const widths = { u: h, w: m, z: q, latent: e, x: d }
    const out = { cluster: new Int32Array(n) }
    for (const [name, width] of Object.entries(widths)) out[name] = new Float32Array(n * width)
    for (let from = 0; from < n; from += BLOCK) {
      const count = Math.min(BLOCK, n - from)
      const { u, w, z } = noise(draw.key, from, count, this.sizes)
      if (draw.cluster !== null && this.sessions['head.onnx']) {
        if (!(await this.again(u, draw, from, each))) return null
      } else if (draw.cluster !== null) this.within(u, draw.cluster)
      for (let i = 0; i < w.length; i++) w[i] *= draw.temperature
      for (let i = 0; i < z.length; i++) z[i] *= draw.temperature
      const part = await this.run({ u, w, z }, count, draw.c)
      for (const name in part) out[name].set(part[name], from * (widths[name] ?? 1))
      if (!(await each(from + count))) return null
    }
    return out
  }

  // Latents, clusters and rows of n rows of noise, and the noise; c is [g] for all or [n, g].
  async run({ u, w, z }, n, c) {
    const maps = await this.call('mappers.onnx', n, { u, w, c })
    const { latent, choice = maps.cluster } = maps // as format 1 called it
    const { x } = await this.call('decoder.onnx', n, { latent, choice, cluster: choice, z, c })
    const cluster = last(choice, this.sizes)
    return { u, w, z, latent: latent?.data ?? new Float32Array(0), cluster, x: x.data }
  }

  // Latents and clusters of rows [n, d], whose given columns are c [n, g].
  async encode(x, c) {
    const n = x.length / this.sizes.d
    const { latent, cluster, choice = cluster } = await this.call('encoder.onnx', n, { x, c })
    return { latent: latent?.data ?? new Float32Array(0), cluster: last(choice, this.sizes) }
  }

  async call(name, n, values) {
    const session = this.sessions[name]
    const feeds = {}
    for (const input of session.inputNames) {
      const value = values[input]
      const size = this.sizes[EXTENTS[input]]
      const shape = input === 'u' && size === 1 ? [n] : [n, size]
      const made = value instanceof ort.Tensor
      feeds[input] = made ? value : new ort.Tensor('float32', repeated(value, n * size), shape)
    }
    return session.run(feeds)
  }

  // Move uniforms onto the interval of one cluster, where the head is a table.
  within(u, cluster) {
    const low = cluster ? this.manifest.thresholds[cluster - 1] : 0
    const width = this.manifest.thresholds[cluster] - low
    for (let i = 0; i < u.length; i++) u[i] = (low + Math.floor(u[i] * width)) / GRID
  }

  // Draw rows again until all come from one cluster, where the head is a network; false if `each` ends it.
  async again(u, { key, cluster, c }, from, each) {
    const { h } = this.sizes
    let pending = Array.from({ length: u.length / h }, (_, i) => i)
    let [draws, fitting] = [0, 0]
    for (let repeat = 0; pending.length;) {
      const hopeless = draws >= ENOUGH * BLOCK && fitting * MOST_REPEATS < draws
      if (repeat >= MOST_REPEATS || hopeless) {
        throw new Error(`cluster ${cluster} is too rare: ${fitting} of ${draws} draws gave it`)
      }
      const times = Math.floor(BLOCK / pending.length)
      const count = times * pending.length
      const tried = new Float32Array(count * h)
      for (let k = 0; k < count; k++) {
        uniforms(key, from + pending[Math.floor(k / times)], h, repeat + (k % times), tried, k * h)
      }
      const found = last((await this.call('head.onnx', count, { u: tried, c })).choice, this.sizes)
      pending = pending.filter((i, k) => {
        const first = found.subarray(k * times, (k + 1) * times).indexOf(cluster)
        if (first < 0) return true
        const at = (k * times + first) * h
        u.set(tried.subarray(at, at + h), i * h)
        return false
      })
      draws += count
      fitting += found.filter(one => one === cluster).length
      repeat += times
      if (!(await each(from))) return false
    }
    return true
  }
}

// The clusters [n], as 32-bit integers, of choices [n, h] in 64 bits.
function last({ data }, { h }) {
  const halves = new Int32Array(data.buffer, data.byteOffset, 2 * data.length)
  return Int32Array.from({ length: data.length / h }, (_, i) => halves[2 * (i * h + h - 1)])
}

// Numbers [length], those of one row for all rows if there is one alone.
function repeated(values, length) {
  if (values.length === length) return values
  return Float32Array.from({ length }, (_, i) => values[i % values.length])
}
