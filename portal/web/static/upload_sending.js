// Sends photos by the tus protocol, some at once: with the session's cookie and the page's form token, without a key.
// A dropped connection, a busy server and a restart are waited out; an upload then goes on from where the server says
// that it stands. Nothing in here knows the page.

const PART = 4 * 2 ** 20;
const AT_ONCE = 4;
const PAUSES = [0.5, 1, 2, 4, 8, 15, 30]; // seconds; the last again and again
const SILENCE = 60; // seconds without a byte, after which a connection counts as dropped

export const UNKNOWN = "unknown"; // the code of an answer that is not ours, such as a proxy's page
export const SIGNED_OUT = "You are not signed in to this account any more. Nothing is lost: sign in, load this page again and choose the same folder.";

const STILL_ANSWERING = "still_answering"; // the same, or what it has to wait for; asked again, it is answered
const LINE_TOO_LONG = "line_too_long"; // the account has too much under way: who sends it can do something about that

class Stopped extends Error {}
class Refused extends Error {}
class Ended extends Error {}

// A photo: {path, file, size, state, sent, words}. States: waiting, sending, done, refused.
export function photoOf(path, file) {
  return { path, file, size: file.size, state: "waiting", sent: 0, stands: 0, place: null, isAnnounced: false, words: "", isQueued: false };
}

export class Sending {
  // `watch`: changed(photo), dropped(words), answered(), ended(words), empty() when nothing is left to send.
  constructor(batch, formToken, watch) {
    this.uploads = `/v1/batches/${batch}/uploads`;
    this.formToken = formToken;
    this.watch = watch;
    this.queue = [];
    this.busy = 0;
    this.drops = 0;
    this.stopper = new AbortController();
  }

  get isPaused() {
    return this.stopper.signal.aborted;
  }

  add(photos) {
    this.queue.push(...photos);
    this.fill();
  }

  pause() {
    this.stopper.abort();
  }

  resume() {
    this.stopper = new AbortController();
    this.drops = 0;
    this.fill();
  }

  fill() {
    while (this.busy < AT_ONCE && this.queue.length && !this.isPaused) this.run(this.queue.shift());
    if (!this.busy && !this.queue.length) this.watch.empty();
  }

  async run(photo) {
    this.busy += 1;
    photo.state = "sending";
    this.watch.changed(photo);
    try {
      await this.send(photo);
      photo.state = "done";
      photo.sent = photo.size;
    } catch (fault) {
      photo.sent = photo.stands;
      if (fault instanceof Refused) {
        photo.state = "refused";
        photo.words = fault.message;
      } else {
        photo.state = "waiting";
        this.queue.unshift(photo);
        if (!(fault instanceof Stopped)) {
          const isFirst = !this.isPaused;
          this.pause();
          if (isFirst) this.watch.ended(fault.message);
        }
      }
    }
    this.busy -= 1;
    this.watch.changed(photo);
    this.fill();
  }

  async send(photo) {
    while (photo.place === null || photo.stands < photo.size) {
      const answer = await this.sendPart(photo);
      const status = answer?.status ?? 0;
      const problem = status < 300 ? null : saidIn(answer.responseText, status);
      if (status === 0 || status === 429 || status >= 500 || problem?.code === STILL_ANSWERING) {
        await this.standAside(photo, answer, problem?.code === LINE_TOO_LONG ? problem.detail : "The server is busy.");
        continue;
      }
      this.drops = 0;
      this.watch.answered();
      if (problem?.code === "wrong_offset") {
        photo.place = null;
        continue;
      }
      if (status === 401 || status === 403) throw new Ended(SIGNED_OUT);
      if ([404, 409, 410].includes(status)) throw new Ended(problem.detail);
      if (problem) throw new Refused(problem.detail);
      photo.place = answer.getResponseHeader("Location") ?? photo.place;
      photo.stands = Number(answer.getResponseHeader("Upload-Offset"));
    }
  }

