// Points and bars on canvases. Points go into the pixels directly: a hundred thousand take some milliseconds.

import { spell } from './csv.js'

const [LEFT, RIGHT, TOP, BOTTOM] = [42, 8, 8, 30]
const [INK, FAINT, REAL] = ['#1b1f24', '#d0d7de', [110, 118, 128]]

// A cluster's colour; neighbours in number are far apart in hue.
export function colour(cluster) {
  const hue = (cluster * 137.508) % 360
  const light = [0.42, 0.36, 0.48][cluster % 3]
  return [0, 8, 4].map(n => {
    const k = (n + hue / 30) % 12
    return Math.round(
      255 * (light - 0.7 * Math.min(light, 1 - light) * Math.max(-1, Math.min(k - 3, 9 - k, 1))),
    )
  })
}

export const greys = () => REAL

// What a column's numbers mean on a line from 0 to 1, over those of several arrays [n, width].
export function axis(column, arrays, j, width) {
  let low = Infinity
  let high = -Infinity
  for (const values of arrays) {
    for (let at = j; at < values.length; at += width) {
      low = values[at] < low ? values[at] : low
      high = values[at] > high ? values[at] : high
    }
  }
  if (low > high) [low, high] = [0, 1]
  const log = column.kind === 'log' && low > 0
  const to = log ? Math.log10 : value => value
  let [first, end] = [to(low), to(high)]
  const margin = column.categories ? 0.5 : 0.03 * (end - first) || 0.5
  if (column.categories) [first, end] = [0, column.categories.length - 1]
  first -= margin
  end += margin
  return { column, log, first, end, place: value => (to(value) - first) / (end - first) }
}

function ticks({ column, log, first, end }) {
  if (column.categories) {
    const step = Math.ceil(column.categories.length / 4)
    return column.categories.flatMap((name, i) => (i % step ? [] : [[i, name.slice(0, 6)]]))
  }
  const long = Boolean(column.pattern || column.anchor)
  const rough = (end - first) / (long ? 2 : 5)
  const power = 10 ** Math.floor(Math.log10(rough))
  let step = power * [1, 2, 5, 10].find(factor => factor * power >= rough)
  if (log) step = Math.max(1, Math.round(step))
  const found = []
  for (let k = Math.ceil(first / step); k * step <= end; k++) {
    const value = log ? 10 ** (k * step) : k * step
    found.push([value, long ? spell(value, column) : `${Number(value.toPrecision(6))}`])
  }
  return found
}

class Canvas {
  constructor(canvas) {
    this.canvas = canvas
    this.pen = canvas.getContext('2d', { willReadFrequently: true })
  }

  // Take the canvas's size on the screen and these axes, and forget what was drawn.
  frame(x, y) {
    this.ratio = globalThis.devicePixelRatio || 1
    const { clientWidth, clientHeight } = this.canvas
    this.width = Math.max(80, clientWidth)
    this.height = Math.max(80, clientHeight)
    this.canvas.width = this.width * this.ratio
    this.canvas.height = this.height * this.ratio
    this.pen.setTransform(this.ratio, 0, 0, this.ratio, 0, 0)
    this.pen.font = '11px system-ui, sans-serif'
    this.x = x
    this.y = y
  }

  across(place) {
    return LEFT + place * (this.width - LEFT - RIGHT)
  }

  down(place) {
    return this.height - BOTTOM - place * (this.height - BOTTOM - TOP)
  }

