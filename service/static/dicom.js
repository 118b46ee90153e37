/**
 * Frames of a DICOM file: its pixels and nothing else leave this browser.
 *
 * Read are explicit and implicit little endian, with baseline JPEG (sent byte for byte) or 8-bit RGB and grey pixels (sent as PNG).
 * The names, dates and numbers in the header are walked over and never kept.
 */

import { encoded } from './pixels.js';

/** @import {Frame} from './types.js' */

const IMPLICIT = '1.2.840.10008.1.2';
const EXPLICIT = '1.2.840.10008.1.2.1';
const JPEG_BASELINE = '1.2.840.10008.1.2.4.50';
const LONG_FORMS = new Set(['OB', 'OD', 'OF', 'OL', 'OV', 'OW', 'SQ', 'SV', 'UC', 'UN', 'UR', 'UT', 'UV']);
const UNDEFINED = 0xffffffff;
const ITEM = 0xfffee000;
const ITEM_END = 0xfffee00d;
const SEQUENCE_END = 0xfffee0dd;
const PREAMBLE = 132;
const TAGS = { syntax: 0x00020010, samples: 0x00280002, photometric: 0x00280004, planar: 0x00280006, frames: 0x00280008, rows: 0x00280010, columns: 0x00280011, bits: 0x00280100, pixels: 0x7fe00010 };

/**
 * Say whether a file is DICOM, by its bytes.
 * @param {Blob} file
 */
export async function isDicom(file) {
  return (await file.slice(PREAMBLE - 4, PREAMBLE).text()) === 'DICM';
}

/**
 * Give the frames of a DICOM file.
 * @param {File} file
 * @returns {AsyncGenerator<Frame>}
 * @throws {Error} with a sentence for people: another kind of pixels, or a broken file
 */
export async function* framesOfDicom(file) {
  const view = new DataView(await file.arrayBuffer());
  let images;
  try {
    const found = read(view);
    images = found.syntax === JPEG_BASELINE ? jpegs(view, found) : await pngs(view, found);
  } catch (error) {
    if (!(error instanceof RangeError)) throw new Error(`${file.name}: ${error instanceof Error ? error.message : ''}`);
    throw new Error(`${file.name}: the DICOM file ends too early.`);
  }
  for (const [index, blob] of images.entries()) {
    yield { name: images.length > 1 ? `${file.name} [${index + 1}]` : file.name, blob, note: 'pixels of a DICOM file' };
  }
}

/** @typedef {{syntax: string, numbers: Map<number, number>, photometric: string, at: number, length: number}} Found */

/**
 * @param {DataView} view
 * @returns {Found}
 */
