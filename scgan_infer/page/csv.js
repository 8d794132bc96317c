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
  const n = Math.min(rows.length, most),
    values = new Float32Array(n * columns.length)
  for (let i = 0; i < n; i++) {
    const row = rows[Math.floor((i * rows.length) / n)]
    columns.forEach((column, j) => {
      const cell = row[places[j]] ?? '',
        value = number(cell, column)
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
  return Number(cell) - (column.anchor ?? 0)
}

// One cell as `scgan sample` writes it: the fewest digits, 6 at least, that bring a float32 back.
export function spell(value, column) {
  if (Number.isNaN(value)) return ''
  if (column.categories) return column.categories[Math.round(value)] ?? ''
  if (column.anchor !== undefined) {
    return column.decimals === undefined
      ? `${value + column.anchor}`
      : (value + column.anchor).toFixed(column.decimals)
  }
  for (const digits of [6, 7, 8]) {
    const text = Number(value.toPrecision(digits))
    if (Math.fround(text) === value) return `${text}`
  }
  return `${Number(value.toPrecision(9))}`
}

// A file of rows, float32 [n, columns].
export function file(columns, values) {
  const quoted = text => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)
  const lines = [columns.map(column => quoted(column.name)).join()]
  for (let at = 0; at < values.length; at += columns.length) {
    lines.push(columns.map((column, j) => quoted(spell(values[at + j], column))).join())
  }
  return lines.join('\n') + '\n'
}
