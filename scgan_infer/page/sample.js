// One sample: its noise, and where that leads when one number of it moves along a line.

import { spell } from './csv.js'

const LINE = 121 // rows along a line

export const EXTENT = { u: 'h', w: 'm', z: 'q' }

// Between which values a number of the noise moves: u chooses the cluster, so rows leap along it.
export const reach = name => (name === 'u' ? [0, 1 - 2 ** -24] : [-3, 3])

const part = (values, i, width) => values.slice(i * width, (i + 1) * width)
const list = (values, digits) => Array.from(values, value => value.toFixed(digits)).join(', ')

function row({ columns }, values) {
  return columns.map((column, j) => `${column.name} ${spell(values[j], column)}`).join(', ')
}

// What there is to say of sample i: [term, text] each.
export function facts({ bundle }, { u, w, z, latent, cluster, x }, i) {
  const { h, m, q, e, d } = bundle.sizes
  const share = (100 * bundle.weights[cluster[i]]).toPrecision(3)
  return [
    ['row', row(bundle, part(x, i, d))],
    ['u', list(part(u, i, h), 6)],
    ['cluster', `${cluster[i]} of ${bundle.weights.length}, share ${share} %`],
    ['w', list(part(w, i, m), 4)],
    ['z', list(part(z, i, q), 4)],
    ['latent', list(part(latent, i, e), 4)],
  ].filter(([, text]) => text)
}

// The n rows of sample i's noise while number `place` of its u, w or z moves, the last of them where it is `at`.
export async function line({ bundle }, drawn, i, name, place, at, c) {
  const [low, high] = reach(name)
  const end = Math.min(high, Math.max(low, at))
  const n = LINE + 1
  const noise = {}
  for (const [key, extent] of Object.entries(EXTENT)) {
    const width = bundle.sizes[extent]
    noise[key] = Float32Array.from(
      { length: n * width },
      (_, k) => drawn[key][i * width + (k % width)],
    )
  }
  const width = bundle.sizes[EXTENT[name]]
  for (let k = 0; k < LINE; k++)
    noise[name][k * width + place] = low + ((high - low) * k) / (LINE - 1)
  noise[name][LINE * width + place] = end
  const rows = await bundle.run(noise, n, c)
  const last = row(bundle, part(rows.x, LINE, bundle.sizes.d))
  const which = width > 1 ? `${name} ${place + 1}` : name
  return { rows, n, facts: [[`row where ${which} is ${end.toFixed(2)}`, last]] }
}