  axes() {
    const { pen } = this
    pen.strokeStyle = FAINT
    pen.strokeRect(LEFT, TOP, this.width - LEFT - RIGHT, this.height - BOTTOM - TOP)
    pen.fillStyle = INK
    pen.textAlign = 'center'
    if (this.x) {
      for (const [value, text] of ticks(this.x))
        pen.fillText(text, this.across(this.x.place(value)), this.height - BOTTOM + 12)
      pen.fillText(this.x.column.name.slice(0, 30), this.across(0.5), this.height - 5)
    }
    if (!this.y) return
    for (const [value, text] of ticks(this.y)) {
      const fits = text.length < 7
      pen.textAlign = fits ? 'right' : 'left'
      pen.fillText(text, fits ? LEFT - 4 : LEFT + 3, this.down(this.y.place(value)) + 4)
    }
    pen.save()
    pen.rotate(-Math.PI / 2)
    pen.textAlign = 'center'
    pen.fillText(this.y.column.name.slice(0, 30), -this.down(0.5), 9)
    pen.restore()
  }
}

// A scatter plot of row-major arrays.
export class Scatter extends Canvas {
  frame(x, y) {
    super.frame(x, y)
    this.image = this.pen.createImageData(this.canvas.width, this.canvas.height)
    this.image.data.fill(255)
    this.spots = new Float32Array(0)
  }

  // Draw points from .. to - 1 of {values, width, x, y, colour(i)}; those of the foreground can be pointed at.
  add({ values, width, x, y, colour }, from, to, foreground = true) {
    const count = values.length / width || 0
    if (foreground && !from) this.spots = new Float32Array(2 * count)
    const opacity = foreground ? 0.65 : 0.35
    const { image, ratio } = this
    const size = Math.max(1, Math.round((count > 20_000 ? 1 : 2) * ratio))
    const jitterX = wobble(this.x.column, 0.618034)
    const jitterY = wobble(this.y.column, 0.754878)
    for (let i = from; i < Math.min(to, count); i++) {
      const left = this.across(this.x.place(values[i * width + x] + jitterX(i)))
      const top = this.down(this.y.place(values[i * width + y] + jitterY(i)))
      if (foreground) this.spots.set([left, top], 2 * i)
      dot(image, Math.round(left * ratio), Math.round(top * ratio), size, colour(i), opacity)
    }
  }

  // Show what was drawn, and above it a line through points, small dots and rings around others, each [left, top].
  paint({ line = [], dots = [], rings = [] } = {}) {
    const { pen } = this
    pen.putImageData(this.image, 0, 0)
    this.axes()
    pen.strokeStyle = INK
    pen.lineWidth = 1.5
    pen.beginPath()
    for (const [left, top] of line) pen.lineTo(left, top)
    pen.stroke()
    pen.fillStyle = INK
    for (const [left, top] of dots) pen.fillRect(left - 1.5, top - 1.5, 3, 3)
    for (const [[left, top], fill] of rings) {
      pen.beginPath()
      pen.arc(left, top, 6, 0, 7)
      pen.lineWidth = 2
      pen.stroke()
      if (fill) {
        pen.fillStyle = fill
        pen.fill()
      }
    }
    pen.lineWidth = 1
  }

  spot(i) {
    return [this.spots[2 * i], this.spots[2 * i + 1]]
  }

  place({ values, width, x, y }, i) {
    values = values.subarray(i * width)
    return [this.across(this.x.place(values[x])), this.down(this.y.place(values[y]))]
  }

  // The number of the nearest of the first points to a place on the canvas; -1 where none is near.
  nearest(left, top, count) {
    let found = -1
    let least = 200
    for (let i = 0; i < count; i++) {
      const distance = (this.spots[2 * i] - left) ** 2 + (this.spots[2 * i + 1] - top) ** 2
      if (distance < least) [found, least] = [i, distance]
    }
    return found
  }
}

// Names and few whole numbers would hide one another.
function wobble(column, ratio) {
  return column.categories ? i => 0.6 * (((i * ratio) % 1) - 0.5) : () => 0
}

function dot({ data, width, height }, left, top, size, [red, green, blue], opacity) {
  for (let y = top; y < top + size; y++) {
    if (y < 0 || y >= height) continue
    for (let x = left; x < left + size; x++) {
      if (x < 0 || x >= width) continue
      const at = 4 * (y * width + x)
      data[at] += opacity * (red - data[at])
      data[at + 1] += opacity * (green - data[at + 1])
      data[at + 2] += opacity * (blue - data[at + 2])
    }
  }
}

