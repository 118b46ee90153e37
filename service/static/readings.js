/** What an answer says of a frame or a patient, in one word, one number and one sentence. */

import { share, spoken } from './dom.js';

/** @import {Answer, FrameAnswer, OperatingPoint, PatientAnswer, Reading} from './types.js' */

const ASIDE = /** @type {Record<string, string>} */ ({
  blurred: 'Too blurred to score.',
  dark: 'Too dark to score.',
  overexposed: 'Too much glare to score.',
  not_endoscopic: 'Does not look like a colonoscopy frame.',
});
const REJECTED = /** @type {Record<string, string>} */ ({
  image_undecodable: 'The image cannot be decoded.',
  image_truncated: 'The file ends too early; it may not have been copied completely.',
  unsupported_format: 'Not an image that the service reads (JPEG, PNG, WebP, BMP, TIFF).',
  too_many_pixels: 'Too many pixels; send it reduced.',
  too_many_bytes: 'The file is too large; send it reduced.',
  too_small: 'Too small to score.',
  empty: 'The file is empty.',
});
const DECIDED = /** @type {const} */ ({ positive: 'Positive', negative: 'Negative' });

/**
 * Read a frame's answer.
 * @param {FrameAnswer | undefined} frame
 * @param {string} focus the label whose score is shown where the answer has no probability
 * @returns {Reading}
 */
export function readFrame(frame, focus) {
  if (!frame) return { tone: 'waiting', word: 'Not scored', value: null, attention: null, why: '' };
  if (frame.status === 'abstained') return { ...nothing('aside', 'Set aside'), why: ASIDE[frame.reason ?? ''] ?? `Set aside: ${frame.reason}.` };
  if (frame.status === 'rejected') {
    return { ...nothing('rejected', 'Unreadable'), why: REJECTED[frame.error?.code ?? ''] ?? frame.error?.message ?? '' };
  }
  const attention = typeof frame.attention === 'object' ? (frame.attention[focus] ?? null) : (frame.attention ?? null);
  if (frame.top_label !== undefined) {
    return { tone: 'label', word: spoken(frame.top_label), value: frame.scores?.[focus] ?? null, attention, why: '' };
  }
  return { ...decided(frame), attention };
}

/**
 * Read a patient's answer.
 * @param {PatientAnswer} patient
 * @param {OperatingPoint | undefined} point
 * @returns {Reading}
 */
export function readPatient(patient, point) {
  if (patient.status === 'abstained') return { ...nothing('aside', 'Not scored'), why: 'Every frame that could be read was set aside.' };
  if (patient.status === 'rejected') return { ...nothing('rejected', 'Not scored'), why: 'No frame could be read.' };
  if (!point) return { ...nothing('label', spoken(patient.top_label ?? '')), value: patient.scores?.[patient.top_label ?? ''] ?? null };
  const { threshold, abstain } = limitsOf(point, framesThatCount(patient));
  const band = abstain ? ` From ${share(abstain[0])} to ${share(abstain[1])} it is not decided.` : '';
  return { ...decided(patient), why: `Positive at or above ${share(threshold)}.${band}` };
}

/**
 * Give a patient's result as a sentence.
 * @param {Answer} answer
 */
export function verdictOf({ patients: [patient], operating_point: point }) {
  if (!patient) return '';
  const { word, value } = readPatient(patient, point);
  return `Patient: ${word}${value === null ? '' : ` ${share(value)}`}.`;
}

/**
 * Count the frames that a patient's score rests on: in an exam, one file counts once.
 * @param {PatientAnswer} patient
 */
export function framesThatCount(patient) {
  return patient.frames.filter((one) => one.status === 'scored' && one.duplicate_of === undefined).length;
}

/**
 * Give what decides a patient: with one scored frame, that frame's threshold.
 * @param {OperatingPoint} point
 * @param {number} framesScored
 */
export function limitsOf(point, framesScored) {
  return framesScored === 1
    ? { threshold: point.frame_threshold, abstain: point.frame_abstain }
    : { threshold: point.patient_threshold, abstain: point.patient_abstain };
}

/**
 * Say whose score the views show.
 * @param {Answer} answer
 */
export function focusOf(answer) {
  return answer.patients[0]?.top_label ?? answer.labels[0] ?? '';
}

/**
 * @param {FrameAnswer | PatientAnswer} scored
 * @returns {Reading}
 */
function decided(scored) {
  const value = scored.probability ?? null;
  if (scored.decision === 'positive' || scored.decision === 'negative') {
    return { tone: scored.decision, word: DECIDED[scored.decision], value, attention: null, why: '' };
  }
  return { tone: 'undecided', word: 'Not decided', value, attention: null, why: 'Too close to the threshold to decide.' };
}

/**
 * @param {Reading['tone']} tone
 * @param {string} word
 * @returns {Reading}
 */
function nothing(tone, word) {
  return { tone, word, value: null, attention: null, why: '' };
}
