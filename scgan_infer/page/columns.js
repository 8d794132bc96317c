// Any number of columns: a histogram of each, pairs of those that are chosen, and the first rows.

import { spell } from './csv.js'
import { Histogram, Scatter } from './draw.js'
import { $, make } from './elements.js'
import { axes } from './planes.js'

const MOST = 5000
const ROWS = 10

const percent = share => `${(100 * share).toFixed(1)} %`

// Draw the histograms of samples and real rows [n, d]; `toggle` gets a column that is ticked or not.
export function histograms(columns, real, samples, chosen, toggle) {
  $('histograms').replaceChildren(
    ...columns.map((column, j) => {
      const tick = make('input', { type: 'checkbox', checked: chosen.includes(j) })
      tick.addEventListener('change', () => toggle(j))
      const caption = make('figcaption', {}, make('label', {}, tick, column.name), make('div'))
      return make('figure', {}, make('canvas', { role: 'img' }), caption)
    }),
  )
  columns.forEach((column, j) => {
    const [canvas, caption] = $('histograms').children[j].children
    const found = new Histogram(canvas).paint(column, real, samples, j, columns.length)
    caption.lastChild.textContent = real.length
      ? `samples ${about(found.samples, column)}; real ${about(found.real, column)}`
      : `samples ${about(found.samples, column)}`
    canvas.ariaLabel = `Histogram of ${column.name}: ${caption.lastChild.textContent}`
  })
}

function about({ shares, mean, missing }, column) {
  const most = shares.indexOf(Math.max(...shares))
  const facts = column.categories
    ? [`most often ${column.categories[most]} (${percent(shares[most])})`]
    : [`mean ${spell(Math.fround(Number(mean.toPrecision(3))), column)}`]
  return [...facts, ...(column.missing ? [`missing ${percent(missing)}`] : [])].join(', ')
}

// Draw each pair of columns: samples below the diagonal, real rows above if there are any.
export function pairs(columns, { samples, real }, chosen) {
  const size = chosen.length > 1 ? chosen.length : 0
  $('pairs').style.gridTemplateColumns = `repeat(${size}, minmax(0, 17rem))`
  $('pairs').replaceChildren(
    ...Array.from({ length: size ** 2 }, () => make('canvas', { role: 'img' })),
  )
  Array.from($('pairs').children).forEach((canvas, place) => {
    const [y, x] = [chosen[Math.floor(place / size)], chosen[place % size]]
    if (x === y) {
      new Histogram(canvas).paint(columns[x], real.values, samples.values, x, columns.length)
      canvas.ariaLabel = `Histogram of ${columns[x].name}`
      return
    }
    const plot = new Scatter(canvas)
    plot.frame(...axes({ ...samples, x, y }, [real], columns))
    const above = y <= x && real.values.length > 0
    plot.add({ ...(above ? real : samples), x, y }, 0, MOST)
    plot.paint()
    canvas.ariaLabel = `${columns[y].name} against ${columns[x].name}, ${above ? 'real rows' : 'samples'}`
  })
}

// Show the first samples as text.
export function table(columns, samples) {
  const cell = (tag, textContent, scope) =>
    make(tag, scope ? { textContent, scope } : { textContent })
  const d = columns.length
  const n = Math.min(ROWS, samples.length / d)
  const head = columns.map(column => cell('th', column.name, 'col'))
  const rows = Array.from({ length: n }, (_, i) => {
    const cells = columns.map((column, j) => cell('td', spell(samples[i * d + j], column)))
    return make('tr', {}, cell('th', i, 'row'), ...cells)
  })
  $('table').replaceChildren(
    make('thead', {}, make('tr', {}, cell('th', 'sample', 'col'), ...head)),
    make('tbody', {}, ...rows),
  )
}
