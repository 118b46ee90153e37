/**
 * An exam's stream: frames out, results in, one WebSocket at a time.
 *
 * No more than two frames are under way, one that is worked on and one that waits: results are of now. A line that
 * breaks is taken up again; what was under way is then counted as lost, for the next frame is better than an old one.
 */

import { Problem } from './service.js';

/** @import {LiveCounts, LiveMessage} from './types.js' */

const AT_ONCE = 2;
const RETRY_MS = [500, 1000, 2000, 4000, 8000, 8000, 8000];
/** How long results of frames under way are waited for at the end. */
const LAST_MS = 2000;
/** Close codes after which the service wants to be asked again: it ends, it is not ready, the line broke. */
const COMES_BACK = [1001, 1005, 1006, 1012, 1013];

export class ExamStream {
  /** @type {LiveCounts} */
  counts = { seen: 0, unsent: 0, answered: 0, kept: 0, newer: 0, overloaded: 0, rate_limited: 0, lost: 0 };
  /** Bytes of a message that the service takes. */
  #most = Infinity;
  /** @type {() => WebSocket} */
  #connect;
  /** @type {(told: LiveMessage) => void} */
  #hear;
  /** @type {(problem: Problem | null, attempt: number) => void} */
  #broke;
  /** @type {WebSocket | null} */
  #socket = null;
  #isOpen = false;
  /** The service has taken the stream at least once. */
  wasOpen = false;
  #ended = false;
  /** Frames of this connection that have no fate yet. */
  #underWay = 0;
  /** Frames of this connection that are to be kept and are not yet; that one is may be said before its result. */
  #unkept = 0;
  /** What this connection has said it dropped. */
  #dropped = { newer: 0, overloaded: 0, rate_limited: 0 };
  #attempt = 0;
  #retry = 0;
  #notBefore = 0;

  /**
   * @param {() => WebSocket} connect
   * @param {(told: LiveMessage) => void} hear takes what the service says
   * @param {(problem: Problem | null, attempt: number) => void} broke told of a broken line: of a problem that ends the stream, or null
   *   and the number of the attempt to take it up
   */
  constructor(connect, hear, broke) {
    this.#connect = connect;
    this.#hear = hear;
    this.#broke = broke;
    this.#open();
  }

  /** Say whether a frame would be taken now. */
  get hasRoom() {
    // A line that the service is closing is no longer one, though its end is still to come.
    const takes = this.#isOpen && this.#socket?.readyState === WebSocket.OPEN && !this.#socket.bufferedAmount;
    return takes && this.#underWay < AT_ONCE && Date.now() >= this.#notBefore;
  }

  /**
   * Send a frame, if there is still room.
   * @param {Blob} image
   * @param {number} capturedMs milliseconds since 1970
   */
  send(image, capturedMs) {
    if (!this.hasRoom) return void (this.counts.unsent += 1);
    const header = new DataView(new ArrayBuffer(8));
    header.setBigInt64(0, BigInt(Math.round(capturedMs * 1000)));
    const message = new Blob([header, image]);
    if (message.size > this.#most) return this.#end(new Problem('page', 'The camera’s pictures are too large for the service. Let large frames be sent reduced, and start again.'));
    this.#underWay += 1;
    this.#socket?.send(message);
  }

  /** End the stream once the frames under way are answered, and kept where they are to be. */
  async finish() {
    const until = Date.now() + LAST_MS;
    while (this.#isOpen && (this.#underWay || this.#unkept > 0) && Date.now() < until) await new Promise((done) => setTimeout(done, 20));
    this.#loseAll();
    this.#stop();
  }

  #open() {
    const socket = this.#connect();
    this.#socket = socket;
    [this.#underWay, this.#unkept] = [0, 0];
    this.#dropped = { newer: 0, overloaded: 0, rate_limited: 0 };
    /** @type {Problem | null} */
    let problem = null;
    socket.addEventListener('message', ({ data }) => {
      if (this.#ended) return;
      const told = /** @type {LiveMessage} */ (JSON.parse(data));
      if (told.type === 'problem') problem = new Problem(told.code ?? 'internal', told.detail ?? '', { requestId: told.request_id ?? '' });
      else this.#take(told);
    });
    socket.addEventListener('close', ({ code }) => {
      if (this.#ended) return;
      this.#isOpen = false;
      this.#loseAll();
      if (COMES_BACK.includes(code)) return this.#again();
      this.#end(problem ?? new Problem('internal', 'The service ended the stream.'));
    });
  }

  /** Give up what is under way. */
  #loseAll() {
    this.counts.lost += this.#underWay;
    this.#underWay = 0;
  }

  /** @param {LiveMessage} told */
  #take(told) {
    const { counts } = this;
    if (told.type === 'open') {
      [this.#isOpen, this.wasOpen] = [true, true];
      this.#attempt = 0;
      this.#most = told.max_message_bytes ?? Infinity;
    }
    if (told.type === 'frame') counts.answered += 1;
    if (told.type === 'frame' || told.type === 'dropped') this.#underWay -= 1;
    if (told.to_be_kept) this.#unkept += 1;
    if (told.type === 'kept' || told.type === 'full') this.#unkept -= 1;
    if (told.type === 'kept') counts.kept += 1;
    if (told.type === 'dropped') this.#notBefore = Date.now() + (told.retry_after_s ?? 0) * 1000;
    for (const why of /** @type {const} */ (['newer', 'overloaded', 'rate_limited'])) {
      const more = (told.dropped?.[why] ?? this.#dropped[why]) - this.#dropped[why];
      this.#dropped[why] += more;
      counts[why] += more;
      // Of these nothing else is heard; the others came with a message of their own.
      if (why === 'newer') this.#underWay -= more;
    }
    this.#hear(told);
  }

  #again() {
    const wait = RETRY_MS[this.#attempt];
    if (wait === undefined) return this.#end(new Problem('unreachable', 'no stream'));
    this.#attempt += 1;
    this.#broke(null, this.#attempt);
    if (!this.#ended) this.#retry = setTimeout(() => this.#open(), wait);
  }

  /** @param {Problem} problem */
  #end(problem) {
    if (this.#ended) return;
    this.#stop();
    this.#broke(problem, this.#attempt);
  }

  #stop() {
    this.#ended = true;
    this.#isOpen = false;
    clearTimeout(this.#retry);
    this.#socket?.close(1000);
  }
}
