/** All frames as a list that the arrow keys walk through: sorted, filtered, one of them selected. */

import { h, share } from './dom.js';
import { thumbnail } from './preview.js';

/** @import {Frame, Reading, Tone} from './types.js' */

const ORDERS = /** @type {const} */ ({ capture: 'capture order', value: 'score, highest first', attention: 'attention, highest first' });
const GROUPS = /** @type {[Tone, string][]} */ ([
  ['positive', 'positive'],
  ['negative', 'negative'],
  ['undecided', 'not decided'],
  ['label', 'scored'],
  ['aside', 'set aside'],
  ['rejected', 'unreadable'],
]);

export class Gallery {
  /** @type {keyof typeof ORDERS} */
  #order = 'capture';
  /** @type {Tone | 'all'} */
  #group = 'all';
  /** @type {(index: number) => void} */
  #select;
  /** @type {() => void} */
  #changed;

  /**
   * @param {(index: number) => void} select
   * @param {() => void} changed the order or the filter
   */
  constructor(select, changed) {
    this.#select = select;
    this.#changed = changed;
  }

  /**
   * Give the controls.
   * @param {Reading[]} readings
   */
  controls(readings) {
    const counts = new Map(GROUPS.map(([tone]) => [tone, readings.filter((one) => one.tone === tone).length]));
    if (this.#group !== 'all' && !counts.get(this.#group)) this.#group = 'all';
    const groups = h('select', { id: 'group', 'aria-label': 'Show', onchange: () => this.#pick(groups.value) },
      h('option', { value: 'all' }, `all ${readings.length}`),
      GROUPS.filter(([tone]) => counts.get(tone)).map(([tone, word]) => h('option', { value: tone, selected: tone === this.#group }, `${counts.get(tone)} ${word}`)));
    const orders = h('select', { id: 'order', 'aria-label': 'Sort by', onchange: () => this.#sort(orders.value) },
      Object.entries(ORDERS).map(([order, word]) => h('option', { value: order, selected: order === this.#order }, word)));
    return [groups, orders];
  }

  /**
   * Give the list.
   * @param {Frame[]} frames
   * @param {Reading[]} readings
   * @param {number} selected
   */
  list(frames, readings, selected) {
    const shown = this.#shown(readings);
    const entry = shown.includes(selected) ? selected : shown[0];
    const list = h('ul', { class: 'tiles', role: 'listbox', 'aria-label': 'Frames', onkeydown: (/** @type {KeyboardEvent} */ event) => this.#walk(event, list) },
      shown.map((index) => this.#tile(frames[index], readings[index], index, index === selected, index === entry)));
    return list;
  }

  /**
   * Mark another frame as selected without making the list anew.
   * @param {Element} list
   * @param {number} selected
   * @param {boolean} focus
   */
  mark(list, selected, focus) {
    for (const tile of list.children) {
      const chosen = Number(tile.getAttribute('data-index')) === selected;
      tile.setAttribute('aria-selected', String(chosen));
      tile.setAttribute('tabindex', chosen ? '0' : '-1');
      if (chosen && focus && tile instanceof HTMLElement) tile.focus();
    }
    if (!list.querySelector('[tabindex="0"]')) list.firstElementChild?.setAttribute('tabindex', '0');
  }

  /** @param {Reading[]} readings */
  #shown(readings) {
    const indices = [...readings.keys()].filter((index) => this.#group === 'all' || readings[index]?.tone === this.#group);
    const key = this.#order;
    if (key === 'capture') return indices;
    return indices.sort((one, other) => (readings[other]?.[key] ?? -1) - (readings[one]?.[key] ?? -1));
  }

  /**
   * @param {Frame | undefined} frame
   * @param {Reading | undefined} reading
   * @param {number} index
   * @param {boolean} chosen
   * @param {boolean} entry
   */
  #tile(frame, reading, index, chosen, entry) {
    if (!frame || !reading) return null;
    const bar = h('span', { class: 'fill' });
    bar.style.width = `${(reading.attention ?? 0) * 100}%`;
    const attention = reading.attention === null ? '' : `, attention ${share(reading.attention, 2)}`;
    return h('li', { role: 'option', class: `tile ${reading.tone}`, 'aria-selected': String(chosen), 'data-index': index, tabindex: entry ? '0' : '-1', title: `${frame.name}${reading.why ? `: ${reading.why}` : ''}`, onclick: () => this.#select(index) },
      thumbnail(frame),
      h('span', { class: 'caption' }, h('span', { class: 'unseen-words' }, 'Frame '), h('span', { class: 'index' }, `${index} `), h('span', { class: 'what' }, reading.word), h('b', {}, reading.value === null ? '' : ` ${share(reading.value, 2)}`), h('span', { class: 'unseen-words' }, `${attention}. ${reading.why}`)),
      h('span', { class: 'bar' }, bar));
  }

  /**
   * @param {KeyboardEvent} event
   * @param {Element} list
   */
  #walk(event, list) {
    const tiles = [...list.children];
    const here = tiles.findIndex((tile) => tile === event.target);
    const columns = getComputedStyle(list).gridTemplateColumns.split(' ').length;
    const steps = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns, Home: -tiles.length, End: tiles.length });
    const step = steps[event.key];
    if (step === undefined || here < 0) return;
    event.preventDefault();
    const there = tiles[Math.min(Math.max(here + step, 0), tiles.length - 1)];
    this.#select(Number(there?.getAttribute('data-index')));
  }

  /** @param {string} group */
  #pick(group) {
    this.#group = /** @type {Tone | 'all'} */ (group);
    this.#changed();
  }

  /** @param {string} order */
  #sort(order) {
    this.#order = /** @type {keyof typeof ORDERS} */ (order);
    this.#changed();
  }
}
