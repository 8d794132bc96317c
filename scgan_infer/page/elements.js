// Elements of the page, old and new.

export const $ = id => document.getElementById(id)

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties)
  element.append(...children)
  return element
}
