/** Frames of a video, sampled by this browser: the video itself is never sent. */

import { encoded } from './pixels.js';

/** @import {Frame} from './types.js' */

/** Seconds behind a wanted time that are looked at: at the very edge of two frames a browser may show the earlier one. */
const BEHIND = 0.002;
/** Milliseconds that a frame which has been sought is waited for; where it stands already, none is announced. */
const PAINTED_MS = 200;

/**
 * Sample a video at even distances.
 * @param {File} file
 * @param {{every: number, most: number, signal: AbortSignal, told: (text: string) => void}} how seconds from frame to frame, which
 *   grow where more than `most` frames would come of it, so that the whole video is covered
 * @returns {AsyncGenerator<Frame>}
 * @throws {Error} with a sentence for people
 */
export async function* sampleVideo(file, { every, most, signal, told }) {
  const video = document.createElement('video');
  const address = URL.createObjectURL(file);
  video.muted = true;
  video.preload = 'auto';
  video.src = address;
  try {
    await until(video, 'loadeddata', file.name);
    const seconds = await duration(video, file.name);
    const step = Math.max(every, seconds / most);
    const count = Math.max(1, Math.ceil(seconds / step - 1e-6));
    const canvas = document.createElement('canvas');
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    const context = canvas.getContext('2d');
    for (let index = 0; index < count && context && !signal.aborted; index += 1) {
      const time = index * step;
      told(`Sampling frame ${index + 1} of ${count} of the video, one every ${step.toFixed(1)} s`);
      const there = until(video, 'seeked', file.name);
      const shown = painted(video);
      video.currentTime = time + BEHIND;
      await there;
      await shown;
      context.drawImage(video, 0, 0);
      yield { name: `${file.name} at ${time.toFixed(1)} s`, blob: await encoded(canvas, 'image/jpeg'), note: 'sampled from a video' };
    }
  } finally {
    video.removeAttribute('src');
    video.load();
    URL.revokeObjectURL(address);
    told('');
  }
}

/**
 * Wait until the frame that is sought can be drawn: under load a browser says "seeked" before.
 * @param {HTMLVideoElement} video
 */
function painted(video) {
  const late = new Promise((done) => setTimeout(done, PAINTED_MS));
  return Promise.race([late, new Promise((done) => video.requestVideoFrameCallback(done))]);
}

/**
 * @param {HTMLVideoElement} video
 * @param {string} name
 */
async function duration(video, name) {
  if (Number.isFinite(video.duration)) return video.duration;
  // A recording that was never finished does not say how long it is until its end has been looked for.
  const there = until(video, 'seeked', name);
  video.currentTime = Number.MAX_SAFE_INTEGER;
  await there;
  return Number.isFinite(video.duration) ? video.duration : video.currentTime;
}

/**
 * @param {HTMLVideoElement} video
 * @param {'loadeddata' | 'seeked'} event
 * @param {string} name
 */
function until(video, event, name) {
  return new Promise((done, failed) => {
    video.addEventListener(event, done, { once: true });
    video.addEventListener('error', () => failed(new Error(`${name}: this browser cannot play the video.`)), { once: true });
  });
}
