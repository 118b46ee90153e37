/**
 * The live view: a camera's frames go to an exam's stream, the newest result stands beside the picture.
 *
 * Nothing is sent before the user starts it. At the end the exam is the user's to close or to delete; one that is
 * left open is removed by the service after a while, and leaving the page with one is asked about.
 */

import { say, showCounts, showFinal, showNewest, showPatient, warn } from './board.js';
import { Camera, whyNoPicture } from './camera.js';
import { at, h } from './dom.js';
import { save } from './exports.js';
import { FHIR, Problem, kindly } from './service.js';
import { ExamStream } from './stream.js';

/** @import {Service} from './service.js' */
/** @import {ExamAnswer, LiveMessage} from './types.js' */

/** @typedef {'camera off' | 'ready' | 'opening' | 'running' | 'stopped' | 'closed'} State */

const TICK_MS = 200;
/** The exam's result is asked for at most this often, and not so often that it becomes the work itself. */
const ASK_MS = 2000;
const ASK_SHARE = 10;
/** Changes are read out at most this often. */
const SAY_MS = 4000;

export class LiveView {
  #service;
  #asked;
  #camera = new Camera(() => this.#cameraLost());
  /** @type {State} */
  #state = 'camera off';
  /** @type {ExamAnswer | null} as it was last answered */
  #exam = null;
  /** @type {ExamStream | null} */
  #stream = null;
  /** @type {LiveMessage | null} about the newest frame */
  #newest = null;
  #encoding = false;
  #asking = false;
  #askAfter = 0;
  #saidAt = 0;
  #said = '';
  #ticking = 0;

