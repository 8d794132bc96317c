// The page: its state, which the address holds too, what follows from a change of it, and who may change it.

import { start } from './bundle.js'
import { histograms, pairs, table } from './columns.js'
import { file, spell } from './csv.js'
import { Bars, colour, Scatter } from './draw.js'
import { $, make } from './elements.js'
import { fetched, filesIn, ofFiles, prepare, served, setReal } from './entries.js'
import { figure, LATENTS, peers } from './models.js'
import { key } from './noise.js'
import { axes, numbered, planes } from './planes.js'
import { EXTENT, facts, line, reach } from './sample.js'

const WHAT = { bundle: '', n: '5000', seed: '0', temperature: '1', cluster: '-1', given: '' }
const HOW = { x: '0', y: '1', sample: '', along: '', at: '0', pairs: '' }
const DEFAULTS = { ...WHAT, ...HOW }
const MOST_ROWS = 1_000_000
const COMPARED = 4000 // rows of each latent model
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

const option = (value, text) => make('option', { value }, text)
const frame = () => new Promise(resolve => requestAnimationFrame(resolve))

// ---- state and address

function readAddress() {
  Object.assign(state, DEFAULTS, Object.fromEntries(new URLSearchParams(location.hash.slice(1))))
}

function change(changes) {
  Object.assign(state, changes)
  const kept = Object.entries(state).filter(
    ([name, value]) => Object.hasOwn(DEFAULTS, name) && value !== DEFAULTS[name],
  )
  history.replaceState(null, '', `#${new URLSearchParams(kept)}`)
}

function listBundles() {
  $('bundle').replaceChildren(
    ...entries.map(({ name, latents }) => option(name, `${name} (${LATENTS[latents] ?? latents})`)),
  )
}

// Take what was dropped or chosen: the files of a bundle, a file of real rows, or both.
async function take(files) {
  const added = await ofFiles(files, entries)
  const rows = files.find(one => /\.(csv|tsv|txt)$/i.test(one.name))
  if (!added && !rows)
    throw new Error('give a CSV, or all files of a bundle: bundle.json and *.onnx')
  if (added) {
    entries.push(added)
    listBundles()
    change({ ...DEFAULTS, bundle: added.name })
    await refresh()
  }
  if (!rows) return
  await setReal(entry, await rows.text())
  await redraw()
  const count = entry.real.length / entry.bundle.columns.length
  say(`Real rows of ${rows.name}: ${count} shown beside samples.`)
}

// ---- samples

// The values of the given columns, in the middle of what was seen unless they are chosen.
function given(bundle) {
  const chosen = state.given.split(' ').map(Number)
  const right = state.given && chosen.every(Number.isFinite)
  if (right && chosen.length === bundle.given.length) return chosen
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
  const isNew = entry !== wanted
  entry = wanted
  drawn = { ...made, n }
  if (isNew) showGiven()
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
  const { m, e } = entry.bundle.sizes
  const { columns } = entry.bundle
  const sets = (drawn.planes = planes(drawn, entry, ...directions()))
  plots.noise.frame(...axes(sets.noise, [], numbered('w', m)))
  plots.latents.frame(...axes(sets.latents, [sets.realLatents], numbered('latent', e)))
  const both = axes(sets.samples, [sets.real], columns)
  plots.samples.frame(...both)
  plots.real.frame(...both)
  plots.latents.add(sets.realLatents, 0, Infinity, false)
  plots.real.add(sets.real, 0, Infinity)
  plots.real.paint()
  $('real').hidden = !($('none').hidden = entry.real.length > 0)
  shown = 0
  reveal(drawn.n)
  histograms(columns, entry.real, drawn.x, ticked(), toggle)
  pairs(columns, sets, ticked())
  table(columns, drawn.x)
  return select(state.sample)
}

