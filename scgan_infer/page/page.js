// The page: its state, which the address holds too, what follows from a change of it, and who may change it.

import { open, start } from './bundle.js'
import { histograms, pairs, table } from './columns.js'
import { file, parse, spell } from './csv.js'
import { Bars, colour, Scatter } from './draw.js'
import { $, make } from './elements.js'
import { figure, LATENTS, peers } from './models.js'
import { key } from './noise.js'
import { axes, numbered, planes } from './planes.js'

const DEFAULTS = {
  bundle: '',
  n: '5000',
  seed: '0',
  temperature: '1',
  cluster: '-1',
  x: '0',
  y: '1',
  sample: '',
  along: '',
  at: '0',
  pairs: '',
  given: '',
}
const MOST_ROWS = 1_000_000
const MOST_REAL = 5000
const COMPARED = 4000 // rows of each latent model
const LINE = 121 // rows along a line
const MOVING = ['noise', 'latents', 'samples']

const state = { ...DEFAULTS }
const plots = Object.fromEntries([...MOVING, 'real'].map(name => [name, new Scatter($(name))]))
const bars = new Bars($('clusters'))
const turns = { draw: 0, line: 0, play: 0 } // what began with an older number ends
let entries = [] // [{name, data, latents, read, text, bundle, real, realLatent, realCluster}, ...]
let entry // the one that is shown
let drawn = null // its samples
let shown = 0 // how many of them are on the plots
let pinned = false // whether pointing at another sample changes nothing
let trace = null // the sample that is shown by itself

function say(text, bad = false) {
  $('status').textContent = text
  $('status').className = bad ? 'bad' : ''
}

// Do something, and say what went wrong.
async function guarded(action) {
  try {
    await action()
  } catch (error) {
    say(error.message, true)
  }
}

const frame = () => new Promise(resolve => requestAnimationFrame(resolve))

// ---- state and address

function readAddress() {
  Object.assign(state, DEFAULTS, Object.fromEntries(new URLSearchParams(location.hash.slice(1))))
}

function change(changes) {
  Object.assign(state, changes)
  const kept = Object.entries(state).filter(
    ([name, value]) => name in DEFAULTS && value !== DEFAULTS[name],
  )
  history.replaceState(null, '', `#${new URLSearchParams(kept)}`)
}

// ---- bundles

