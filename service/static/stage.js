/** One frame, large, with the heat map over it and all that the answer says of it. */

import { h, share, spoken } from './dom.js';
import { rankingOf } from './patient.js';

/** @import {Child} from './dom.js' */
/** @import {Device, Frame, FrameAnswer, Heatmap, ModelDetail, Reading} from './types.js' */

/** Longest side that is drawn, px. */
const LONGEST = 1200;
/** Cool on mucosa's reds. */
const HEAT = [0, 214, 255];
const STRONGEST = 0.85;

export class Stage {
  /** How strongly the heat map is drawn, 0-1. */
  #strength = 0.5;
  #canvas = h('canvas', { role: 'img' });
  /** @type {ImageBitmap | null} */
  #bitmap = null;
  /** @type {Frame | null} */
  #frame = null;
  /** @type {Heatmap | undefined} */
  #heat = undefined;
  /** @type {[number, number, number, number]} */
  #box = [0, 0, 1, 1];

  /**
   * Show a frame.
   * @param {Frame} frame
   * @param {number} index
   * @param {FrameAnswer | undefined} answer
   * @param {Reading} reading
   * @param {{model: ModelDetail, device: Device | undefined}} context the device's box is what the heat map covers
   * @returns {HTMLElement[]}
   */
  show(frame, index, answer, reading, { model, device }) {
    this.#heat = answer?.heatmap;
    this.#box = device?.crop ?? [0, 0, 1, 1];
    this.#canvas.setAttribute('aria-label', this.#described(index, reading));
    if (frame !== this.#frame) this.#load(frame, model);
    else this.draw(model);
    return [h('div', { class: 'picture' }, this.#canvas), h('div', { class: 'facts' }, facts(frame, index, answer, reading))];
  }

  /**
   * Give what sets how strongly the heat map is drawn.
   * @param {() => ModelDetail | undefined} model
   */
  control(model) {
    const range = h('input', { type: 'range', min: '0', max: '1', step: '0.05', value: String(this.#strength), id: 'heat' });
    range.addEventListener('input', () => {
      this.#strength = Number(range.value);
      const known = model();
      if (known) this.draw(known);
    });
    return [h('label', { for: 'heat' }, 'Heat map'), range];
  }

  /** Draw what is shown again. @param {ModelDetail} model */
  draw(model) {
    const bitmap = this.#bitmap;
    const context = this.#canvas.getContext('2d');
    if (!bitmap || !context) return;
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    this.#canvas.width = Math.round(bitmap.width * scale);
    this.#canvas.height = Math.round(bitmap.height * scale);
    context.drawImage(bitmap, 0, 0, this.#canvas.width, this.#canvas.height);
    if (this.#heat && this.#strength) this.#drawHeat(context, this.#heat, model);
  }

  /**
   * @param {Frame} frame
   * @param {ModelDetail} model
   */
  async #load(frame, model) {
    this.#frame = frame;
    let bitmap = null;
    try {
      bitmap = await createImageBitmap(frame.blob);
    } catch {
      // shown as an empty field that says so
    }
    if (this.#frame !== frame) return bitmap?.close();
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.#canvas.classList.toggle('unseen', !bitmap);
    this.draw(model);
  }

  /**
   * @param {CanvasRenderingContext2D} context
   * @param {Heatmap} heat
   * @param {ModelDetail} model
   */
  #drawHeat(context, heat, model) {
    const small = document.createElement('canvas');
    small.width = heat.cols;
    small.height = heat.rows;
    const image = new ImageData(heat.cols, heat.rows);
    heat.values.forEach((value, cell) => image.data.set([...HEAT, value * 255 * STRONGEST], cell * 4));
    small.getContext('2d')?.putImageData(image, 0, 0);
    const { width, height } = this.#canvas;
    let [left, top] = [this.#box[0] * width, this.#box[1] * height];
    let [across, down] = [this.#box[2] * width - left, this.#box[3] * height - top];
    if (model.manifest.input.resize === 'shortest') {
      // Only the square in the middle is looked at.
      const side = Math.min(across, down);
      [left, top, across, down] = [left + (across - side) / 2, top + (down - side) / 2, side, side];
    }
    context.save();
    context.globalAlpha = this.#strength;
    context.imageSmoothingQuality = 'high';
    context.drawImage(small, left, top, across, down);
    context.restore();
  }

  /**
   * @param {number} index
   * @param {Reading} reading
   */
  #described(index, reading) {
    const heat = this.#heat ? `, with a heat map of ${this.#heat.label} in ${place(this.#heat)}` : '';
    return `Frame ${index}, ${reading.word}${reading.value === null ? '' : ` ${share(reading.value)}`}${heat}`;
  }
}

/**
 * Say in words where a heat map is strongest.
 * @param {Heatmap} heat
 */
function place(heat) {
  const cell = heat.values.indexOf(Math.max(...heat.values));
  const row = (Math.floor(cell / heat.cols) + 0.5) / heat.rows;
  const column = ((cell % heat.cols) + 0.5) / heat.cols;
  const words = /** @param {number} at @param {string[]} three */ (at, three) => three[Math.min(2, Math.floor(at * 3))];
  return `the ${words(row, ['upper', 'middle', 'lower'])} ${words(column, ['left', 'centre', 'right'])}`;
}

/**
 * @param {Frame} frame
 * @param {number} index
 * @param {FrameAnswer | undefined} answer
 * @param {Reading} reading
 */
function facts(frame, index, answer, reading) {
  /** @type {[string, Child][]} */
  const rows = [];
  if (reading.attention !== null) rows.push(['Attention', share(reading.attention)]);
  // Beside prompts as long as sentences, their ranking says enough.
  if (!answer?.top_label) for (const [label, value] of Object.entries(answer?.cosine ?? {})) rows.push([`Cosine, ${label}`, value.toFixed(3)]);
  rows.push(['File', frame.name], ['frame_id', String(index)]);
  if (frame.note) rows.push(['Note', frame.note]);
  return [
    h('p', { class: `badge ${reading.tone}` }, reading.word, reading.value === null ? null : h('b', {}, ` ${share(reading.value)}`)),
    reading.why ? h('p', {}, reading.why) : null,
    answer?.top_label ? rankingOf(answer.scores) : null,
    h('dl', {}, rows.map(([term, value]) => h('div', {}, h('dt', {}, term), h('dd', {}, value)))),
    answer?.heatmap ? h('p', { class: 'hint' }, `Blue: where “${spoken(answer.heatmap.label).toLowerCase()}” is seen, in ${answer.heatmap.rows} × ${answer.heatmap.cols} fields; not calibrated, not an outline.`) : null,
  ].filter((one) => one !== null);
}
