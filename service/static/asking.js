/** What is asked: the operating point with what was measured at it, and the user's own prompts. */

import { h, share, spoken } from './dom.js';

/** @import {LabelIn, Limits, MeasuredPoint, ModelDetail} from './types.js' */

const WORDS = /** @type {const} */ (['patient_sensitivity', 'patient_specificity', 'frame_sensitivity', 'frame_specificity']);
const MAX_LABEL_CHARS = 64;
const FIRST_PROMPTS = ['a pedunculated polyp on a stalk', 'a flat lesion', 'normal mucosa without a lesion'];
const TYPING_MS = 350;

/**
 * Let an operating point be chosen.
 * @param {Record<string, MeasuredPoint>} points
 * @param {string} chosen
 * @param {(name: string) => void} choose
 */
export function pointsView(points, chosen, choose) {
  const order = ['sensitivity_first', 'balanced', 'specificity_first'].filter((name) => name in points);
  const rows = order.map((name) => {
    const measured = points[name]?.measured ?? {};
    const radio = h('input', { type: 'radio', name: 'point', value: name, checked: name === chosen, onchange: () => choose(name) });
    return h('tr', {}, h('th', { scope: 'row' }, h('label', { class: 'check' }, radio, ` ${spoken(name)}`)), WORDS.map((word) => h('td', {}, share(measured[word], 2))));
  });
  const measured = points[chosen]?.measured ?? {};
  const bare = measured.patient_no_lesion_specificity;
  return h('fieldset', { class: 'points' },
    h('legend', {}, 'Operating point'),
    h('table', {},
      h('thead', {},
        h('tr', {}, h('td', { rowspan: '2' }), h('th', { scope: 'colgroup', colspan: '2' }, 'patients'), h('th', { scope: 'colgroup', colspan: '2' }, 'frames')),
        h('tr', {}, ['sens.', 'spec.', 'sens.', 'spec.'].map((word) => h('th', { scope: 'col' }, word)))),
      h('tbody', {}, rows)),
    h('p', { class: 'hint' },
      'Sensitivity and specificity as measured when the thresholds were set; not on your patients. ',
      bare === undefined ? null : `Without a lesion, specificity is ${share(bare, 2)} (patients) and ${share(measured.frame_no_lesion_specificity, 2)} (frames) at the chosen point. `,
      measured.patient_abstained ? `${Math.round(measured.patient_abstained * 100)}\u00a0% of patients are not decided.` : null));
}

/** The editor of prompts; a line is a label, with other wordings behind `|`. */
export class Prompts {
  /** @type {string[]} */
  #lines = [...FIRST_PROMPTS];
  /** @type {() => void} */
  #changed;
  #typing = 0;

  /** @param {() => void} changed called a moment after the last key */
  constructor(changed) {
    this.#changed = changed;
  }

  /**
   * Give the labels that can be asked for, in the order of the lines.
   * @param {Limits} limits
   * @returns {LabelIn[]}
   */
  labels(limits) {
    const labels = new Map();
    for (const [index, line] of this.#lines.entries()) {
      const prompts = line.split('|').map((one) => one.trim().slice(0, limits.max_prompt_chars)).filter(Boolean).slice(0, limits.max_prompts);
      const [first = ''] = prompts;
      // A number tells long prompts apart that begin alike.
      const label = first.length <= MAX_LABEL_CHARS ? first : `${first.slice(0, MAX_LABEL_CHARS - 5)}… ${index + 1}`;
      if (label) labels.set(label, { label, prompts });
    }
    return [...labels.values()].slice(0, limits.max_labels);
  }

  /**
   * Give the editor.
   * @param {ModelDetail} model
   * @param {Limits} limits
   * @returns {HTMLElement[]}
   */
  view(model, limits) {
    const lines = h('ul', { class: 'lines' }, this.#lines.map((line, index) => this.#line(line, index, model, limits)));
    const sets = h('select', { id: 'label-set', onchange: () => this.#start(model, sets.value) },
      h('option', { value: '' }, 'your own'), Object.keys(model.label_sets).map((name) => h('option', { value: name }, spoken(name))));
    const more = h('button', { type: 'button', class: 'link', disabled: this.#lines.length >= limits.max_labels, onclick: () => this.#add(more, model, limits) }, 'Add a prompt');
    return [
      h('label', { for: 'label-set' }, 'Start from'), sets, lines, more,
      h('p', { class: 'hint' }, 'Ranked as you type, on the frame that is shown. Scores are shares of these prompts alone: one is always on top. Several wordings of one label: separate them with |.'),
    ];
  }

  /**
   * @param {string} line
   * @param {number} index
   * @param {ModelDetail} model
   * @param {Limits} limits
   */
  #line(line, index, model, limits) {
    const input = h('input', { type: 'text', value: line, 'aria-label': `Prompt ${index + 1}`, autocomplete: 'off', oninput: () => {
      this.#lines[index] = input.value;
      this.#later();
    } });
    const remove = h('button', { type: 'button', class: 'remove', 'aria-label': `Remove prompt ${index + 1}`, disabled: this.#lines.length <= 2, onclick: () => {
      this.#lines.splice(index, 1);
      this.#again(remove, model, limits);
      this.#changed();
    } }, '×');
    return h('li', { class: 'row' }, input, remove);
  }

  /**
   * @param {Element} inside
   * @param {ModelDetail} model
   * @param {Limits} limits
   */
  #add(inside, model, limits) {
    this.#lines.push('');
    this.#again(inside, model, limits);
  }

  /**
   * @param {Element} inside
   * @param {ModelDetail} model
   * @param {Limits} limits
   */
  #again(inside, model, limits) {
    const host = inside.closest('#prompts');
    host?.replaceChildren(...this.view(model, limits));
    /** @type {HTMLInputElement | null | undefined} */ (host?.querySelector('li:last-child input'))?.focus();
  }

  /**
   * @param {ModelDetail} model
   * @param {string} name
   */
  #start(model, name) {
    const set = model.label_sets[name];
    this.#lines = set ? set.labels.map((one) => one.prompts.join(' | ')) : [...FIRST_PROMPTS];
    this.#changed();
  }

  #later() {
    clearTimeout(this.#typing);
    this.#typing = setTimeout(this.#changed, TYPING_MS);
  }
}