// Bars of shares [{height, outline, colour, chosen}]; of a head that is a table also each one's interval of u, and a
// mark at one u.
export class Bars extends Canvas {
  paint(bars, isTable, mark = null) {
    this.frame(null, null)
    const { pen } = this
    const most = Math.max(1e-9, ...bars.map(bar => Math.max(bar.height, bar.outline)))
    const width = 1 / bars.length
    let sum = 0
    bars.forEach(({ height, outline, colour, chosen }, i) => {
      const left = this.across(i * width)
      const right = this.across((i + 1) * width)
      const gap = right - left > 4 ? 1 : 0
      const top = share => this.down((0.82 * share) / most)
      pen.fillStyle = `rgb(${colour})`
      pen.fillRect(left + gap, top(height), right - left - 2 * gap, this.down(0) - top(height))
      pen.strokeStyle = chosen ? INK : '#8c959f'
      pen.strokeRect(left + gap, top(outline), right - left - 2 * gap, this.down(0) - top(outline))
      const begin = this.across(sum)
      if (isTable) pen.fillRect(begin, this.down(1), this.across(sum + outline) - begin, 12)
      sum += outline
    })
    pen.fillStyle = INK
    pen.textAlign = 'center'
    pen.fillText('cluster, by number', this.across(0.5), this.height - 5)
    pen.fillText('0', this.across(0.5 * width), this.height - BOTTOM + 12)
    if (bars.length > 1)
      pen.fillText(`${bars.length - 1}`, this.across(1 - 0.5 * width), this.height - BOTTOM + 12)
    pen.textAlign = 'right'
    if (isTable) pen.fillText('u', LEFT - 4, this.down(1) + 10)
    pen.fillText(`${(100 * most).toPrecision(2)} %`, LEFT - 4, this.down(0.82) + 8)
    if (mark !== null) pen.fillRect(this.across(mark) - 1, this.down(1) - 4, 3, 20)
  }
}

// Histograms of real rows, filled, and of samples, as a line; returns what each misses.
export class Histogram extends Canvas {
  paint(column, real, samples, j, width) {
    const x = axis(column, [real, samples], j, width)
    this.frame(x, null)
    const bins = column.categories?.length ?? 40
    const [a, b] = [real, samples].map(values => shares(values, j, width, x, bins))
    const most = Math.max(1e-9, ...a.shares, ...b.shares)
    const { pen } = this
    const edge = k => this.across(k / bins)
    const top = share => this.down((0.95 * share) / most)
    pen.fillStyle = `rgb(${REAL.join(' ')} / 45%)`
    a.shares.forEach((share, k) =>
      pen.fillRect(edge(k), top(share), edge(k + 1) - edge(k), this.down(0) - top(share)),
    )
    pen.strokeStyle = 'rgb(0 92 197)'
    pen.lineWidth = 1.5
    pen.beginPath()
    b.shares.forEach(
      (share, k) => (pen.lineTo(edge(k), top(share)), pen.lineTo(edge(k + 1), top(share))),
    )
    pen.stroke()
    pen.lineWidth = 1
    this.axes()
    return { real: a, samples: b }
  }
}

function shares(values, j, width, { place }, bins) {
  const counts = new Float64Array(bins)
  const rows = values.length / width
  let there = 0
  let sum = 0
  for (let at = j; at < values.length; at += width) {
    if (Number.isNaN(values[at])) continue
    there += 1
    sum += values[at]
    counts[Math.max(0, Math.min(bins - 1, Math.floor(place(values[at]) * bins)))] += 1
  }
  return {
    shares: counts.map(count => count / Math.max(1, rows)),
    missing: rows ? 1 - there / rows : 0,
    mean: sum / there,
    rows,
  }
}
