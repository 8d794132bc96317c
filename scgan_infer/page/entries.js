// Bundles of the page: those that its server has and those of the user's files, with real rows to show beside samples.

import { open } from './bundle.js'
import { parse } from './csv.js'

const MOST = 5000 // real rows

export async function fetched(path) {
  const answer = await fetch(path)
  if (!answer.ok) throw new Error(`${path}: the server answers ${answer.status}`)
  return answer
}

// A bundle of page.json.
export function served({ name, data, latents, rows }) {
  const folder = `bundles/${encodeURIComponent(name)}`
  const read = async file => (await fetched(`${folder}/${file}`)).arrayBuffer()
  const text = async () => (rows ? (await fetched(`${folder}/rows.csv`)).text() : null)
  return { name, data, latents, read, text }
}

// Read a bundle and its real rows, once.
export function prepare(one) {
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
export async function setReal(one, text) {
  const { columns, given, sizes } = one.bundle
  const { d, g } = sizes
  const all = [...columns, ...given.map(({ column }) => column)]
  const cells = text === null ? new Float32Array(0) : parse(text, all, MOST)
  const real = cells.filter((_, at) => at % (d + g) < d)
  const c = cells.filter((_, at) => at % (d + g) >= d)
  const { latent, cluster } = real.length
    ? await one.bundle.encode(real, c)
    : { latent: real, cluster: real }
  Object.assign(one, { real, realLatent: latent, realCluster: cluster })
}

// A bundle from its files, under a name that none of the others has; null where they are no bundle.
export async function ofFiles(files, others) {
  const named = new Map(files.map(one => [one.name, one]))
  if (!named.has('bundle.json')) return null
  const read = async file => {
    if (!named.has(file)) throw new Error(`${file} is missing: choose all files of the bundle`)
    return named.get(file).arrayBuffer()
  }
  let name = `${JSON.parse(await named.get('bundle.json').text()).name}, yours`
  while (others.some(one => one.name === name)) name += ' too'
  const one = { name, read, text: async () => null }
  await prepare(one)
  return one
}

// The files that were dropped, those in folders included.
export async function filesIn(items) {
  const found = []
  for (const item of items.filter(Boolean)) {
    if (item.isFile) found.push(await new Promise((done, failed) => item.file(done, failed)))
    else {
      const reader = item.createReader()
      const inner = await new Promise((done, failed) => reader.readEntries(done, failed))
      found.push(...(await filesIn(inner)))
    }
  }
  return found
}
