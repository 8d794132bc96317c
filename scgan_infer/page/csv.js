// Cells of text and the numbers that graphs take: a category is its index, a missing cell NaN.

// Rows of cells; the separator is the one of , ; tab | that the first line has most of.
function cells(text) {
  const lines = text.replace(/^\uFEFF/, '')
  const header = lines.slice(0, lines.search(/\r?\n|$/))
  const count = mark => header.split(mark).length
  const separator = [...',;\t|'].reduce((best, mark) => (count(mark) > count(best) ? mark : best))
  const rows = [[]]
  const cell = new RegExp(
    `(?:"((?:[^"]|"")*)"|([^"${separator}\\r\\n][^${separator}\\r\\n]*)?)(${`\\${separator}`}|\\r?\\n|\\r|$)`,
    'y',
  )
  for (let match; cell.lastIndex < lines.length && (match = cell.exec(lines));) {
    rows.at(-1).push(match[1]?.replaceAll('""', '"') ?? match[2] ?? '')
    if (match[3] !== separator) rows.push([])
  }
  return rows.filter(row => row.length > 1 || row[0])
}

// Read the cells of these columns, by the names in the first line: float32 [n, columns], at most `most` rows.
export function parse(text, columns, most) {
  const [names, ...rows] = cells(text)
  const places = columns.map(column => names.indexOf(column.name))
  const absent = columns.filter((_, j) => places[j] < 0).map(column => column.name)
  if (absent.length)
    throw new Error(`no column ${absent.join(', ')} in the first line (${names.join(', ')})`)
  const n = Math.min(rows.length, most)
  const values = new Float32Array(n * columns.length)
  for (let i = 0; i < n; i++) {
    const row = rows[Math.floor((i * rows.length) / n)]
    columns.forEach((column, j) => {
      const cell = row[places[j]] ?? ''
      const value = number(cell, column)
      if (Number.isNaN(value) && cell !== '' && cell.toLowerCase() !== 'nan') {
        throw new Error(
          `row ${i + 1}, column ${column.name}: ${JSON.stringify(cell)} is no value of it`,
        )
      }
      values[i * columns.length + j] = value
    })
  }
  return values
}

function number(cell, column) {
  if (cell.trim() === '') return NaN
  if (column.categories) {
    const index = column.categories.indexOf(cell)
    return index < 0 ? NaN : index
  }
  return (column.pattern ? count(cell, column) : Number(cell)) - (column.anchor ?? 0)
}

// The nearest whole number, the even one of two.
function rounded(value) {
  const near = Math.round(value)
  return near - value === 0.5 && near % 2 ? near - 1 : near
}

// One cell as `scgan sample` writes it: the fewest digits, 6 at least, that bring a float32 back.
export function spell(value, column) {
  if (Number.isNaN(value)) return ''
  if (column.categories) return column.categories[Math.round(value)] ?? ''
  if (column.pattern) return date(rounded(value + (column.anchor ?? 0)), column)
  if (column.anchor !== undefined) {
    const whole = value + column.anchor
    const decimals = column.kind === 'integer' ? 0 : column.decimals
    return decimals === undefined ? `${Number(whole.toPrecision(15))}` : whole.toFixed(decimals)
  }
  for (const digits of [6, 7, 8]) {
    const text = Number(value.toPrecision(digits))
    if (Math.fround(text) === value) return `${text}`
  }
  return `${Number(value.toPrecision(9))}`
}

// A file of rows: x float32 [n, columns], and c [g], the values of given columns, each [{column, place}], in their places.
export function file(columns, x, given, c) {
  const quoted = text => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const line = (made, own) => {
    const cells = [...made]
    given.forEach(({ place }, k) => cells.splice(place, 0, own[k]))
    return cells.map(quoted).join()
  }
  const conditions = given.map(({ column }, k) => spell(Math.fround(c[k]), column))
  const names = given.map(({ column }) => column.name)
  const lines = [
    line(
      columns.map(column => column.name),
      names,
    ),
  ]
  for (let at = 0; at < x.length; at += columns.length) {
    lines.push(
      line(
        columns.map((column, j) => spell(x[at + j], column)),
        conditions,
      ),
    )
  }
  return lines.join('\n') + '\n'
}

// Dates are counts of a resolution since 1970, on the clock of their column; months by the calendar.
const MILLISECONDS = { D: 864e5, h: 36e5, m: 6e4, s: 1e3, ms: 1, us: 1e-3 }
const PART = /YYYY|MM|DD|hh|mm|ss|f+/g

function date(count, { resolution, pattern }) {
  const unit = MILLISECONDS[resolution]
  const moment = unit
    ? new Date(unit < 1 ? Math.floor(count / 1000) : count * unit)
    : new Date(Date.UTC(1970, count))
  const [YYYY, MM, DD, hh, mm, ss, thousandths] = moment.toISOString().match(/\d+/g)
  const beyond = unit < 1 ? String(((count % 1000) + 1000) % 1000).padStart(3, '0') : '000'
  const parts = { YYYY, MM, DD, hh, mm, ss }
  return pattern.replace(PART, part => parts[part] ?? (thousandths + beyond).slice(0, part.length))
}

function count(cell, { resolution, pattern }) {
  const parts = { YYYY: 1970, MM: 1, DD: 1, hh: 0, mm: 0, ss: 0 }
  let fraction = 0
  for (const { 0: part, index } of pattern.matchAll(PART)) {
    const text = cell.slice(index, index + part.length)
    if (!/^\d+$/.test(text)) return NaN
    if (part[0] === 'f') fraction = Number(`0.${text}`)
    else parts[part] = Number(text)
  }
  if (resolution === 'M') return (parts.YYYY - 1970) * 12 + parts.MM - 1
  const { YYYY, MM, DD, hh, mm, ss } = parts
  const seconds = Date.UTC(YYYY, MM - 1, DD, hh, mm, ss) / 1000 + fraction
  return Math.round((seconds * 1000) / MILLISECONDS[resolution])
}