function read(view) {
  /** @type {Found} */
  const found = { syntax: IMPLICIT, numbers: new Map(), photometric: '', at: 0, length: 0 };
  let at = PREAMBLE;
  while (at < view.byteLength) {
    const element = header(view, at, found.syntax);
    if (element.tag === TAGS.pixels) return { ...found, at: element.at, length: element.length };
    if (element.length === UNDEFINED) at = past(view, element.at, found.syntax);
    else {
      keep(view, element, found);
      at = element.at + element.length;
    }
  }
  throw new Error('there are no pixels in this DICOM file.');
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {string} syntax
 */
function header(view, at, syntax) {
  const tag = view.getUint16(at, true) * 0x10000 + view.getUint16(at + 2, true);
  // Group 2 is explicit, whatever follows it.
  if (tag >= ITEM || (syntax === IMPLICIT && tag >= 0x00030000)) return { tag, at: at + 8, length: view.getUint32(at + 4, true) };
  const kind = String.fromCharCode(view.getUint8(at + 4), view.getUint8(at + 5));
  if (LONG_FORMS.has(kind)) return { tag, at: at + 12, length: view.getUint32(at + 8, true) };
  return { tag, at: at + 8, length: view.getUint16(at + 6, true) };
}

/**
 * @param {DataView} view
 * @param {{tag: number, at: number, length: number}} element
 * @param {Found} found
 */
function keep(view, { tag, at, length }, found) {
  if (tag === TAGS.syntax) found.syntax = text(view, at, length);
  else if (tag === TAGS.photometric) found.photometric = text(view, at, length);
  else if (tag === TAGS.frames) found.numbers.set(tag, Number(text(view, at, length)));
  else if (tag >= TAGS.samples && tag <= TAGS.bits && length === 2) found.numbers.set(tag, view.getUint16(at, true));
}

/**
 * Give the place behind a sequence or an item of undefined length.
 * @param {DataView} view
 * @param {number} at
 * @param {string} syntax
 * @returns {number}
 */
function past(view, at, syntax) {
  for (;;) {
    const element = header(view, at, syntax);
    if (element.tag === SEQUENCE_END || element.tag === ITEM_END) return element.at;
    at = element.length === UNDEFINED ? past(view, element.at, syntax) : element.at + element.length;
  }
}

/**
 * @param {DataView} view
 * @param {Found} found
 */
function jpegs(view, found) {
  const parts = [];
  let at = found.at;
  for (;;) {
    const element = header(view, at, EXPLICIT);
    if (element.tag !== ITEM) break;
    parts.push(bytes(view, element.at, element.length));
    at = element.at + element.length;
  }
  const fragments = parts.slice(1); // the first item is the table of offsets
  const frames = found.numbers.get(TAGS.frames) ?? 1;
  if (!fragments.length) throw new Error('there are no pixels in this DICOM file.');
  if (frames === 1) return [new Blob(fragments, { type: 'image/jpeg' })];
  /** @type {Uint8Array<ArrayBuffer>[][]} */
  const images = [];
  // A frame may be in several fragments; the one that begins it begins as a JPEG file does.
  for (const fragment of fragments) {
    if (fragment[0] === 0xff && fragment[1] === 0xd8) images.push([fragment]);
    else images.at(-1)?.push(fragment);
  }
  return images.map((image) => new Blob(image, { type: 'image/jpeg' }));
}

/**
 * @param {DataView} view
 * @param {Found} found
 */
async function pngs(view, found) {
  if (found.syntax !== IMPLICIT && found.syntax !== EXPLICIT) {
    throw new Error('its pixels are compressed in a way that this page does not read (baseline JPEG and uncompressed are).');
  }
  const [samples = 1, planar = 0, rows = 0, columns = 0, bits = 0] = [TAGS.samples, TAGS.planar, TAGS.rows, TAGS.columns, TAGS.bits].map((tag) => found.numbers.get(tag));
  const colour = samples === 3 && planar === 0 && found.photometric === 'RGB';
  if (bits !== 8 || !rows || !columns || !(colour || (samples === 1 && found.photometric === 'MONOCHROME2'))) {
    throw new Error(`its pixels (${found.photometric || 'unknown'}, ${bits} bits) are of a kind that this page does not read.`);
  }
  const size = rows * columns * samples;
  const frames = found.numbers.get(TAGS.frames) ?? 1;
  const images = [];
  for (let index = 0; index < frames; index += 1) images.push(await png(bytes(view, found.at + index * size, size), rows, columns, samples));
  return images;
}

/**
 * @param {Uint8Array<ArrayBuffer>} values
 * @param {number} rows
 * @param {number} columns
 * @param {number} samples
 * @returns {Promise<Blob>}
 */
function png(values, rows, columns, samples) {
  const image = new ImageData(columns, rows);
  for (let pixel = 0; pixel < rows * columns; pixel += 1) {
    for (let channel = 0; channel < 3; channel += 1) image.data[pixel * 4 + channel] = values[pixel * samples + (samples === 3 ? channel : 0)] ?? 0;
    image.data[pixel * 4 + 3] = 255;
  }
  const canvas = document.createElement('canvas');
  canvas.width = columns;
  canvas.height = rows;
  canvas.getContext('2d')?.putImageData(image, 0, 0);
  return encoded(canvas, 'image/png');
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {number} length
 */
function bytes(view, at, length) {
  return new Uint8Array(/** @type {ArrayBuffer} */ (view.buffer), at, length); // RangeError where the file ends before
}

/**
 * @param {DataView} view
 * @param {number} at
 * @param {number} length
 */
function text(view, at, length) {
  return String.fromCharCode(...bytes(view, at, length)).replace(/[\0 ]+$/, '').trim();
}
