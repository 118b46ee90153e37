/** Elements and numbers as text: the little that every view needs. No markup is ever parsed. */

/** @typedef {Node | string | null | undefined | false} Child */

/**
 * Make an element.
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {Record<string, unknown>} [properties] attributes; `on…` are listeners; false and null leave one out
 * @param {...(Child | Child[])} children
 * @returns {HTMLElementTagNameMap[T]}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  decorate(element, properties);
  element.append(...solid(children));
  return element;
}

/**
 * Make an SVG element.
 * @param {string} tag
 * @param {Record<string, unknown>} [properties]
 * @param {...(Child | Child[])} children
 * @returns {SVGElement}
 */
export function svg(tag, properties = {}, ...children) {
  const element = /** @type {SVGElement} */ (document.createElementNS('http://www.w3.org/2000/svg', tag));
  decorate(element, properties);
  element.append(...solid(children));
  return element;
}

/**
 * Give an element that the page itself declares.
 * @template {typeof HTMLElement} T
 * @param {string} id
 * @param {T} kind
 * @returns {InstanceType<T>}
 */
export function at(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`expected #${id} to be a ${kind.name}`);
  return /** @type {InstanceType<T>} */ (element);
}

/**
 * Write a number between 0 and 1.
 * @param {number | null | undefined} value
 * @param {number} [digits]
 */
export function share(value, digits = 3) {
  if (value === null || value === undefined) return '–';
  const floor = 10 ** -digits;
  return value > 0 && value < floor ? `<${floor.toFixed(digits)}` : value.toFixed(digits);
}

/**
 * Count things.
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function counted(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

/**
 * Write a name of the contract for people.
 * @param {string} name
 */
export function spoken(name) {
  const text = name.replaceAll('_', ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/**
 * @param {Element} element
 * @param {Record<string, unknown>} properties
 */
function decorate(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') element.addEventListener(name.slice(2), /** @type {EventListener} */ (value));
    else if (value !== false && value !== null && value !== undefined) {
      element.setAttribute(name, value === true ? '' : String(value));
    }
  }
}

/** @param {(Child | Child[])[]} children */
function solid(children) {
  return /** @type {(Node | string)[]} */ (children.flat().filter((child) => child !== null && child !== undefined && child !== false));
}
