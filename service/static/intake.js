/** From what is dropped or chosen to frames in capture order, and to the bytes that are sent. */

import { framesOfDicom, isDicom } from './dicom.js';
import { at } from './dom.js';
import { encoded } from './pixels.js';
import { sampleVideo } from './video.js';

/** @import {Frame, Limits, ModelDetail} from './types.js' */

/** A reduced frame's shorter side, in sides of the model's input. */
const REDUCED_INPUTS = 4;
const VIDEO_NAME = /\.(mp4|m4v|mov|webm|mkv|avi|mpe?g|ogv)$/i;
const NOT_A_FRAME = /(^\.|^thumbs\.db$|^desktop\.ini$|^dicomdir$|\.(txt|csv|json|xml|html?|pdf|md|docx?|xlsx?|zip)$)/i;
const byName = new Intl.Collator('en', { numeric: true });

/**
 * Listen for files that are chosen or dropped anywhere on the page.
 * @param {(files: File[], unread: string[]) => unknown} take `unread` says what of a drop cannot be read
 */
export function whenFilesCome(take) {
  const drop = at('drop', HTMLElement);
  for (const [button, input] of /** @type {const} */ ([['choose', 'files'], ['choose-folder', 'folder']])) {
    const field = at(input, HTMLInputElement);
    at(button, HTMLButtonElement).addEventListener('click', () => field.click());
    field.addEventListener('change', () => {
      const files = inOrder([...(field.files ?? [])]);
      field.value = '';
      take(files, []);
    });
  }
  document.addEventListener('dragover', (event) => {
    event.preventDefault();
    drop.classList.add('over');
  });
  document.addEventListener('dragleave', (event) => event.relatedTarget ?? drop.classList.remove('over'));
  document.addEventListener('drop', async (event) => {
    event.preventDefault();
    drop.classList.remove('over');
    if (!event.dataTransfer) return;
    const { files, unread } = await filesOfDrop(event.dataTransfer);
    take(files, unread);
  });
}

/**
 * Collect the files of a drop, folders with all that they hold, in the order of their names; what cannot be read is told.
 * @param {DataTransfer} dropped
 */
async function filesOfDrop(dropped) {
  // The list of items is emptied as soon as the handler has returned: entries are taken first.
  const items = [...dropped.items].map((item) => ({ entry: item.webkitGetAsEntry?.(), file: item.getAsFile() }));
  /** @type {string[]} */
  const unread = [];
  const nested = await Promise.all(items.map(({ entry, file }) => (entry ? filesOfEntry(entry, unread) : file ? [file] : [])));
  return { files: nested.length === 1 ? (nested[0] ?? []) : inOrder(nested.flat()), unread };
}

/**
 * Sort files by path, numbers in names as numbers.
 * @param {File[]} files
 */
function inOrder(files) {
  return files.sort((one, other) => byName.compare(one.webkitRelativePath || one.name, other.webkitRelativePath || other.name));
}

/**
 * Make frames of files; a video or a DICOM file may give many. One that holds no frame that this page can send is left out.
 * @param {File[]} files
 * @param {{every: number, most: number, signal: AbortSignal, told: (text: string) => void, failed: (why: string) => void}} how `most`
 *   frames at most of a video; `failed` is told of each file that is left out, in a sentence for people
 * @returns {AsyncGenerator<Frame>}
 */
export async function* framesOf(files, how) {
  for (const file of files.filter((one) => !NOT_A_FRAME.test(one.name))) {
    if (how.signal.aborted) return;
    try {
      if (file.type.startsWith('video/') || VIDEO_NAME.test(file.name)) yield* sampleVideo(file, how);
      else if (await isDicom(file)) yield* framesOfDicom(file);
      else yield { name: file.name, blob: file, note: '' };
    } catch (error) {
      // What the browser itself says of a file does not name it.
      how.failed(error instanceof DOMException || !(error instanceof Error) ? `${file.name} cannot be read.` : error.message);
    }
  }
}

/**
 * Give the side that a reduced frame has, in px.
 * @param {ModelDetail} model
 */
