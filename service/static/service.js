/** The service as the page sees it: what it says of itself, scores, and errors in kind words. */

/** @import {Answer, Ask, Described, Device, ExamAnswer, Frame, Limits, Model, ModelDetail, PatientAnswer} from './types.js' */

/** An answer that is an error of the service's closed table, or no answer at all (`code` is then `unreachable`). */
export class Problem extends Error {
  /**
   * @param {string} code
   * @param {string} detail
   * @param {{retryAfter?: number, patients?: PatientAnswer[], requestId?: string}} [more]
   */
  constructor(code, detail, { retryAfter = 0, patients = [], requestId = '' } = {}) {
    super(detail);
    this.code = code;
    this.retryAfter = retryAfter;
    this.patients = patients;
    this.requestId = requestId;
  }
}

/** The media type of a FHIR bundle. */
export const FHIR = 'application/fhir+json';

const KIND_WORDS = /** @type {Record<string, string>} */ ({
  unreachable: 'The service cannot be reached. Your frames are still here; try again when it is back.',
  unauthenticated: 'The service does not know this key. It may be mistyped, expired or revoked.',
  forbidden: 'This key may not score. It needs the scope “score”.',
  payload_too_large: 'These frames are too much for one request. Send fewer, or send large ones reduced.',
  client_too_slow: 'The connection was too slow for this many bytes. Send fewer, or send large ones reduced.',
  all_frames_rejected: 'None of these frames could be read. What is wrong with each stands beside it.',
  rate_limited: 'This key has sent its frames for now.',
  overloaded: 'The service is busy with other work and has no room right now.',
  not_ready: 'The service is not ready yet, or found something wrong with itself and does not answer until that is mended.',
  shutting_down: 'The service is being stopped or restarted.',
  deadline_exceeded: 'The answer did not come in time.',
  exam_closed: 'The exam was closed elsewhere and takes no more frames.',
  bundle_exchanged: 'The service serves another bundle now, so this exam takes no more frames. Its result so far is that of the bundle before, and can be made final.',
  internal: 'Something went wrong inside the service. Its log knows more.',
});

/**
 * Say what happened, and what to do.
 * @param {unknown} error
 */
export function kindly(error) {
  if (!(error instanceof Problem)) return 'Something went wrong on this page. Reloading it may help.';
  const words = KIND_WORDS[error.code] ?? error.message;
  const wait = error.retryAfter ? ` It asks to wait ${error.retryAfter} s.` : '';
  const reference = error.code === 'internal' && error.requestId ? ` Request ${error.requestId}.` : '';
  return words + wait + reference;
}

export class Service {
  #key = '';

  /** The key is held here and nowhere else. @param {string} key */
  use(key) {
    this.#key = key;
  }

  /**
   * Ask what the service is.
   * @returns {Promise<Described>}
   */
  async describe() {
    const { models } = /** @type {{models: Model[]}} */ (await this.#ask('v1/models'));
    const name = models[0]?.name ?? '';
    const [model, devices, limits] = await Promise.all([
      this.#ask(`v1/models/${encodeURIComponent(name)}`),
      this.#ask('v1/devices'),
      this.#ask('v1/limits'),
    ]);
    return {
      model: /** @type {ModelDetail} */ (model),
      devices: /** @type {{devices: Device[]}} */ (devices).devices,
      limits: /** @type {Limits} */ (limits),
    };
  }

  /** Ask whether it would score. */
  ready() {
    return this.#ask('readyz');
  }

  /**
   * Score the frames of one patient.
   * @param {Ask} ask
   * @param {Frame[]} frames
   * @param {AbortSignal} signal
   * @returns {Promise<Answer>}
   */
  async score(ask, frames, signal) {
    const body = form(frames, options(ask));
    return /** @type {Promise<Answer>} */ (this.#ask(`v1/${ask.task}`, { method: 'POST', body, signal }));
  }

  /**
   * Ask for the same as a FHIR bundle, which holds no heat map.
   * @param {Ask} ask
   * @param {Frame[]} frames
   */
  fhir(ask, frames) {
    const body = form(frames, { ...options(ask), explain: undefined });
    return this.#ask(`v1/${ask.task}`, { method: 'POST', body, headers: { Accept: FHIR } });
  }

  /**
   * Open an exam of both named tasks.
   * @param {{operating_point: string, device?: string}} options
   */
  openExam(options) {
    const headers = { 'Content-Type': 'application/json' };
    return /** @type {Promise<ExamAnswer>} */ (this.#ask('v1/exams', { method: 'POST', body: JSON.stringify(options), headers }));
  }

  /** Ask what an exam comes to. @param {string} id */
  exam(id) {
    return /** @type {Promise<ExamAnswer>} */ (this.#ask(examPath(id)));
  }

  /** Make an exam's result final. @param {string} id */
  closeExam(id) {
    return /** @type {Promise<ExamAnswer>} */ (this.#ask(`${examPath(id)}/close`, { method: 'POST' }));
  }

  /** Ask for an exam's result as a FHIR bundle. @param {string} id */
  examFhir(id) {
    return this.#ask(`${examPath(id)}/report`, { headers: { Accept: FHIR } });
  }

  /** Remove an exam with all that is kept of it. @param {string} id */
  async deleteExam(id) {
    await this.#ask(examPath(id), { method: 'DELETE' });
  }

  /** Connect to an exam's stream; the key goes along as the only thing that a browser lets through. @param {string} id */
  examSocket(id) {
    const address = new URL(`${examPath(id)}/stream`, document.baseURI);
    address.protocol = address.protocol.replace('http', 'ws');
    return new WebSocket(address, this.#key ? ['endo-clip', `bearer.${this.#key}`] : ['endo-clip']);
  }

  /**
   * @param {string} path
   * @param {RequestInit} [request]
   * @returns {Promise<unknown>}
   */
  async #ask(path, request = {}) {
    const headers = { ...request.headers, ...(this.#key && { Authorization: `Bearer ${this.#key}` }) };
    let response;
    try {
      response = await fetch(path, { ...request, headers, cache: 'no-store', credentials: 'omit', redirect: 'error' });
      const document = response.status === 204 ? null : await response.json();
      if (response.ok) return document;
      throw new Problem(document.code ?? 'internal', document.detail ?? response.statusText, {
        retryAfter: Number(response.headers.get('Retry-After') ?? 0),
        patients: document.patients,
        requestId: document.request_id,
      });
    } catch (error) {
      if (error instanceof Problem || request.signal?.aborted) throw error;
      throw new Problem('unreachable', 'no answer');
    }
  }
}

/** @param {string} id */
function examPath(id) {
  return `v1/exams/${encodeURIComponent(id)}`;
}

/**
 * @param {Frame[]} frames
 * @param {object} request
 */
function form(frames, request) {
  const body = new FormData();
  frames.forEach((frame, index) => body.append('frames', frame.blob, `${index}`));
  body.append('request', JSON.stringify(request));
  return body;
}

/**
 * Give the `request` part of a scoring request.
 * @param {Ask} ask
 */
export function options(ask) {
  const device = ask.device ? { device: ask.device } : {};
  const asked = ask.task === 'zero-shot' ? { labels: ask.labels } : { operating_point: ask.operatingPoint };
  return { ...asked, ...device, explain: true };
}
