/** A camera of this machine: asked for, shown, and its pictures as files. */

import { encoded } from './pixels.js';

/** What is asked of a camera; it gives what it can. */
const WANTED = { width: { ideal: 1920 }, height: { ideal: 1080 }, frameRate: { ideal: 30 } };

const WORDS = /** @type {Record<string, string>} */ ({
  NotAllowedError: 'This page may not use the camera. Allow it at the sign beside the address, then turn the camera on again.',
  NotFoundError: 'No camera was found. Connect one, then turn it on again.',
  OverconstrainedError: 'The camera that was chosen is no longer there. Choose another one.',
  NotReadableError: 'The camera cannot be read: another program may be using it.',
  AbortError: 'The camera could not be started.',
});

/**
 * Say why there is no picture.
 * @param {unknown} error
 */
export function whyNoPicture(error) {
  if (!navigator.mediaDevices) return 'Browsers let only pages from https:// or from localhost use a camera. Ask for this page at such an address.';
  return WORDS[error instanceof DOMException ? error.name : ''] ?? 'The camera could not be started.';
}

export class Camera {
  /** Shows what the camera sees. */
  video = document.createElement('video');
  #canvas = document.createElement('canvas');
  /** @type {MediaStream | null} */
  #stream = null;
  /** Of the last start; one that was overtaken ends its camera itself. */
  #turn = 0;
  /** @type {() => void} */
  #lost;

  /** @param {() => void} lost called when the camera ends without having been asked to */
  constructor(lost) {
    this.#lost = lost;
    this.video.muted = true;
    this.video.playsInline = true;
    this.video.setAttribute('aria-label', 'What the camera sees');
  }

  get isOn() {
    return this.#stream !== null;
  }

  /** Give the id of the camera that is on; '' where none is. */
  get device() {
    return this.#stream?.getVideoTracks()[0]?.getSettings().deviceId ?? '';
  }

  /**
   * Turn a camera on, in place of the one that is.
   * @param {string} device its id; '' leaves the choice to the browser
   * @throws {unknown} what `whyNoPicture` reads
   */
  async start(device) {
    this.stop();
    const turn = this.#turn;
    const video = device ? { ...WANTED, deviceId: { exact: device } } : WANTED;
    const stream = await navigator.mediaDevices.getUserMedia({ video, audio: false });
    if (turn !== this.#turn) return stream.getTracks().forEach((track) => track.stop());
    this.#stream = stream;
    for (const track of stream.getTracks()) {
      track.addEventListener('ended', () => {
        if (this.#stream !== stream) return;
        this.stop();
        this.#lost();
      });
    }
    this.video.srcObject = stream;
    await this.video.play().catch(() => {}); // one that was turned off at once does not play
  }

  stop() {
    this.#turn += 1;
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
    this.video.srcObject = null;
  }

  /** List the cameras; before one was allowed, a browser names none. */
  async list() {
    const all = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
    return all.filter((one) => one.kind === 'videoinput' && one.deviceId);
  }

  /**
   * Give the picture of now as a JPEG file.
   * @param {number} side shorter side to reduce it to, px; 0 to leave it
   * @returns {Promise<Blob>}
   */
  grab(side) {
    const { videoWidth: width, videoHeight: height } = this.video;
    const scale = side ? Math.min(1, side / Math.min(width, height)) : 1;
    this.#canvas.width = Math.round(width * scale);
    this.#canvas.height = Math.round(height * scale);
    this.#canvas.getContext('2d')?.drawImage(this.video, 0, 0, this.#canvas.width, this.#canvas.height);
    return encoded(this.#canvas, 'image/jpeg');
  }
}
