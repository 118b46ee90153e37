/**
 * The page: what is held, and what happens when something changes.
 *
 * Everything is asked of the service anew when frames, question or operating point change; nothing is scored or decided
 * here. Nothing is kept in the browser's storage: a reload forgets frames, answers and key.
 */

import { Prompts, pointsView } from './asking.js';
import { at, counted, h } from './dom.js';
import { save } from './exports.js';
import { Gallery } from './gallery.js';
import { framesOf, reducedSide, sendable, whenFilesCome, whyTooMuch } from './intake.js';
import { LiveView } from './live.js';
import { patientView } from './patient.js';
import { focusOf, readFrame, verdictOf } from './readings.js';
import { FHIR, Problem, Service, kindly } from './service.js';
import { Stage } from './stage.js';
import { takeView } from './take.js';
import { busy, clearNotices, leftOut, notice, progress, tell } from './words.js';

/** @import {Answer, Ask, Described, Frame, Reading, TaskPath} from './types.js' */

const MOST_OF_A_VIDEO = 200;
const DRAW_EVERY = 20;
/** As in page.css. */
const NARROW = '(max-width: 860px)';

const service = new Service();
const stage = new Stage();
const gallery = new Gallery((index) => select(index, true), () => drawFrames());
const prompts = new Prompts(() => ask());
const liveView = new LiveView(service, () => ({ ...asked(), side: sentSide() }));

/** @type {Described | null} */
let described = null;
let keyed = false;
/** @type {Frame[]} */
let frames = [];
/** @type {{files: File[], unread: string[]}} given before the service was known */
const early = { files: [], unread: [] };
/** @type {Answer | null} of all frames */
let answer = null;
/** @type {{answer: Answer, index: number} | null} of the frame that is shown, to prompts that are being typed */
let live = null;
let selected = 0;
/** The user has chosen a frame to look at; until then it is the one that the result rests on. */
let choseFrame = false;
/** @type {TaskPath} */
let task = 'polyp-detection';
let point = 'balanced';
let taking = new AbortController();
let asking = new AbortController();

// ---- the service ---------------------------------------------------------------------------------

async function begin() {
  const held = frames.length > 0;
  clearNotices();
  try {
    described = await service.describe();
  } catch (error) {
    if (error instanceof Problem && (error.code === 'unauthenticated' || error.code === 'forbidden')) return askForKey(error);
    tell('The service cannot be reached.', 'bad');
    return notice(kindly(error), begin);
  }
  at('key-form', HTMLFormElement).hidden = true;
  at('columns', HTMLElement).hidden = false;
  at('forget', HTMLButtonElement).hidden = !keyed;
  drawService(described);
  drawQuestion();
  await checkReady();
  // Frames that were given meanwhile have been asked about.
  if (early.files.length || early.unread.length) await take(early.files.splice(0), early.unread.splice(0));
  else if (held) await ask();
}

/** A service that has lost its readiness still says what it is. */
async function checkReady() {
  try {
    await service.ready();
  } catch (error) {
    tell('Not ready', 'bad');
    notice(kindly(error), begin);
  }
}

/** @param {Problem} problem */
function askForKey(problem) {
  at('key-form', HTMLFormElement).hidden = false;
  at('columns', HTMLElement).hidden = true;
  tell('A key is needed.', '');
  if (keyed) notice(kindly(problem));
  at('key', HTMLInputElement).focus();
}

/** @param {Described} of */
function drawService({ model, devices }) {
  tell('Ready', 'good');
  const [first, ...rest] = model.intended_use.split(/(?<=\.)\s/);
  at('intended', HTMLElement).replaceChildren(h('b', {}, first ?? ''), ` ${rest.join(' ')}`);
  drawProvenance();
  const side = reducedSide(model);
  at('reduce-hint', HTMLElement).textContent = `Off: files are sent as they are. On: to a shorter side of ${side} px, four times the ${model.manifest.input.size} px that the model looks at; scores move slightly.`;
  const list = at('device', HTMLSelectElement);
  list.replaceChildren(...devices.map((one) => h('option', { value: one.name }, one.name)));
  at('device-row', HTMLElement).hidden = devices.length < 2;
}

function drawProvenance() {
  if (!described) return;
  const { model } = described;
  const site = model.site_profile ? ` · site profile ${model.site_profile.site}` : '';
  at('provenance', HTMLElement).textContent = `${model.name} ${model.version} · ${model.digest.slice(0, 19)}… · ${model.execution_provider}${site}`;
  at('request', HTMLElement).textContent = answer ? ` · request ${answer.request_id}` : '';
}

// ---- frames come in ------------------------------------------------------------------------------

/**
 * @param {File[]} files
 * @param {string[]} unread sentences about others, that cannot be read
 */