  /**
   * @param {Service} service
   * @param {() => {operatingPoint: string, device: string, side: number}} asked how an exam is opened and what frames are reduced to (0: as
   *   they are)
   */
  constructor(service, asked) {
    this.#service = service;
    this.#asked = asked;
    addEventListener('beforeunload', (event) => {
      if (this.#exam && this.#state !== 'closed') event.preventDefault();
    });
    navigator.mediaDevices?.addEventListener('devicechange', () => this.#drawCameras());
    at('live-camera', HTMLSelectElement).addEventListener('change', () => this.#turnOn());
    at('live-picture', HTMLElement).append(this.#camera.video);
  }

  /** Show the panel and ask for a camera. */
  async open() {
    at('live', HTMLElement).hidden = false;
    at('live-title', HTMLElement).focus();
    if (!this.#camera.isOn && this.#state === 'camera off') await this.#turnOn();
    at('live', HTMLElement).scrollIntoView();
  }

  // ---- the camera ----------------------------------------------------------------------------------

  /** @returns {Promise<boolean>} whether there is a picture now */
  async #turnOn() {
    warn('');
    const before = this.#state;
    try {
      await this.#camera.start(at('live-camera', HTMLSelectElement).value);
    } catch (error) {
      warn(whyNoPicture(error));
      if (this.#state === 'running') await this.#stop();
      else this.#turn(this.#exam ? this.#state : 'camera off');
      return false;
    }
    await this.#drawCameras();
    // It may have been turned off while the browser still asked for it.
    if (before === 'camera off' && this.#camera.isOn) this.#turn('ready', 'The camera is on. Nothing is sent yet.');
    return this.#camera.isOn;
  }

  /** Turn the camera off and put the panel away. */
  #hide() {
    this.#camera.stop();
    this.#turn('camera off', 'The camera is off.');
    at('live', HTMLElement).hidden = true;
    at('choose-camera', HTMLButtonElement).focus();
  }

  #cameraLost() {
    warn('The camera was disconnected, or another program or the browser has turned it off.');
    if (this.#state === 'running') void this.#stop();
    else this.#turn(this.#exam ? this.#state : 'camera off');
  }

  async #drawCameras() {
    const cameras = await this.#camera.list();
    const list = at('live-camera', HTMLSelectElement);
    const chosen = this.#camera.device || list.value;
    list.replaceChildren(...cameras.map((one, index) => h('option', { value: one.deviceId, selected: one.deviceId === chosen }, one.label || `Camera ${index + 1}`)));
    at('live-camera-row', HTMLElement).hidden = !cameras.length;
  }

  // ---- the exam ------------------------------------------------------------------------------------

  /** Begin to send, in the exam that is open or in a new one. */
  async #start() {
    this.#turn('opening');
    if (!this.#camera.isOn && !(await this.#turnOn())) return this.#turn(this.#exam ? 'stopped' : 'camera off');
    warn('');
    try {
      const { operatingPoint, device } = this.#asked();
      this.#exam ??= await this.#service.openExam({ operating_point: operatingPoint, ...(device && { device }) });
    } catch (error) {
      const full = error instanceof Problem && error.code === 'overloaded' ? ' Or there are as many exams as one client may have: closed ones can be deleted.' : '';
      warn(kindly(error) + full, () => this.#start());
      return this.#turn('ready');
    }
    const id = this.#exam.exam_id;
    const before = this.#stream?.counts;
    this.#newest = null;
    this.#stream = new ExamStream(() => this.#service.examSocket(id), (told) => this.#hear(told), (problem, attempt) => this.#broken(problem, attempt));
    if (before) this.#stream.counts = { ...before };
    this.#turn('running', 'Connecting to the service…');
    // Only now is the panel as high as it will be.
    at('live', HTMLElement).scrollIntoView();
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
    this.#pump(this.#stream);
  }

  /** Stop sending and turn the camera off; the exam stays open. */
  async #stop() {
    if (this.#state !== 'running') return;
    this.#camera.stop();
    this.#turn('stopped', 'Stopped. The exam is still open: go on, close it, or delete it.');
    clearInterval(this.#ticking);
    await this.#stream?.finish();
    showCounts(this.#stream?.counts); // with what was under way
    await this.#ask();
  }

  async #close() {
    await this.#finally(async (id) => {
      this.#exam = await this.#service.closeExam(id);
      this.#turn('closed', 'The exam is closed; its result is final.');
    });
  }

  async #delete() {
    await this.#finally(async (id) => {
      try {
        await this.#service.deleteExam(id);
      } catch (error) {
        if (!(error instanceof Problem) || error.code !== 'not_found') throw error;
      }
      this.#forget('The exam is deleted, with all that was kept of it.');
    });
  }

  /** @param {(id: string) => Promise<void>} end */
  async #finally(end) {
    if (!this.#exam) return;
    warn('');
    at('live', HTMLElement).setAttribute('aria-busy', 'true');
    try {
      await end(this.#exam.exam_id);
    } catch (error) {
      warn(kindly(error));
    }
    at('live', HTMLElement).setAttribute('aria-busy', 'false');
  }

  /** @param {string} said */
  #forget(said) {
    [this.#exam, this.#stream, this.#newest] = [null, null, null];
    this.#turn(this.#camera.isOn ? 'ready' : 'camera off', said);
  }

  async #again() {
    this.#forget('');
    await this.#turnOn();
  }

  /** Ask what the exam comes to so far. */
  async #ask() {
    if (!this.#exam || this.#asking) return;
    this.#asking = true;
    const began = Date.now();
    const { exam_id: id } = this.#exam;
    try {
      const found = await this.#service.exam(id);
      if (this.#exam?.exam_id === id && this.#state !== 'closed') this.#exam = found;
      this.#drawPatient();
    } catch {
      // the stream says what is wrong; the result of before stays, with its number of frames
    }
    this.#asking = false;
    this.#askAfter = Date.now() + Math.max(ASK_MS, ASK_SHARE * (Date.now() - began));
  }

  // ---- the stream ----------------------------------------------------------------------------------

  /**
   * Send what the camera gives, as fast as results come back.
   * @param {ExamStream} stream
   */
  #pump(stream) {
    this.#camera.video.requestVideoFrameCallback(() => {
      if (this.#state !== 'running' || stream !== this.#stream) return;
      if (stream.hasRoom && !this.#encoding) void this.#send(stream);
      else this.#leaveOut(stream);
      this.#pump(stream);
    });
  }

  /** @param {ExamStream} stream */
  async #send(stream) {
    this.#encoding = true;
    const capturedMs = Date.now(); // what counts from the page's beginning stands still while a machine sleeps
    try {
      const image = await this.#camera.grab(this.#asked().side);
      // Counted only now, with what becomes of it: it may be stopped meanwhile, and the counts must add up.
      stream.counts.seen += 1;
      stream.send(image, capturedMs);
    } catch {
      this.#leaveOut(stream); // the camera has no picture just now
    }
    this.#encoding = false;
  }

