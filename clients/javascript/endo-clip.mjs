// A patient's frames to an Endo-CLIP service, from Node 18+ or a browser: fetch and FormData, no package.
//   node clients/javascript/endo-clip.mjs http://localhost:8000 a.jpg b.jpg
// Research use only; not a medical device.

/**
 * Score one patient. Scoring changes nothing in the service, so a call is repeated when that can help.
 * @param {string} url root of the service
 * @param {Blob[]} frames in capture order
 * @param {{task?: string, options?: object, key?: string, attempts?: number, longestMs?: number}} how
 * @returns {Promise<object>} the answer, as the contract has it
 */
export async function score(url, frames, how = {}) {
  const { task = 'polyp-detection', options = {}, key, attempts = 6, longestMs = 120_000 } = how;
  const id = crypto.randomUUID(); // one for all attempts: the service's log shows them as one
  let waited = 0;
  for (let attempt = 1; ; attempt += 1) {
    const form = new FormData();
    form.append('request', JSON.stringify(options));
    frames.forEach((frame, number) => form.append('frames', frame, String(number)));
    let answer, body;
    try {
      const headers = { 'X-Request-ID': id, ...(key ? { Authorization: `Bearer ${key}` } : {}) };
      answer = await fetch(`${url.replace(/\/+$/, '')}/v1/${task}`, { method: 'POST', body: form, headers });
      body = await answer.json();
    } catch (error) {
      if (attempt >= attempts) throw error;
      answer = undefined;
    }
    if (answer?.ok) return body;
    const again = !answer || answer.status === 429 || answer.status === 503;
    const told = Number(answer?.headers.get('retry-after') ?? NaN);
    const wait = Number.isFinite(told) ? told * 1000 : 100 * 2 ** attempt;
    if (!again || attempt >= attempts || waited + wait > longestMs) {
      throw Object.assign(new Error(`${body?.detail} [${answer?.status} ${body?.code}]`), { problem: body });
    }
    waited += wait;
    await new Promise((done) => setTimeout(done, wait));
  }
}

if (typeof process !== 'undefined' && process.argv[1]?.endsWith('endo-clip.mjs')) {
  const { readFile } = await import('node:fs/promises');
  const [url, ...paths] = process.argv.slice(2);
  const frames = await Promise.all(paths.map(async (path) => new Blob([await readFile(path)])));
  try {
    const { patients: [patient], model } = await score(url, frames, { key: process.env.ENDO_CLIP_KEY });
    console.log(JSON.stringify({ decision: patient.decision, probability: patient.probability, model: model.digest }));
  } catch (error) {
    console.error(error.message);
    process.exitCode = 1;
  }
}