export function reducedSide(model) {
  return REDUCED_INPUTS * model.manifest.input.size;
}

/**
 * Give the frames as they are to be sent.
 * @param {Frame[]} frames
 * @param {number} side shorter side to reduce to, px; 0 to send them as they are
 * @param {(text: string) => void} told
 * @returns {Promise<Frame[]>}
 */
export async function sendable(frames, side, told) {
  if (!side) return frames;
  const ready = [];
  for (const frame of frames) {
    ready.push(await reduced(frame, side));
    told(`Reducing frame ${ready.length} of ${frames.length}`);
  }
  told('');
  return ready;
}

/**
 * Say whether the frames fit into one request; '' if they do.
 * @param {Frame[]} frames
 * @param {Limits} limits
 */
export function whyTooMuch(frames, limits) {
  if (frames.length > limits.max_frames) return `The service takes ${limits.max_frames} frames a request; there are ${frames.length}. Remove all and send fewer.`;
  const bytes = frames.reduce((sum, frame) => sum + frame.blob.size + 200, 4096);
  if (bytes > limits.max_body_bytes) return `The frames have ${mib(bytes)} MiB; the service takes ${mib(limits.max_body_bytes)} a request.`;
  return '';
}

/** @type {WeakMap<Blob, Frame>} */
const reducedFrames = new WeakMap();

/**
 * @param {Frame} frame
 * @param {number} side
 */
async function reduced(frame, side) {
  const known = reducedFrames.get(frame.blob);
  if (known) return known;
  const smaller = await reducedAnew(frame, side);
  reducedFrames.set(frame.blob, smaller);
  return smaller;
}

/**
 * @param {Frame} frame
 * @param {number} side
 * @returns {Promise<Frame>}
 */
async function reducedAnew(frame, side) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(frame.blob);
  } catch {
    return frame; // the service may read what the browser does not, and says what is wrong otherwise
  }
  const canvas = document.createElement('canvas');
  let note = '';
  try {
    const scale = side / Math.min(bitmap.width, bitmap.height);
    if (scale >= 1) return frame;
    canvas.width = Math.round(bitmap.width * scale);
    canvas.height = Math.round(bitmap.height * scale);
    const context = canvas.getContext('2d');
    if (!context) return frame;
    context.imageSmoothingQuality = 'high';
    context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    note = `sent reduced, ${bitmap.width} × ${bitmap.height} → ${canvas.width} × ${canvas.height}`;
  } finally {
    bitmap.close();
  }
  return { name: frame.name, blob: await encoded(canvas, 'image/jpeg'), note: [frame.note, note].filter(Boolean).join('; ') };
}

/**
 * Give the files of an entry; what of it cannot be read is told, and the others are given.
 * @param {FileSystemEntry} entry
 * @param {string[]} unread
 * @returns {Promise<File[]>}
 */
async function filesOfEntry(entry, unread) {
  try {
    if (entry.isFile) return [await new Promise((done, failed) => /** @type {FileSystemFileEntry} */ (entry).file(done, failed))];
    const inside = await entriesOf(/** @type {FileSystemDirectoryEntry} */ (entry));
    return (await Promise.all(inside.map((one) => filesOfEntry(one, unread)))).flat();
  } catch {
    unread.push(`The ${entry.isFile ? 'file' : 'folder'} “${entry.fullPath.slice(1)}” cannot be read.`);
    return [];
  }
}

/** @param {FileSystemDirectoryEntry} folder */
async function entriesOf(folder) {
  const reader = folder.createReader();
  const found = [];
  for (;;) {
    // A browser gives a folder's entries in parts (Chromium: 100), and an empty part at the end.
    const part = /** @type {FileSystemEntry[]} */ (await new Promise((done, failed) => reader.readEntries(done, failed)));
    if (!part.length) return found.sort((one, other) => byName.compare(one.name, other.name));
    found.push(...part);
  }
}

/** @param {number} bytes */
function mib(bytes) {
  return Math.ceil(bytes / 1024 / 1024);
}