  /** @param {ExamStream} stream */
  #leaveOut(stream) {
    stream.counts.seen += 1;
    stream.counts.unsent += 1;
  }

  /** @param {LiveMessage} told */
  #hear(told) {
    if (told.type === 'open') this.#say('Live. One frame a second becomes part of the exam.');
    if (told.type === 'full') warn('The exam has as many frames as it takes. Results go on, but no more frames become part of it.');
    if (told.type === 'frame') {
      this.#newest = told;
      this.#drawNewest();
    }
  }

  /**
   * @param {Problem | null} problem
   * @param {number} attempt
   */
  async #broken(problem, attempt) {
    if (!problem) {
      this.#say(`${this.#stream?.wasOpen ? 'The line to the service is cut. What was kept is not lost' : 'The service has not taken the stream'}; trying again (${attempt}).`);
      // A browser does not say why a stream was refused; what is wrong with the exam can be asked.
      const found = await this.#reason();
      if (found && this.#state === 'running') this.#broken(found, attempt);
      return;
    }
    const words = problem.code === 'unreachable'
      ? 'The service could not be reached for its stream: it may be down, it may have as many streams as it takes, or something in between lets no WebSocket through. Without keys it takes one from its own machine alone.'
      : kindly(problem);
    await this.#stop();
    warn(words);
  }

  /** @returns {Promise<Problem | null>} why the exam takes no frames, if that is so */
  async #reason() {
    try {
      const found = await this.#service.exam(this.#exam?.exam_id ?? '');
      if (found.takes_frames) return null;
      return new Problem(found.state === 'open' ? 'bundle_exchanged' : 'exam_closed', '');
    } catch (error) {
      const lasting = ['unauthenticated', 'forbidden', 'not_found', 'conflict'];
      return error instanceof Problem && lasting.includes(error.code) ? error : null;
    }
  }

  // ---- drawing -------------------------------------------------------------------------------------

  #tick() {
    showCounts(this.#stream?.counts);
    this.#drawNewest();
    const { revision = 0 } = this.#exam ?? {};
    if (this.#stream && Date.now() >= this.#askAfter && this.#stream.counts.kept > revision) void this.#ask();
  }

  /**
   * @param {State} state
   * @param {string} [said]
   */
  #turn(state, said) {
    const held = at('live-controls', HTMLElement).contains(document.activeElement);
    this.#state = state;
    if (said) this.#say(said);
    this.#draw();
    if (held) at('live-controls', HTMLElement).querySelector('button')?.focus();
  }

  #draw() {
    at('live-controls', HTMLElement).replaceChildren(...this.#controls());
    at('live-picture', HTMLElement).classList.toggle('off', !this.#camera.isOn);
    this.#drawPatient();
    this.#drawNewest();
    showCounts(this.#stream?.counts);
    showFinal(this.#state === 'closed' ? this.#exam : null);
  }

  /** @returns {HTMLElement[]} what can be done now */
  #controls() {
    const button = /** @param {string} words @param {() => unknown} onclick @param {object} [more] */ (words, onclick, more = {}) => h('button', { type: 'button', onclick, ...more }, words);
    const first = { class: 'primary' };
    switch (this.#state) {
      case 'camera off': return [button('Turn the camera on', () => this.#turnOn(), first), button('Hide', () => this.#hide())];
      case 'ready': return [button('Start', () => this.#start(), first), button('Turn the camera off', () => this.#hide())];
      case 'opening': return [button('Starting…', () => {}, { 'aria-disabled': 'true' })];
      case 'running': return [button('Stop', () => this.#stop(), first)];
      case 'stopped': return [button('Go on', () => this.#start()), button('Close the exam', () => this.#close(), first), button('Delete the exam', () => this.#delete())];
      case 'closed': return [
        button('New live view', () => this.#again(), first),
        button('Download JSON', () => save('exam.json', 'application/json', JSON.stringify(this.#exam, null, 2))),
        button('Download FHIR', () => this.#finally(async (id) => save('exam.fhir.json', FHIR, JSON.stringify(await this.#service.examFhir(id), null, 2)))),
        button('Delete the exam', () => this.#delete()),
      ];
    }
  }

  #drawNewest() {
    showNewest(this.#newest, this.#exam?.results.map((one) => one.task) ?? [], this.#state === 'running');
  }

  #drawPatient() {
    const words = showPatient(this.#exam);
    if (this.#state !== 'running' || !words || words === this.#said || Date.now() - this.#saidAt < SAY_MS) return;
    this.#said = words;
    this.#say(`Patient so far. ${words}.`);
  }

  /** @param {string} text */
  #say(text) {
    this.#saidAt = Date.now();
    say(text);
  }
}
