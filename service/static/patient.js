/** The patient's result: its decision on the scale that decided it, and the frames' shares in it. */

import { counted, h, share, spoken, svg } from './dom.js';
import { framesThatCount, limitsOf, readPatient } from './readings.js';

/** @import {Answer, OperatingPoint, PatientAnswer, Reading} from './types.js' */

const SCORE_HEIGHT = 64;
const ATTENTION_HEIGHT = 28;
const GAP = 6;
const BAR = 10;
/** Of a bar, so that a few frames do not become a wall. */
const WIDEST_REM = 2.6;

/**
 * Show a patient.
 * @param {Answer} answer
 * @param {Reading[]} readings of its frames
 * @param {number} selected index of the frame that is shown large
 * @param {(index: number) => void} select
 */
export function patientView(answer, readings, selected, select) {
  const patient = /** @type {PatientAnswer} */ (answer.patients[0]);
  const reading = readPatient(patient, answer.operating_point);
  const verdict = h('div', { class: `verdict ${reading.tone}` }, h('p', { class: 'word' }, reading.word), h('p', { class: 'number' }, share(reading.value)));
  const told = h('div', { class: 'told' }, h('p', {}, sentence(answer, patient)), h('p', { class: 'hint' }, reading.why), setAside(readings));
  const scale = answer.operating_point && reading.value !== null ? scaleOf(reading.value, answer.operating_point, framesThatCount(patient)) : null;
  const strip = readings.length > 1 && patient.frames_scored ? stripOf(answer, readings, selected, select) : null;
  return [h('div', { class: 'patient' }, verdict, h('div', { class: 'grow' }, scale, told), strip), answer.operating_point ? null : rankingOf(patient.scores)].filter((one) => one !== null);
}

/**
 * Show labels from the best to the least.
 * @param {Record<string, number> | undefined} scores
 */
export function rankingOf(scores) {
  const ranked = Object.entries(scores ?? {}).sort(([, one], [, other]) => other - one);
  return h(
    'ol',
    { class: 'ranking' },
    ranked.map(([label, score]) => {
      const bar = h('span', { class: 'fill' });
      bar.style.width = `${score * 100}%`;
      return h('li', {}, h('span', { class: 'label' }, label), h('span', { class: 'bar', 'aria-hidden': 'true' }, bar), h('span', { class: 'value' }, share(score)));
    }),
  );
}

/**
 * @param {Answer} answer
 * @param {PatientAnswer} patient
 */
function sentence(answer, patient) {
  const of = `${patient.frames_scored} of ${counted(patient.frames_total, 'frame')} scored`;
  if (!answer.operating_point) return `${of}; softmax scores over your prompts, not calibrated, no decision.`;
  return `Probability of “${answer.labels[0]}”, ${of}; operating point ${spoken(answer.operating_point.name).toLowerCase()}.`;
}

/** @param {Reading[]} readings */
function setAside(readings) {
  const why = new Map();
  for (const one of readings) if (one.tone === 'aside' || one.tone === 'rejected') why.set(one.why, (why.get(one.why) ?? 0) + 1);
  if (!why.size) return null;
  return h('p', { class: 'hint' }, 'Left out: ', [...why].map(([reason, count]) => `${counted(count, 'frame')}: ${reason}`).join(' '));
}

/**
 * @param {number} value
 * @param {OperatingPoint} point
 * @param {number} framesScored
 */
function scaleOf(value, point, framesScored) {
  const { threshold, abstain } = limitsOf(point, framesScored);
  const [low, high] = abstain ?? [threshold, threshold];
  const label = `Probability ${share(value)} on a scale from 0 to 1; positive at or above ${share(threshold)}`;
  return h(
    'div',
    { class: 'scale', role: 'img', 'aria-label': label },
    part('zone negative', 0, low),
    part('zone undecided', low, high),
    part('zone positive', high, 1),
    part('threshold', threshold, threshold),
    part('pointer', value, value),
    h('span', { class: 'end from' }, '0'),
    h('span', { class: 'end to' }, '1'),
  );
}

/**
 * @param {string} kind
 * @param {number} from
 * @param {number} to
 */
function part(kind, from, to) {
  const element = h('span', { class: kind });
  element.style.left = `${from * 100}%`;
  element.style.width = `${(to - from) * 100}%`;
  return element;
}

/**
 * Bars upward are scores, bars downward attention; the list of all frames says the same in words.
 * @param {Answer} answer
 * @param {Reading[]} readings
 * @param {number} selected
 * @param {(index: number) => void} select
 */
function stripOf(answer, readings, selected, select) {
  const most = Math.max(...readings.map((one) => one.attention ?? 0));
  const width = readings.length * BAR;
  const height = SCORE_HEIGHT + GAP + ATTENTION_HEIGHT;
  const threshold = answer.operating_point?.frame_threshold;
  const chart = svg('svg', { class: 'strip', viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  chart.append(svg('rect', { class: 'chosen', x: selected * BAR, y: 0, width: BAR, height }));
  readings.forEach((one, index) => {
    const score = (one.value ?? 0) * SCORE_HEIGHT;
    const attention = most ? ((one.attention ?? 0) / most) * ATTENTION_HEIGHT : 0;
    const left = index * BAR + 1;
    const bar = { x: left, width: BAR - 2 };
    if (one.value === null) chart.append(svg('rect', { ...bar, class: `mark ${one.tone}`, y: SCORE_HEIGHT - 4, height: 4 }));
    chart.append(svg('rect', { ...bar, class: `mark ${one.tone}`, y: SCORE_HEIGHT - score, height: score }));
    chart.append(svg('rect', { ...bar, class: 'attention', y: SCORE_HEIGHT + GAP, height: attention }));
  });
  if (threshold !== undefined) {
    const y = SCORE_HEIGHT * (1 - threshold);
    chart.append(svg('line', { class: 'limit', x1: 0, x2: width, y1: y, y2: y }));
  }
  chart.addEventListener('click', (event) => {
    const box = chart.getBoundingClientRect();
    const index = Math.floor(((event.clientX - box.left) / box.width) * readings.length);
    select(Math.min(Math.max(index, 0), readings.length - 1));
  });
  const limit = threshold === undefined ? '' : `, dashed a frame's threshold ${share(threshold)}`;
  const figure = h(
    'figure',
    { class: 'chart' },
    chart,
    h('figcaption', { class: 'hint' }, `Up: score${limit}. Down: attention, at most ${share(most, 2)}.`),
  );
  figure.style.flexBasis = `${readings.length * WIDEST_REM}rem`;
  return figure;
}
