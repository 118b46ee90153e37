/** What the page says besides its answers: how the service is, what is under way, what went wrong. */

import { at, h } from './dom.js';

/** Sentences: of a folder of hundreds, each would say the same. */
const MOST_LEFT_OUT = 3;

/**
 * @param {string} text
 * @param {string} tone
 */
export function tell(text, tone) {
  const state = at('state', HTMLElement);
  state.className = `state ${tone}`;
  state.textContent = text;
}

/** @param {boolean} now */
export function busy(now) {
  at('outcome', HTMLElement).setAttribute('aria-busy', String(now));
}

/** @param {string} text */
export function progress(text) {
  at('progress', HTMLElement).textContent = text;
}

/**
 * Say what went wrong.
 * @param {string} text
 * @param {() => void} [again]
 */
export function notice(text, again) {
  const retry = again && h('button', { type: 'button', onclick: again }, 'Try again');
  at('notices', HTMLElement).append(h('div', { class: 'notice bad', role: 'alert' }, h('p', {}, text), retry));
}

/**
 * Say what could not be taken of the files that came; it stands until others come, whatever is asked meanwhile.
 * @param {string[]} sentences none to say no more of it
 */
export function leftOut(sentences) {
  const more = sentences.length - MOST_LEFT_OUT;
  const text = [...sentences.slice(0, MOST_LEFT_OUT), more > 0 && `And ${more} more.`].filter(Boolean).join(' ');
  at('left-out', HTMLElement).replaceChildren(...(text ? [h('div', { class: 'notice bad', role: 'alert' }, h('p', {}, text))] : []));
}

export function clearNotices() {
  at('notices', HTMLElement).replaceChildren();
}