const ticked = () =>
  [...state.pairs.matchAll(/\d+/g)].map(Number).filter(j => j < entry.bundle.sizes.d)

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
  const { columns } = entry.bundle
  const real = entry.real.length / columns.length
  $('noise').ariaLabel = `Noise w of ${shown} samples`
  $('latents').ariaLabel = `Latents of ${shown} samples, before those of ${real} real rows`
  $('samples').ariaLabel =
    `${shown} samples, ${plots.samples.x.column.name} across, ${plots.samples.y.column.name} up`
  $('real').ariaLabel = `${real} real rows, on the same axes`
}

function paint() {
  const counts = new Float64Array(entry.bundle.weights.length)
  for (let i = 0; i < shown; i++) counts[drawn.cluster[i]]++
  const used = counts.filter(count => count).length
  const i = trace?.i ?? Number(state.sample || -1)
  const there = i >= 0 && i < shown
  const shares = entry.bundle.weights.map((outline, k) => {
    const chosen = there && drawn.cluster[i] === k
    return { outline, height: counts[k] / Math.max(1, shown), colour: colour(k), chosen }
  })
  const isTable = !entry.bundle.sessions['head.onnx']
  bars.paint(shares, isTable, there && isTable ? drawn.u[i] : null)
  $('clusters').ariaLabel =
    `Shares of ${counts.length} clusters, ${used} of which are among ${shown} samples`
  for (const name of MOVING) {
    const plot = plots[name]
    const rings = there ? [[plot.spot(i)]] : []
    if (trace?.ends[name]) rings.push([trace.ends[name], '#ffd33d'])
    plot.paint({ [trace?.leaps ? 'dots' : 'line']: trace?.spots[name], rings })
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

// Show a sample, and where its noise leads when one number of it moves.
async function follow(i) {
  const turn = ++turns.line
  const [, name, place] = state.along.match(/^([uwz])(\d+)$/) ?? []
  const moves = name && place <= entry.bundle.sizes[EXTENT[name]]
  const moved = moves
    ? await line(entry, drawn, i, name, place - 1, Number(state.at), given(entry.bundle))
    : null
  if (turn !== turns.line) return
  trace = { i, leaps: name === 'u', spots: {}, ends: {} }
  if (moved) {
    const sets = planes(moved.rows, entry, ...directions())
    for (const plot of MOVING) {
      trace.spots[plot] = Array.from({ length: moved.n }, (_, k) =>
        plots[plot].place(sets[plot], k),
      )
      trace.ends[plot] = trace.spots[plot].pop()
    }
  }
  const shownFacts = [...facts(entry, drawn, i), ...(moved?.facts ?? [])]
  $('facts').replaceChildren(
    ...shownFacts.flatMap(([term, text]) => [make('dt', {}, term), make('dd', {}, text)]),
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
  const names = one => JSON.stringify(one.bundle.columns.map(column => column.name))
  for (const one of others) await prepare(one)
  if (turn !== turns.draw) return
  const alike = others.filter(one => names(one) === names(entry))
  $('side').hidden = alike.length < 2
  if (alike.length < 2) return
  const figures = []
  for (const one of alike) {
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
  const { bundle } = entry
  const rows = file(bundle.columns, drawn.x, bundle.given, given(bundle))
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
  const { bundle } = entry
  const { provenance = {}, mapper } = bundle.manifest
  document.title = `${entry.name}: scgan`
  $('title').textContent = `scgan: ${entry.name}`
  $('cluster').max = bundle.weights.length - 1
  for (const id of ['x', 'y'])
    $(id).replaceChildren(...bundle.columns.map(({ name }, j) => option(j, name)))
  const along = ['w', 'z', 'u'].flatMap(name => {
    const length = bundle.sizes[EXTENT[name]]
    return Array.from({ length }, (_, k) =>
      option(`${name}${k + 1}`, length > 1 ? `${name} ${k + 1}` : name),
    )
  })
  $('along').replaceChildren(option('', 'nothing'), ...along)
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
      ? make('select', {}, ...column.categories.map((name, i) => option(i, name)))
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
  for (const output of document.querySelectorAll('output[for]')) {
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
  const other = () => {
    change({ ...DEFAULTS, bundle: $('bundle').value, n: state.n, seed: state.seed })
    return refresh()
  }
  on('bundle', 'change', other, false)
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
