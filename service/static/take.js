/** What can be taken along of an answer: the request as a command, the answer as a file, the model's card. */

import { h } from './dom.js';
import { csvOf, curlOf, save } from './exports.js';

/** @import {Answer, Ask, Frame, ModelDetail} from './types.js' */

/**
 * Offer an answer and its request.
 * @param {{answer: Answer | null, frames: Frame[], ask: Ask, model: ModelDetail, keyed: boolean, saveFhir: () => void}} what
 *   `keyed`: the service asks for a key
 * @returns {HTMLElement[]}
 */
export function takeView({ answer, frames, ask, model, keyed, saveFhir }) {
  const command = curlOf(ask, frames, { address: new URL('.', location.href).href, keyed });
  const copied = h('span', { role: 'status', class: 'hint' });
  const copy = button('Copy as curl', async () => {
    try {
      await navigator.clipboard.writeText(command);
      copied.textContent = 'Copied.';
    } catch {
      // there is none for pages over plain HTTP by a name, and a browser may refuse
      copied.textContent = 'This browser does not let the page copy; the command stands below.';
    }
  });
  const found = answer?.labels.length ? answer : null; // one made of an error's frames is no answer
  const files = found
    ? [
        button('Download JSON', () => save('answer.json', 'application/json', JSON.stringify(found, null, 2))),
        button('Download CSV', () => save('answer.csv', 'text/csv', csvOf(found, frames))),
        ...(found.operating_point ? [button('Download FHIR', saveFhir)] : []),
      ]
    : [];
  const made = frames.some((one) => one.note)
    ? [h('p', { class: 'hint' }, 'Some frames were made by this page (of a video or a DICOM file): the command names them, but there are no such files.')]
    : [];
  return [
    h('div', { class: 'row' }, copy, files, copied),
    ...made,
    folded('The command', 'The request as a command', command),
    folded('Model card', 'Model card', model.card),
  ];
}

/**
 * @param {string} text
 * @param {() => void} onclick
 */
function button(text, onclick) {
  return h('button', { type: 'button', onclick }, text);
}

/**
 * @param {string} title
 * @param {string} name
 * @param {string} text
 */
function folded(title, name, text) {
  // A field that scrolls must be reachable by keyboard.
  return h('details', {}, h('summary', {}, title), h('pre', { tabindex: '0', role: 'region', 'aria-label': name }, text));
}
