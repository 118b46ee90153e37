/** What the live view shows: the newest frame's result, the patient's so far, what became of the frames. */

import { at, counted, h, share, spoken } from './dom.js';
import { patientView } from './patient.js';
import { readFrame, readPatient } from './readings.js';

/** @import {Answer, ExamAnswer, ExamResult, LiveCounts, LiveMessage, Reading} from './types.js' */

/** A result is shown as the newest for so long; then the page says that none came. */
const STALE_MS = 1000;
/** More frames would not be told apart in the strip. */
const MOST_BARS = 400;
const NOTHING = /** @type {Reading} */ ({ tone: 'waiting', word: '–', value: null, attention: null, why: '' });

/**
 * Show the newest frame's results, and how old they are while frames are sent.
 * @param {LiveMessage | null} told
 * @param {string[]} tasks
 * @param {boolean} isRunning
 */
export function showNewest(told, tasks, isRunning) {
  const age = Date.now() - Date.parse(told?.captured_at ?? '');
  const isLate = isRunning && age > STALE_MS;
  let why = '';
  for (const task of tasks) {
    const reading = told && !isLate ? readFrame({ frame_id: '', status: told.status ?? 'scored', ...told.results?.[task], reason: told.reason, error: told.error }, '') : NOTHING;
    badge(`live-frame-${task}`, reading);
    why ||= reading.why;
  }
  const seconds = Math.max(0, age / 1000);
  at('live-why', HTMLElement).textContent = why;
  at('live-age', HTMLElement).textContent = !isRunning ? '' : !told ? 'none yet' : isLate ? `none for ${seconds.toFixed(0)} s` : `${seconds.toFixed(1)} s old`;
}

/**
 * Show what the exam comes to so far.
 * @param {ExamAnswer | null} exam
 * @returns {string} the same in words; '' while there is nothing to say
 */
export function showPatient(exam) {
  const { results = [], revision = 0 } = exam ?? {};
  const table = at('live-table', HTMLElement);
  const tasks = results.map((one) => one.task).join();
  if (table.dataset.tasks !== tasks) {
    table.dataset.tasks = tasks;
    table.replaceChildren(...results.map(({ task }) => h('tr', {}, h('th', { scope: 'row' }, spoken(task)), h('td', { id: `live-frame-${task}` }), h('td', { id: `live-patient-${task}` }))));
  }
  at('live-results', HTMLElement).hidden = !results.length;
  const words = results.map((one) => {
    const reading = revision ? readPatient(one.patient, one.operating_point) : NOTHING;
    badge(`live-patient-${one.task}`, reading);
    return `${spoken(one.task)}: ${reading.word}`;
  });
  at('live-exam', HTMLElement).textContent = exam ? about(exam) : '';
  return revision ? words.join(', ') : '';
}

/** @param {LiveCounts | undefined} counts */
export function showCounts(counts) {
  const host = at('live-counts', HTMLElement);
  if (!counts) return host.replaceChildren();
  const reasons = /** @type {const} */ ([[counts.newer, 'for a newer one'], [counts.overloaded, 'for want of room'], [counts.rate_limited, 'beyond the key’s rate'], [counts.lost, 'without an answer']]);
  const why = reasons.filter(([count]) => count).map(([count, words]) => `${count} ${words}`).join(', ');
  const dropped = counts.unsent + reasons.reduce((sum, [count]) => sum + count, 0);
  const rows = [
    ['From the camera', counted(counts.seen, 'frame')],
    ['Answered', `${counts.answered}, of which ${counts.kept} are part of the exam`],
    ['Dropped', dropped ? `${dropped} (${[`${counts.unsent} not sent, for want of a line or of answers to those before`, why].filter(Boolean).join(', ')})` : '0'],
  ];
  host.replaceChildren(...rows.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value))));
}

/** @param {ExamAnswer | null} exam one that is closed, or null */
export function showFinal(exam) {
  at('live-final', HTMLElement).replaceChildren(...(exam?.results ?? []).map((one) => finalView(/** @type {ExamAnswer} */ (exam), one)));
}

/** @param {string} text read out by a screen reader */
export function say(text) {
  at('live-said', HTMLElement).textContent = text;
}

/**
 * Say what went wrong.
 * @param {string} text '' takes it away
 * @param {() => unknown} [again]
 */
export function warn(text, again) {
  const retry = again && h('button', { type: 'button', onclick: again }, 'Try again');
  at('live-notices', HTMLElement).replaceChildren(...(text ? [h('div', { class: 'notice bad', role: 'alert' }, h('p', {}, text), retry)] : []));
}

/** @param {ExamAnswer} exam */
function about({ exam_id: id, results, revision, expires_at: ends }) {
  const point = spoken(results[0]?.operating_point.name ?? '').toLowerCase();
  return `Exam ${id}, operating point ${point}. The patient’s result rests on ${counted(revision, 'frame')}. If nothing changes the exam, it is removed on ${new Date(ends).toLocaleString('en-GB', { dateStyle: 'medium', timeStyle: 'short' })}.`;
}

/**
 * @param {ExamAnswer} exam
 * @param {ExamResult} result
 */
function finalView({ request_id, model, intended_use }, { task, labels, label_definitions, operating_point, patient }) {
  const answer = /** @type {Answer} */ ({ request_id, task, model, intended_use, labels, label_definitions, operating_point, patients: [patient] });
  const readings = patient.frames.length > MOST_BARS ? [] : patient.frames.map((one) => readFrame(one, ''));
  const views = patient.frames_total ? patientView(answer, readings, -1, () => {}) : [h('p', {}, 'No frame became part of the exam.')];
  return h('section', { 'aria-label': `${spoken(task)}, final` }, h('h3', {}, `${spoken(task)}, final`), views);
}

/**
 * @param {string} id
 * @param {Reading} reading
 */
function badge(id, reading) {
  document.getElementById(id)?.replaceChildren(h('span', { class: `badge ${reading.tone}` }, reading.word, reading.value === null ? null : h('b', {}, ` ${share(reading.value)}`)));
}