async function fetched(path) {
  const answer = await fetch(path)
  if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`)
  return answer
}

function served({ name, data, latents, rows }) {
  const folder = `bundles/${encodeURIComponent(name)}`
  const read = async file => (await fetched(`${folder}/${file}`)).arrayBuffer()
  return {
    name,
    data,
    latents,
    read,
    text: async () => (rows ? (await fetched(`${folder}/rows.csv`)).text() : null),
  }
}

function prepare(one) {
  one.ready ??= (async () => {
    const [bundle, text] = await Promise.all([open(one.read), one.text()])
    Object.assign(one, {
      bundle,
      data: bundle.manifest.provenance?.sha256 ?? one.name,
      latents: bundle.manifest.latents,
    })
    await setReal(one, text)
  })()
  return one.ready
}

// Take real rows from text; null for none.
async function setReal(one, text) {
  const { columns, given, sizes } = one.bundle
  const { d, g } = sizes
  const all = [...columns, ...given.map(({ column }) => column)]
  const cells = text === null ? new Float32Array(0) : parse(text, all, MOST_REAL)
  const real = cells.filter((_, at) => at % (d + g) < d)
  const c = cells.filter((_, at) => at % (d + g) >= d)
  const { latent, cluster } = real.length
    ? await one.bundle.encode(real, c)
    : { latent: real, cluster: real }
  Object.assign(one, { real, realLatent: latent, realCluster: cluster })
}

function listBundles() {
  $('bundle').replaceChildren(
    ...entries.map(one =>
      make('option', {
        value: one.name,
        textContent: `${one.name} (${LATENTS[one.latents] ?? one.latents})`,
      }),
    ),
  )
}

// Take what was dropped or chosen: the files of a bundle, or a file of real rows.
async function take(files) {
  const named = new Map(files.map(one => [one.name, one]))
  if (named.has('bundle.json')) {
    const read = async name => {
      if (!named.has(name)) throw new Error(`${name} is missing: choose all files of the bundle`)
      return named.get(name).arrayBuffer()
    }
    const { name, latents } = JSON.parse(await named.get('bundle.json').text())
    let label = `${name}, yours`
    while (entries.some(one => one.name === label)) label += ' too'
    const added = { name: label, data: name, latents, read, text: async () => null }
    await prepare(added)
    entries.push(added)
    listBundles()
    change({ ...DEFAULTS, bundle: label })
  }
  const rows = files.find(one => /\.(csv|tsv|txt)$/i.test(one.name))
  if (!rows && !named.has('bundle.json'))
    throw new Error('give a CSV, or all files of a bundle: bundle.json and *.onnx')
  await refresh()
  if (rows) {
    await setReal(entry, await rows.text())
    await redraw()
    say(
      `Real rows of ${rows.name}: ${entry.real.length / entry.bundle.columns.length} shown beside samples.`,
    )
  }
}

async function filesIn(items) {
  const found = []
  const walk = async item => {
    if (item.isFile) found.push(await new Promise((done, failed) => item.file(done, failed)))
    else
      for (const inner of await new Promise((done, failed) =>
        item.createReader().readEntries(done, failed),
      ))
        await walk(inner)
  }
  for (const item of items) if (item) await walk(item)
  return found
}

// ---- samples

// The values of the given columns, in the middle of what was seen unless they are chosen.
function given(bundle) {
  const chosen = state.given.split(' ').map(Number)
  if (chosen.length === bundle.given.length && state.given) return chosen
  return bundle.given.map(({ column, low, high }) => (column.categories ? 0 : (low + high) / 2))
}

function asked(bundle) {
  const draw = {
    key: key(state.seed),
    temperature: Number(state.temperature),
    cluster: Number(state.cluster),
    c: given(bundle),
  }
  if (!draw.key) throw new Error(`seed ${state.seed} is not a whole number from 0 to 2^63 - 1`)
  if (!(draw.cluster >= 0 && draw.cluster < bundle.weights.length)) draw.cluster = null
  else if (!bundle.weights[draw.cluster])
    throw new Error(`cluster ${draw.cluster} has weight 0: no sample comes from it`)
  return draw
}

// Take another value of a control.
function set(name, value) {
  change({ [name]: value })
  $('seed-slider').value = state.seed
  showOutputs()
  return refresh()
}

// Sample anew and draw all that follows.
async function refresh() {
  const turn = ++turns.draw
  turns.play++
  const wanted = entries.find(one => one.name === state.bundle) ?? entries[0]
  if (!wanted.bundle) say(`Loading ${wanted.name} …`)
  await prepare(wanted)
  const n = Math.floor(Number(state.n))
  if (!(n >= 1 && n <= MOST_ROWS)) {
    throw new Error(`rows: ${state.n} is not a whole number from 1 to ${MOST_ROWS}`)
  }
  const began = performance.now()
  let breath = began
  const made = await wanted.bundle.sample(asked(wanted.bundle), n, async done => {
    if (performance.now() - breath > 200) {
      say(`${done} of ${n} rows …`)
      await frame()
      breath = performance.now()
    }
    return turn === turns.draw
  })
  if (!made) return
  entry = wanted
  drawn = { ...made, n }
  trace = null
  $('play').textContent = 'Play'
  showControls()
  await drawAll()
  const took = Math.round(performance.now() - began)
  say(`${n} rows of ${entry.name}, seed ${state.seed}, in ${took} ms.`)
  await compare()
}

// Draw the same samples again, otherwise.
async function redraw() {
  await drawAll()
  return compare()
}

// The columns across and up, as far as the bundle has them.
function directions() {
  const { d } = entry.bundle.sizes
  return [state.x, state.y].map((j, k) => (Number(j) < d ? Number(j) : Math.min(k, d - 1)))
}

// Draw everything from the samples that are there.
function drawAll() {
  const { m, e } = entry.bundle.sizes,
    { columns } = entry.bundle
  const sets = (drawn.planes = planes(drawn, entry, ...directions()))
  plots.noise.frame(...axes(sets.noise, [], numbered('w', m)))
  plots.latents.frame(...axes(sets.latents, [sets.realLatents], numbered('latent', e)))
  const both = axes(sets.samples, [sets.real], columns)
  plots.samples.frame(...both)
  plots.real.frame(...both)
  plots.latents.add(sets.realLatents, 0, Infinity, false)
  plots.real.add(sets.real, 0, Infinity)
  plots.real.paint()
  shown = 0
  reveal(drawn.n)
  histograms(columns, entry.real, drawn.x, ticked(), toggle)
  pairs(columns, sets, ticked())
  table(columns, drawn.x)
  return select(state.sample)
}

const ticked = () =>
  state.pairs
    .split(' ')
    .filter(Boolean)
    .map(Number)
    .filter(j => j < entry.bundle.columns.length)

// Take a column into the pairs, or out of them.
function toggle(j) {
  const chosen = new Set(ticked())
  if (!chosen.delete(j)) chosen.add(j)
  change({ pairs: [...chosen].sort((a, b) => a - b).join(' ') })
  pairs(entry.bundle.columns, drawn.planes, ticked())
}

// Show samples up to this many.
function reveal(count) {
  const from = shown
  shown = Math.min(count, drawn.n)
  for (const name of MOVING) plots[name].add(drawn.planes[name], from, shown)
  paint()
  const { columns } = entry.bundle,
    real = entry.real.length / columns.length
  $('noise').ariaLabel = `Noise w of ${shown} samples`
  $('latents').ariaLabel = `Latents of ${shown} samples, before those of ${real} real rows`
  $('samples').ariaLabel =
    `${shown} samples, ${plots.samples.x.column.name} across, ${plots.samples.y.column.name} up`
  $('real').ariaLabel = real
    ? `${real} real rows, on the same axes`
    : 'No real rows: open a CSV to see some'
}

function paint() {
  const counts = new Float64Array(entry.bundle.weights.length)
  for (let i = 0; i < shown; i++) counts[drawn.cluster[i]]++
  const used = counts.filter(count => count).length
  const i = trace?.i ?? Number(state.sample || -1),
    there = i >= 0 && i < shown
  const shares = entry.bundle.weights.map((outline, k) => {
    const chosen = there && drawn.cluster[i] === k
    return { outline, height: counts[k] / Math.max(1, shown), colour: colour(k), chosen }
  })
  bars.paint(shares, there && !entry.bundle.sessions['head.onnx'] ? drawn.u[i] : null)
  $('clusters').ariaLabel =
    `Shares of ${counts.length} clusters, ${used} of them in ${shown} samples; u selects the cluster`
  for (const name of MOVING) {
    const plot = plots[name],
      rings = there ? [[plot.spot(i)]] : []
    if (trace?.moved[name]) rings.push([trace.moved[name], '#ffd33d'])
    plot.paint({ [trace?.leaps ? 'dots' : 'line']: trace?.line[name], rings })
  }
}

async function play() {
  const turn = ++turns.play
  $('play').textContent = 'Pause'
  if (shown >= drawn.n) clear()
  while (turn === turns.play && shown < drawn.n) {
    reveal(shown + Math.max(1, Math.ceil(drawn.n / 200)))
    await frame()
  }
  if (turn === turns.play) pause()
}

function pause() {
  turns.play++
  $('play').textContent = 'Play'
  say(`${shown} of ${drawn.n} rows shown.`)
}

// Take all samples off the plots.
function clear() {
  for (const name of MOVING) plots[name].frame(plots[name].x, plots[name].y)
  plots.latents.add(drawn.planes.realLatents, 0, Infinity, false)
  shown = 0
  trace = null
  reveal(0)
}

// ---- one sample

function select(text) {
  const i = text === '' ? -1 : Number(text)
  $('sample').value = text
  if (!(Number.isInteger(i) && i >= 0 && i < drawn.n)) {
    trace = null
    $('facts').replaceChildren()
    return paint()
  }
  return follow(i)
}

// Between which values a number of the noise moves: u chooses the cluster, so rows leap along it.
const reach = name => (name === 'u' ? [0, 1 - 2 ** -24] : [-3, 3])

// Show a sample, and where its noise leads when one number of it moves along a line.
async function follow(i) {
  const turn = ++turns.line,
    { bundle } = entry,
    { h, m, q, e, d } = bundle.sizes
  const part = (values, width) => values.slice(i * width, (i + 1) * width)
  const own = { u: part(drawn.u, h), w: part(drawn.w, m), z: part(drawn.z, q) }
  const latent = part(drawn.latent, e),
    x = part(drawn.x, d)
  const [, name, place] = state.along.match(/^([uwz])(\d+)$/) ?? []
  const next = { i, line: {}, moved: {}, leaps: name === 'u' },
    [low, high] = reach(name)
  const at = Math.min(high, Math.max(low, Number(state.at)))
  let end = null
  if (name && place <= own[name].length) {
    const repeated = Object.fromEntries(
      Object.entries(own).map(([key, values]) => {
        const all = new Float32Array((LINE + 1) * values.length)
        for (let k = 0; k <= LINE; k++) all.set(values, k * values.length)
        return [key, all]
      }),
    )
    for (let k = 0; k <= LINE; k++)
      repeated[name][k * own[name].length + Number(place) - 1] =
        k < LINE ? low + ((high - low) * k) / (LINE - 1) : at
    const rows = await bundle.run(repeated, LINE + 1, given(bundle))
    if (turn !== turns.line) return
    const sets = planes(rows, entry, ...directions())
    for (const plot of MOVING) {
      const spots = Array.from({ length: LINE + 1 }, (_, k) => plots[plot].place(sets[plot], k))
      next.moved[plot] = spots.pop()
      next.line[plot] = spots
    }
    end = rows.x.slice(LINE * d)
  }
  trace = next
  const row = values =>
    bundle.columns.map((column, j) => `${column.name} ${spell(values[j], column)}`).join(', ')
  const list = values => Array.from(values, value => value.toFixed(4)).join(', ') || 'none'
  const cluster = drawn.cluster[i]
  const facts = [
    ['row', row(x)],
    ['u', Array.from(own.u, value => value.toFixed(6)).join(', ')],
    [
      'cluster',
      `${cluster} of ${bundle.weights.length}, share ${(100 * bundle.weights[cluster]).toPrecision(3)} %`,
    ],
    ['w', list(own.w)],
    ...(q ? [['z', list(own.z)]] : []),
    ['latent', list(latent)],
  ]
  if (end) facts.push([`row where ${name} ${place} is ${at.toFixed(2)}`, row(end)])
  $('facts').replaceChildren(
    ...facts.flatMap(([term, text]) => [
      make('dt', { textContent: term }),
      make('dd', { textContent: text }),
    ]),
  )
  paint()
}

// Show a sample until another is asked for, whatever is pointed at; '' for none.
function keep(sample) {
  pinned = sample !== ''
  change({ sample })
  if (Number(sample) >= shown && Number(sample) < drawn.n && pinned) reveal(Number(sample) + 1)
  return select(sample)
}

// Show the latent models of the same data side by side.
async function compare() {
  const turn = turns.draw
  const others = peers(entries, entry)
  $('side').hidden = others.length < 2
  if (others.length < 2) return
  const names = one => JSON.stringify(one.bundle.columns.map(column => column.name))
  const figures = []
  for (const one of others) {
    await prepare(one)
    if (names(one) !== names(entry)) continue
    const n = Math.min(drawn.n, COMPARED)
    const draw = { ...asked(entry.bundle), cluster: null }
    const samples = await one.bundle.sample(draw, n, () => turn === turns.draw)
    if (!samples || turn !== turns.draw) return
    figures.push(figure(one, entry, samples, n, ...directions()))
  }
  $('compared').replaceChildren(...figures.map(({ element }) => element))
  for (const { paint } of figures) paint()
}

function download() {
  const rows = file(entry.bundle.columns, drawn.x)
  const link = make('a', {
    href: URL.createObjectURL(new Blob([rows], { type: 'text/csv' })),
    download: `${entry.name}-seed-${state.seed}.csv`,
  })
  link.click()
  URL.revokeObjectURL(link.href)
  say(`${link.download}: ${drawn.n} rows.`)
}

// ---- controls

function showControls() {
  const { bundle } = entry,
    { h, m, q } = bundle.sizes,
    { provenance = {}, mapper } = bundle.manifest
  document.title = `${entry.name}: scgan`
  $('title').textContent = `scgan: ${entry.name}`
  $('cluster').max = bundle.weights.length - 1
  const options = bundle.columns.map((column, j) => [`${j}`, column.name])
  for (const id of ['x', 'y'])
    $(id).replaceChildren(
      ...options.map(([value, textContent]) => make('option', { value, textContent })),
    )
  const dimensions = [
    ['w', m],
    ['z', q],
    ['u', h],
  ].flatMap(([name, size]) => Array.from({ length: size }, (_, k) => [name, k + 1]))
  $('along').replaceChildren(
    make('option', { value: '', textContent: 'nothing' }),
    ...dimensions.map(([name, k]) =>
      make('option', { value: `${name}${k}`, textContent: `${name} ${k}` }),
    ),
  )
  for (const id of ['n', 'seed', 'temperature', 'cluster', 'x', 'y', 'along', 'at'])
    $(id).value = state[id]
  $('seed-slider').value = state.seed
  $('bundle').value = entry.name
  showOutputs()
  const { rows = '?', source = bundle.manifest.name, scgan = '?' } = provenance
  const latents = `${LATENTS[entry.latents] ?? entry.latents}${mapper ? ` (${mapper})` : ''}`
  $('origin').textContent =
    `Trained on ${rows} rows of ${source} by scgan ${scgan}; latents: ${latents}. ` +
    'Computed in this browser by onnxruntime-web (MIT licence).'
}

// A control for each given column: a list of names, or a line from the least number to the greatest.
function showGiven() {
  const values = given(entry.bundle)
  const controls = entry.bundle.given.map(({ column, low, high }, k) => {
    const shown = make('output', { textContent: spell(Math.fround(values[k]), column) })
    const control = column.categories
      ? make(
          'select',
          {},
          ...column.categories.map((name, i) => make('option', { value: i }, name)),
        )
      : make('input', {
          type: 'range',
          min: low,
          max: high,
          step: column.kind === 'integer' ? 1 : 'any',
        })
    control.value = values[k]
    control.addEventListener('input', () => {
      values[k] = Number(control.value)
      shown.textContent = spell(Math.fround(values[k]), column)
      guarded(() => set('given', values.join(' ')))
    })
    return make('label', {}, `${column.name} `, control, ...(column.categories ? [] : [shown]))
  })
  $('given').replaceChildren(...controls)
}

function showOutputs() {
  ;[$('at').min, $('at').max] = reach(state.along[0])
  for (const output of document.querySelectorAll('output')) {
    const value = state[output.htmlFor.value]
    output.textContent =
      output.htmlFor.value === 'cluster' ? (value < 0 ? 'all' : value) : Number(value).toFixed(2)
  }
}

// Do something on an event, unless it needs samples and there are none yet.
function on(id, type, action, needsSamples = true) {
  $(id).addEventListener(type, event => {
    if (drawn || !needsSamples) guarded(() => action(event))
  })
}

function listen() {
  for (const id of ['n', 'seed', 'temperature', 'cluster'])
    on(id, 'input', () => set(id, $(id).value), false)
  on('seed-slider', 'input', () => set('seed', $('seed-slider').value), false)
  on(
    'bundle',
    'change',
    () => {
      change({ ...DEFAULTS, bundle: $('bundle').value, n: state.n, seed: state.seed })
      return refresh()
    },
    false,
  )
  for (const id of ['x', 'y']) {
    on(id, 'change', () => {
      change({ [id]: $(id).value })
      return redraw()
    })
  }
  for (const id of ['along', 'at']) {
    on(id, 'input', () => {
      change({ [id]: $(id).value })
      showOutputs()
      return select(state.sample)
    })
  }
  on('sample', 'input', () => keep($('sample').value))
  on('play', 'click', () => ($('play').textContent === 'Pause' ? pause() : play()))
  on('step', 'click', () => {
    pause()
    if (shown >= drawn.n) clear()
    reveal(shown + 1)
    return keep(`${shown - 1}`)
  })
  on('reset', 'click', () => {
    clear()
    pause()
    return keep('')
  })
  on('download', 'click', download)
  for (const name of MOVING) {
    const at = event => plots[name].nearest(event.offsetX, event.offsetY, shown)
    on(name, 'pointermove', event => {
      const i = at(event)
      if (!pinned && i >= 0 && `${i}` !== state.sample) return select((state.sample = `${i}`))
    })
    on(name, 'click', event => keep(at(event) < 0 ? '' : `${at(event)}`))
    on(name, 'keydown', event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
      if (!step) return
      event.preventDefault()
      return keep(`${Math.max(0, Math.min(drawn.n - 1, Number(state.sample || -1) + step))}`)
    })
  }
  on('files', 'change', () => {
    const chosen = [...$('files').files]
    $('files').value = '' // the same file may come again
    return take(chosen)
  })
  $('controls').addEventListener('submit', event => event.preventDefault())
  document.addEventListener('dragover', event => event.preventDefault())
  document.addEventListener('drop', event => {
    event.preventDefault()
    const items = [...event.dataTransfer.items].map(item => item.webkitGetAsEntry())
    guarded(async () => take(await filesIn(items)))
  })
  addEventListener('hashchange', () => {
    readAddress()
    guarded(async () => {
      await refresh()
      showGiven()
    })
  })
  let resized
  addEventListener('resize', () => {
    clearTimeout(resized)
    resized = setTimeout(() => drawn && guarded(redraw), 150)
  })
}

guarded(async () => {
  start()
  readAddress()
  listen()
  entries = (await (await fetched('page.json')).json()).map(served)
  listBundles()
  await refresh()
})
