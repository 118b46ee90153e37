/** Small pictures of frames, made when they come into view and two at a time: 500 frames must not stop the page. */

/** @import {Frame} from './types.js' */

const WIDTH = 192;
const AT_ONCE = 2;

/** @type {WeakMap<Frame, HTMLCanvasElement>} */
const made = new WeakMap();
/** @type {WeakMap<Element, Frame>} */
const frames = new WeakMap();
/** @type {HTMLCanvasElement[]} */
const queue = [];
let running = 0;

const seen = new IntersectionObserver(
  (entries) => {
    for (const entry of entries.filter((one) => one.isIntersecting)) {
      seen.unobserve(entry.target);
      queue.push(/** @type {HTMLCanvasElement} */ (entry.target));
    }
    work();
  },
  { rootMargin: '300px' },
);

/**
 * Give a frame's small picture; the same element each time.
 * @param {Frame} frame
 * @returns {HTMLCanvasElement}
 */
export function thumbnail(frame) {
  const known = made.get(frame);
  if (known) return known;
  const canvas = document.createElement('canvas');
  canvas.width = WIDTH;
  canvas.height = Math.round((WIDTH * 4) / 5);
  canvas.setAttribute('aria-hidden', 'true');
  made.set(frame, canvas);
  frames.set(canvas, frame);
  seen.observe(canvas);
  return canvas;
}

function work() {
  while (running < AT_ONCE && queue.length) {
    const canvas = /** @type {HTMLCanvasElement} */ (queue.shift());
    running += 1;
    draw(canvas).finally(() => {
      running -= 1;
      work();
    });
  }
}

/** @param {HTMLCanvasElement} canvas */
async function draw(canvas) {
  const frame = frames.get(canvas);
  if (!frame) return;
  try {
    const bitmap = await createImageBitmap(frame.blob, { resizeWidth: WIDTH, resizeQuality: 'medium' });
    canvas.height = bitmap.height;
    canvas.getContext('2d')?.drawImage(bitmap, 0, 0);
    bitmap.close();
  } catch {
    canvas.classList.add('unseen'); // TIFF, or no image at all: the service will say which
  }
}
