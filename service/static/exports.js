/** An answer to take along: as JSON, as a table, and the request as a command. */

import { options } from './service.js';

/** @import {Answer, Ask, Frame, FrameAnswer} from './types.js' */

/**
 * Write an answer as CSV (RFC 4180), a line a frame. File names are this page's, not the service's.
 * @param {Answer} answer
 * @param {Frame[]} frames
 */
export function csvOf(answer, frames) {
  const patient = answer.patients[0];
  const head = ['frame_id', 'file', 'status', 'reason', 'decision', 'probability', 'top_label', ...answer.labels.map((label) => `score: ${label}`), 'attention'];
  const lines = (patient?.frames ?? []).map((frame, index) => [
    frame.frame_id,
    frames[index]?.name ?? '',
    frame.status,
    frame.reason ?? frame.error?.code ?? '',
    frame.decision ?? '',
    frame.probability ?? '',
    frame.top_label ?? '',
    ...answer.labels.map((label) => frame.scores?.[label] ?? ''),
    attentionOf(frame),
  ]);
  return [head, ...lines].map((line) => line.map(cell).join(',')).join('\r\n') + '\r\n';
}

/**
 * Write a request as a command for a POSIX shell.
 * @param {Ask} ask
 * @param {Frame[]} frames
 * @param {{address: string, keyed: boolean}} where
 */
export function curlOf(ask, frames, { address, keyed }) {
  const lines = [`curl -s ${quoted(`${address}v1/${ask.task}`)}`];
  if (keyed) lines.push('-H "Authorization: Bearer $ENDOCLIP_KEY"');
  frames.forEach((frame) => lines.push(`-F ${quoted(`frames=@"${frame.name.replace(/["\\]/g, '\\$&')}"`)}`));
  lines.push(`-F ${quoted(`request=${JSON.stringify(options(ask))}`)}`);
  return lines.join(' \\\n  ');
}

/**
 * Let the browser save a text as a file.
 * @param {string} name
 * @param {string} type
 * @param {string} text
 */
export function save(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement('a');
  link.href = address;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/**
 * Give a frame's attention; of a free label set, the one of the frame's own top label.
 * @param {FrameAnswer} frame
 */
function attentionOf({ attention, top_label }) {
  return (typeof attention === 'object' ? attention[top_label ?? ''] : attention) ?? '';
}

/** @param {string | number} value */
function cell(value) {
  // A cell that begins like a formula is taken for one by spreadsheets; file names come from anywhere.
  const text = typeof value === 'string' && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** @param {string} text */
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
