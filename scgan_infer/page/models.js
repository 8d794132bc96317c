// The latent models of the same data side by side: latents above, samples below, and how many are off the data.

import { greys, Scatter } from './draw.js'
import { make } from './elements.js'
import { axes, numbered, planes } from './planes.js'

const MOST = 2000

export const LATENTS = {
  gaussian: 'one Gaussian',
  centers: 'noisy cluster centres',
  mapper: 'a map for each cluster',
  real: 'latents of real rows',
}

// The models to show beside one: those of its data and columns, from the simplest to the real latents.
export function peers(entries, { data }) {
  const order = Object.keys(LATENTS)
  return entries
    .filter(one => one.data === data)
    .sort((a, b) => order.indexOf(a.latents) - order.indexOf(b.latents))
}

// A figure of one model's n samples before the real rows of `entry`; `paint` draws it once it is on the page.
export function figure(one, entry, samples, n, across, up) {
  const title = LATENTS[one.latents] ?? one.latents
  const [above, below] = [make('canvas', { role: 'img' }), make('canvas', { role: 'img' })]
  const { columns } = one.bundle
  const numbers = !columns.some(column => column.categories || column.missing)
  const off = numbers ? offData(entry.real, samples.x, columns) : null
  const share =
    off === null
      ? numbers
        ? 'too few real rows to compare with'
        : 'what is off the data is measured for numbers alone'
      : `${(100 * off).toFixed(1)} % of its samples are off the data`
  const caption = make('figcaption', { textContent: `${one.name}: ${share}` })
  above.ariaLabel = `Latents drawn from ${title}, before those of real rows`
  below.ariaLabel = `${n} samples of ${caption.textContent}`
  const paint = () => {
    const { e } = one.bundle.sizes
    const sets = planes(samples, { ...one, real: entry.real }, across, up)
    const [latents, rows] = [new Scatter(above), new Scatter(below)]
    latents.frame(...axes(sets.latents, [sets.realLatents], numbered('latent', e)))
    latents.add(sets.realLatents, 0, Infinity, false)
    latents.add(sets.latents, 0, n)
    latents.paint()
    rows.frame(...axes(sets.samples, [sets.real], one.bundle.columns))
    rows.add({ ...sets.real, colour: greys }, 0, Infinity, false)
    rows.add(sets.samples, 0, n)
    rows.paint()
  }
  return {
    paint,
    element: make('figure', {}, make('h3', { textContent: title }), above, below, caption),
  }
}

// The share of samples that are farther from every real row than 99 % of real rows are from their nearest other.
function offData(real, x, columns) {
  const d = columns.length
  if (real.length < 100 * d) return null
  const scales = columns.map((_, j) => spread(real, j, d))
  const scaled = values => values.subarray(0, MOST * d).map((value, at) => value / scales[at % d])
  const [rows, samples] = [scaled(real), scaled(x)]
  const own = nearest(rows, rows, d).sort()
  const limit = own[Math.floor(0.99 * own.length)]
  const beyond = nearest(samples, rows, d).filter(distance => distance > limit)
  return (beyond.length * d) / samples.length
}

function spread(values, j, d) {
  const n = values.length / d
  let sum = 0
  let squares = 0
  for (let at = j; at < values.length; at += d) {
    sum += values[at]
    squares += values[at] ** 2
  }
  return Math.sqrt(squares / n - (sum / n) ** 2) || 1
}

// Squared distances of rows to the nearest of others, or of themselves to the nearest other.
function nearest(from, others, d) {
  return Float64Array.from({ length: from.length / d }, (_, i) => {
    let least = Infinity
    for (let k = 0; k < others.length / d; k++) {
      if (from === others && i === k) continue
      let distance = 0
      for (let j = 0; j < d; j++) distance += (from[i * d + j] - others[k * d + j]) ** 2
      if (distance < least) least = distance
    }
    return least
  })
}