  // The first time, the first part comes along. After a break nothing does: the answer says where the upload stands.
  sendPart(photo) {
    if (photo.place === null) {
      const part = photo.isAnnounced ? null : photo.file.slice(0, PART);
      photo.isAnnounced = true;
      const name = btoa(String.fromCharCode(...new TextEncoder().encode(photo.path)));
      const headers = { "Upload-Length": photo.size, "Upload-Metadata": `filename ${name}` };
      return this.call("POST", this.uploads, headers, part, photo);
    }
    const part = photo.file.slice(photo.stands, photo.stands + PART);
    return this.call("PATCH", photo.place, { "Upload-Offset": photo.stands }, part, photo);
  }

  async standAside(photo, answer, words) {
    if (answer === null && !(await isReadable(photo.file))) {
      throw new Refused("It cannot be read any more. Was it moved or changed?");
    }
    if (answer?.status === 429) photo.isAnnounced = photo.stands > 0;
    photo.place = null;
    const pause = PAUSES[Math.min(this.drops, PAUSES.length - 1)] * (0.75 + Math.random() / 2);
    const seconds = Number(answer?.getResponseHeader("Retry-After")) || pause;
    this.drops += 1;
    this.watch.dropped(answer === null ? "The connection is gone." : words);
    await sleep(seconds, this.stopper.signal);
  }

  call(method, url, headers, body, photo) {
    const signal = this.stopper.signal;
    if (signal.aborted) throw new Stopped();
    return new Promise((answered, failed) => {
      const request = new XMLHttpRequest();
      let silence;
      let isSilent = false;
      const heard = () => {
        clearTimeout(silence);
        silence = setTimeout(() => { isSilent = true; request.abort(); }, SILENCE * 1000);
      };
      const stop = () => request.abort();
      request.open(method, url);
      request.setRequestHeader("Tus-Resumable", "1.0.0");
      request.setRequestHeader("X-Form-Token", this.formToken);
      for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
      if (body !== null) request.setRequestHeader("Content-Type", "application/offset+octet-stream");
      request.upload.onprogress = (event) => {
        heard();
        photo.sent = Math.min(photo.size, photo.stands + event.loaded);
        this.watch.changed(photo);
      };
      request.onload = () => answered(request);
      request.onerror = () => answered(null);
      request.onabort = () => (isSilent ? answered(null) : failed(new Stopped()));
      request.onloadend = () => { clearTimeout(silence); signal.removeEventListener("abort", stop); };
      signal.addEventListener("abort", stop);
      heard();
      request.send(body);
    });
  }
}

// A request with a small answer, made again until the server can give one. Returns {status, ...its JSON}.
export async function ask(method, url, formToken, onTrouble, body, headers = {}) {
  const all = { "X-Form-Token": formToken, ...headers };
  if (body !== undefined) all["Content-Type"] = "application/json";
  for (let drops = 0; ; drops += 1) {
    const answer = await fetch(url, { method, headers: all, body: body && JSON.stringify(body) }).catch(() => null);
    const text = await answer?.text().catch(() => null);
    const said = typeof text === "string" && answer.status < 500 ? saidIn(text || "{}", answer.status) : null;
    const isLost = said === null || said.code === STILL_ANSWERING || (answer.ok && said.code === UNKNOWN); // a hotel's page
    if (!isLost) return { ...said, status: answer.status };
    onTrouble(answer ? "The server is out of order at this moment." : "The server cannot be reached.");
    await sleep(PAUSES[Math.min(drops, PAUSES.length - 1)], new AbortController().signal);
  }
}

function saidIn(text, status) {
  try {
    return JSON.parse(text);
  } catch {
    return { code: UNKNOWN, detail: `The server answered with ${status}.` };
  }
}

async function isReadable(file) {
  try {
    await file.slice(0, 1).arrayBuffer();
    return true;
  } catch {
    return false;
  }
}

// Sleeps, but not past the moment when the connection is there again.
function sleep(seconds, signal) {
  return new Promise((rested, failed) => {
    const end = (how) => () => {
      clearTimeout(timer);
      removeEventListener("online", wake);
      signal.removeEventListener("abort", stop);
      how();
    };
    const wake = end(rested);
    const stop = end(() => failed(new Stopped()));
    const timer = setTimeout(wake, seconds * 1000);
    addEventListener("online", wake);
    signal.addEventListener("abort", stop);
  });
}
