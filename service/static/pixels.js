/** From a canvas to the bytes of an image file. */

/** Of the frames that this page encodes lossily: sampled and reduced ones. */
const JPEG_QUALITY = 0.95;

/**
 * Encode what stands on a canvas.
 * @param {HTMLCanvasElement} canvas
 * @param {'image/jpeg' | 'image/png'} type
 * @returns {Promise<Blob>}
 */
export function encoded(canvas, type) {
  return new Promise((done, failed) => {
    canvas.toBlob((blob) => (blob ? done(blob) : failed(new Error('This browser cannot encode the frame.'))), type, JPEG_QUALITY);
  });
}