async function take(files, unread) {
  if (!files.length && !unread.length) return;
  if (!described) return void (early.files.push(...files), early.unread.push(...unread));
  taking.abort();
  asking.abort();
  taking = new AbortController();
  const { signal } = taking;
  clearNotices();
  leftOut([]);
  busy(true);
  const left = [...unread];
  const most = Math.min(MOST_OF_A_VIDEO, described.limits.max_frames);
  const how = { every: Number(at('every', HTMLSelectElement).value), most, signal, told: progress, failed: (/** @type {string} */ why) => left.push(why) };
  const before = frames.length;
  forgetAnswers();
  for await (const frame of framesOf(files, how)) {
    if (signal.aborted) return; // the frames that there are now may be of another patient
    frames.push(frame);
    if (frames.length % DRAW_EVERY === 0) drawFrames();
  }
  if (signal.aborted) return;
  leftOut(frames.length > before || left.length ? left : ['There is no frame among these files.']);
  drawAll();
  await ask();
  // Where the result stands below, it would come unseen.
  if (!signal.aborted && matchMedia(NARROW).matches) at('result', HTMLElement).scrollIntoView();
}

function clear() {
  taking.abort();
  asking.abort();
  frames = [];
  selected = 0;
  choseFrame = false;
  forgetAnswers();
  clearNotices();
  leftOut([]);
  progress('');
  drawAll();
  at('choose', HTMLButtonElement).focus();
}

function forgetAnswers() {
  answer = null;
  live = null;
}

// ---- asking --------------------------------------------------------------------------------------

/** @returns {Ask} */
function asked() {
  const labels = described ? prompts.labels(described.limits) : [];
  return { task, operatingPoint: point, device: at('device-row', HTMLElement).hidden ? '' : at('device', HTMLSelectElement).value, labels };
}

/**
 * Ask for what is shown: all frames, or, for prompts, the one that is shown.
 * @param {boolean} [all] prompts too
 */
async function ask(all = false) {
  asking.abort();
  asking = new AbortController();
  const { signal } = asking;
  const what = asked();
  const single = task === 'zero-shot' && !all && frames.length > 1;
  if (single) answer = null;
  if (described && frames.length && (task !== 'zero-shot' || what.labels.length > 1)) {
    busy(true);
    await askNow(what, single, signal);
    if (signal.aborted) return;
  }
  drawAll();
  busy(false);
}

/**
 * @param {Ask} what
 * @param {boolean} single only the frame that is shown
 * @param {AbortSignal} signal
 */
async function askNow(what, single, signal) {
  const index = selected;
  const sent = single ? frames.slice(index, index + 1) : frames;
  clearNotices();
  progress(single ? '' : `Scoring ${counted(sent.length, 'frame')}…`);
  try {
    const found = await service.score(what, await prepared(sent), signal);
    if (signal.aborted) return;
    if (single) live = { answer: found, index };
    else takeAnswer(found);
    // Read out: the result itself is not, for it is long.
    progress(single ? '' : `${counted(sent.length, 'frame')} scored. ${verdictOf(found)}`);
  } catch (error) {
    if (signal.aborted) return;
    progress('');
    failed(error, !single);
  }
}

/** @param {Answer} found of all frames */
function takeAnswer(found) {
  [answer, live] = [found, null];
  if (choseFrame) return;
  const attention = readings().map((one) => one.attention ?? 0);
  selected = attention.indexOf(Math.max(...attention));
}

/** Give the shorter side that frames are reduced to, px; 0 where they are sent as they are. */
function sentSide() {
  return described && at('reduce', HTMLInputElement).checked ? reducedSide(described.model) : 0;
}

/** @param {Frame[]} sent */
async function prepared(sent) {
  const { limits } = /** @type {Described} */ (described);
  const ready = await sendable(sent, sentSide(), progress);
  const why = whyTooMuch(ready, limits);
  if (why) throw new Problem('page', why);
  return ready;
}

/** Ask again, for the same as FHIR. */
async function saveFhir() {
  clearNotices();
  try {
    save('answer.fhir.json', FHIR, JSON.stringify(await service.fhir(asked(), await prepared(frames)), null, 2));
  } catch (error) {
    notice(kindly(error), saveFhir);
  }
}

/**
 * @param {unknown} error
 * @param {boolean} all
 */
function failed(error, all) {
  if (error instanceof Problem && error.code === 'unauthenticated') return askForKey(error);
  const once = error instanceof Problem && ['all_frames_rejected', 'page', 'invalid_request', 'forbidden'].includes(error.code);
  notice(kindly(error), once ? undefined : () => ask(all));
  if (error instanceof Problem && error.patients.length && described) {
    const { model } = described;
    answer = { request_id: error.requestId, task, model, intended_use: model.intended_use, labels: [], label_definitions: {}, patients: error.patients };
  }
}

// ---- drawing -------------------------------------------------------------------------------------

/** @returns {Reading[]} */
function readings() {
  const focus = answer ? focusOf(answer) : live ? focusOf(live.answer) : '';
  const all = frames.map((_, index) => readFrame(answerOf(index), focus));
  // Asked for alone, a frame has all the attention that there is.
  return live ? all.map((one) => ({ ...one, attention: null })) : all;
}

