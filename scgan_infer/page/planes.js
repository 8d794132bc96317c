// What is drawn in a plane: two columns of row-major values, and the colour of each row.

import { axis, colour, greys } from './draw.js'

// Two columns of row-major values; of one column alone it and a spread.
function plane(values, width, x, y, colours) {
  if (width > 1) return { values, width, x, y, colour: colours }
  const spread = new Float32Array(2 * values.length)
  values.forEach((value, i) => spread.set([value, (i * 0.618034) % 1], 2 * i))
  return { values: spread, width: 2, x: 0, y: 1, colour: colours }
}

// The axes of a plane that has room for others, too.
export function axes(first, others, columns) {
  const arrays = [first.values, ...others.map(one => one.values)]
  return [first.x, first.y].map(j => axis(columns[j] ?? { name: 'spread' }, arrays, j, first.width))
}

// Columns that have a number for a name, two at least.
export const numbered = (word, count) =>
  Array.from({ length: Math.max(2, count) }, (_, k) => ({
    name: count > k ? `${word} ${k + 1}` : 'spread',
  }))

// The planes of noise, latents, samples and real rows, coloured by cluster; `across` and `up` are columns of rows.
export function planes(
  { w, latent, x, cluster },
  { bundle, real, realLatent, realCluster },
  across,
  up,
) {
  const { m, e, d } = bundle.sizes
  const hue = Array.from({ length: bundle.weights.length }, (_, i) => colour(i))
  const own = i => hue[cluster[i]]
  return {
    noise: plane(w, m, 0, 1, own),
    latents: plane(latent, e, 0, 1, own),
    samples: plane(x, d, across, up, own),
    real: plane(real, d, across, up, i => hue[realCluster[i]] ?? greys()),
    realLatents: plane(realLatent, e, 0, 1, greys),
  }
}