/** @param {number} index */
function answerOf(index) {
  if (live?.index === index) return live.answer.patients[0]?.frames[0];
  return answer?.patients[0]?.frames[index];
}

function drawAll() {
  const some = frames.length > 0;
  at('empty', HTMLElement).hidden = some;
  at('outcome', HTMLElement).hidden = !some;
  at('clear', HTMLButtonElement).hidden = !some;
  at('drop', HTMLElement).classList.toggle('some', some);
  at('frame-count', HTMLElement).textContent = some ? String(frames.length) : '';
  drawProvenance();
  if (!some) return;
  drawPatient();
  drawStage();
  drawFrames();
  drawTake();
}

function drawPatient() {
  const host = at('patient', HTMLElement);
  if (answer) return host.replaceChildren(...patientView(answer, readings(), selected, (index) => select(index, false)));
  if (task !== 'zero-shot') return host.replaceChildren(h('p', { class: 'hint' }, 'No result yet.'));
  const all = frames.length > 1 && h('button', { type: 'button', onclick: () => ask(true) }, `Rank all ${frames.length} frames`);
  const words = asked().labels.length < 2 ? 'Write two prompts or more to rank them.' : `Ranked live on frame ${selected}; the patient's ranking takes all frames.`;
  host.replaceChildren(...[h('p', { class: 'hint' }, words), all].filter((one) => one instanceof HTMLElement));
}

function drawStage() {
  const frame = frames[selected];
  if (!described || !frame) return;
  const { model, devices } = described;
  const name = asked().device;
  const device = devices.find((one) => one.name === name) ?? devices[0];
  const reading = readings()[selected];
  at('frame-title', HTMLElement).textContent = `Frame ${selected}`;
  if (reading) at('stage', HTMLElement).replaceChildren(...stage.show(frame, selected, answerOf(selected), reading, { model, device }));
  at('heat-controls', HTMLElement).hidden = !answerOf(selected)?.heatmap;
}

function drawFrames() {
  const all = readings();
  at('sorting', HTMLElement).replaceChildren(...gallery.controls(all));
  at('gallery', HTMLElement).replaceChildren(gallery.list(frames, all, selected));
}

function drawTake() {
  if (described) at('take', HTMLElement).replaceChildren(...takeView({ answer, frames, ask: asked(), model: described.model, keyed, saveFhir }));
}

function drawQuestion() {
  if (!described) return;
  const { model, limits } = described;
  const name = task.replaceAll('-', '_');
  const [positive] = model.label_sets[name]?.labels ?? [];
  at('definition', HTMLElement).textContent = positive ? `“${positive.label}”: ${positive.definition}.` : '';
  const points = model.operating_points[name];
  at('points', HTMLElement).replaceChildren(...(points ? [pointsView(points, point, choosePoint)] : []));
  const free = task === 'zero-shot';
  at('prompts', HTMLElement).hidden = !free;
  if (free) at('prompts', HTMLElement).replaceChildren(...prompts.view(model, limits));
}

/** @param {string} name */
function choosePoint(name) {
  point = name;
  drawQuestion();
  /** @type {HTMLInputElement | null} */ (document.querySelector('input[name="point"]:checked'))?.focus();
  void ask();
}

/**
 * @param {number} index
 * @param {boolean} focus
 */
function select(index, focus) {
  if (index === selected || !frames[index]) return;
  selected = index;
  choseFrame = true;
  live = null;
  const list = at('gallery', HTMLElement).firstElementChild;
  if (list) gallery.mark(list, selected, focus);
  drawStage();
  drawPatient();
  if (task === 'zero-shot' && !answer) void ask();
}

// ---- listening -----------------------------------------------------------------------------------

function listen() {
  whenFilesCome(take);
  at('choose-camera', HTMLButtonElement).addEventListener('click', () => liveView.open());
  at('clear', HTMLButtonElement).addEventListener('click', clear);
  at('tasks', HTMLElement).addEventListener('change', (event) => {
    task = /** @type {TaskPath} */ (/** @type {HTMLInputElement} */ (event.target).value);
    forgetAnswers();
    drawQuestion();
    drawAll();
    void ask();
  });
  for (const id of ['device', 'reduce']) document.getElementById(id)?.addEventListener('change', () => ask(answer !== null));
  at('key-form', HTMLFormElement).addEventListener('submit', (event) => {
    event.preventDefault();
    const field = at('key', HTMLInputElement);
    const key = field.value.trim();
    [field.value, keyed] = ['', true];
    clearNotices();
    // What no header can hold is no key: asking with it would look like a service that is away.
    if (!/^[!-~]+$/.test(key)) return askForKey(new Problem('unauthenticated', ''));
    service.use(key);
    void begin();
  });
  at('forget', HTMLButtonElement).addEventListener('click', () => location.reload());
  at('heat-controls', HTMLElement).append(...stage.control(() => described?.model));
}

listen();
void begin();
