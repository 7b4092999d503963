// The upload page: choose, send, watch, seal. What has come is asked of the server, so a page that is loaded again knows
// it: choosing the same folder once more sends what is missing. Nothing is kept in the browser.
import { freePath, ofDrop, ofPicker, OTHER_SYSTEMS } from "./upload_files.js";
import { ask, photoOf, Sending, SIGNED_OUT, UNKNOWN } from "./upload_sending.js";

const page = document.querySelector("#upload");
const find = (name) => page.querySelector(`[data-${name}]`);
const suffixes = new Set(page.dataset.suffixes.split(" "));
const options = page.querySelector("form");
const formToken = options.elements.form_token.value;
const rowShape = page.querySelector("template").content.firstElementChild;
const AT_A_TIME = 250; // rows made before the page may draw again
const SAME_NAME = "the same name as another";
const LOST = ["unreadable files", "unreadable folders", OTHER_SYSTEMS, SAME_NAME]; // reasons to leave photos out

let batch = page.dataset.batch;
let sending = null;
let isOpening = false;
let isSealing = false;
let taking = 0; // how many choices are being looked through
const photos = new Map();
const leftOut = new Map();
const rows = new Map();
const stale = new Set();
const here = new Map(); // what the server had of this batch when the page was loaded: path -> {size, bytes_received}
const total = { count: 0, bytes: 0, done: 0, sent: 0, refused: 0 };
const pace = { since: 0, sent: 0 };

// --- what was chosen

const knowsWhatIsHere = batch ? readWhatIsHere() : Promise.resolve();

async function readWhatIsHere() {
  let after = "";
  while (after !== null) {
    const answer = await ask("GET", `/v1/batches/${batch}/uploads?after=${after}`, formToken, say);
    if (answer.status !== 200) return alarm(answer.detail);
    for (const each of answer.uploads) here.set(each.path, each);
    after = answer.next;
  }
  const whole = [...here.values()].filter((each) => each.bytes_received === each.size).length;
  if (here.size) say(`${counted(whole)} of this batch ${whole === 1 ? "is" : "are"} here already. Choose the same folder again to go on with what is missing.`);
}

async function take(found) {
  if (isSealing) return alarm("The batch is being closed, so what you chose now is not in it. Send it as another batch.");
  taking += 1;
  find("offer").hidden = true;
  say("Looking through what you chose.");
  const [{ photos: chosen, leftOut: reasons }] = await Promise.all([found, knowsWhatIsHere]);
  for (const [reason, count] of reasons) leftOut.set(reason, (leftOut.get(reason) ?? 0) + count);
  const fresh = [];
  for (const [wanted, file] of chosen.sort(([one], [other]) => (one < other ? -1 : one > other ? 1 : 0))) {
    const path = freePath(wanted, file, (each) => photos.get(each)?.file ?? (wanted.includes("/") ? undefined : here.get(each)));
    if (path === null) leftOut.set(SAME_NAME, (leftOut.get(SAME_NAME) ?? 0) + 1);
    if (path === null || photos.has(path)) continue;
    const photo = photoOf(path, file);
    const known = here.get(path);
    if (known?.size === photo.size && known.bytes_received === photo.size) {
      photo.state = "done";
      photo.sent = photo.size;
    }
    photo.isAnnounced = known?.size === photo.size;
    photos.set(path, photo);
    fresh.push(photo);
  }
  await showRows(fresh);
  showLeftOut();
  taking -= 1;
  find("chosen").hidden = !photos.size;
  say(photos.size ? `${counted(photos.size)} chosen.` : `There is no photo in what you chose. Photos end in ${[...suffixes].join(", ")}.`);
  if (!photos.size || isOpening) return;
  if (batch) await begin();
  else find("start").disabled = false;
}

// --- sending

async function begin() {
  find("start").disabled = true;
  if (!batch && !(await open())) return;
  options.hidden = true;
  find("not-begun").hidden = true;
  find("going").hidden = false;
  pace.since = performance.now();
  pace.sent = total.sent;
  sending ??= new Sending(batch, formToken, watch);
  const fresh = [...rows.keys()].filter((each) => each.state === "waiting" && !each.isQueued);
  for (const each of fresh) each.isQueued = true;
  say(`Sending ${counted(fresh.length)}.`);
  sending.add(fresh);
}

async function open() {
  alarm("");
  isOpening = true;
  const answer = await ask("POST", "/v1/batches", formToken, say, wanted(), { "Idempotency-Key": crypto.randomUUID?.() ?? String(Math.random()) });
  isOpening = false;
  if (answer.status !== 201) {
    find("start").disabled = false;
    return alarm(isOut(answer) ? SIGNED_OUT : answer.detail.replace(/^body\.options: /, ""));
  }
  batch = answer.batch_id;
  history.replaceState(null, "", `/batches/${batch}/upload`);
  return true;
}

function isOut(answer) {
  return (answer.status === 401 || answer.status === 403) && answer.code !== UNKNOWN;
}

function wanted() {
  const chosen = new FormData(options);
  const has = (name) => chosen.has(name);
  const behind = chosen.get("background"); // null, like all in that group, for a zip
  return {
    industry: chosen.get("industry") || null,
    options: {
      format: chosen.get("format"),
      channels: has("mask_only") ? "alpha" : "rgba",
      size: chosen.get("size") ?? "auto",
      bg_color: behind === "colour" ? chosen.get("colour") : behind || null,
      crop: chosen.get("framing") === "crop",
      crop_margin: chosen.get("margin") ?? "0px",
      consistent: chosen.get("framing") === "consistent",
      shadow: has("shadow"),
      refine: has("refine"),
      despill: has("despill"),
    },
  };
}

let wasDropped = false;
const watch = {
  changed: (photo) => { if (!stale.size) requestAnimationFrame(draw); stale.add(photo); },
  dropped(words) {
    wasDropped = true;
    say(`${words} Nothing is lost; trying again by itself.`);
  },
  answered() {
    if (wasDropped) say("The connection is back. Going on.");
    wasDropped = false;
  },
  ended: (words) => { showPaused(); say(""); alarm(words); },
  empty: () => queueMicrotask(() => { draw(); finish(); }), // not with the next picture: in the background there is none
};

function finish() {
  if (isSealing || taking || sending.isPaused || total.done + total.refused < total.count) return;
  const lost = LOST.reduce((sum, reason) => sum + (leftOut.get(reason) ?? 0), 0);
  if (!total.refused && !lost) return seal();
  say("");
  const refused = total.refused ? [`${counted(total.refused)} could not be taken: see the list.`] : [];
  const unread = lost ? ["Some of what you chose was left out: see above the list."] : [];
  offer([...refused, ...unread].join(" "), "Go on without", seal);
}

async function seal() {
  isSealing = true;
  find("pause").hidden = true;
  say("All photos are here. Closing the batch.");
  const answer = await ask("POST", `/v1/batches/${batch}/seal`, formToken, say);
  if (answer.status === 200) return location.assign(`/batches/${batch}`);
  isSealing = false;
  find("pause").hidden = false;
  say("");
  if (isOut(answer)) return alarm(SIGNED_OUT);
  if (answer.code !== "wrong_state") return offer(answer.detail, "Try again", seal);
  here.clear();
  await readWhatIsHere();
  const missing = [...here.values()].filter((each) => each.bytes_received < each.size);
  if (!missing.length) return alarm(answer.detail);
  offer(`${counted(missing.length)} of this batch began to come earlier and ${missing.length === 1 ? "is" : "are"} not complete. Choose their folder again, or`, "Leave them out", async () => {
    for (const each of missing) await ask("DELETE", `/v1/batches/${batch}/items/${each.path.split("/").map(encodeURIComponent).join("/")}`, formToken, say);
    await seal();
  });
}

// --- what is shown

async function showRows(fresh) {
  const list = find("list");
  for (let first = 0; first < fresh.length; first += AT_A_TIME) {
    const some = document.createDocumentFragment();
    for (const photo of fresh.slice(first, first + AT_A_TIME)) {
      const row = rowShape.cloneNode(true);
      row.firstElementChild.textContent = photo.path;
      rows.set(photo, { row, counted: 0, state: "waiting" });
      total.count += 1;
      total.bytes += photo.size;
      stale.add(photo);
      some.append(row);
    }
    list.append(some);
    await new Promise((goOn) => { requestAnimationFrame(goOn); setTimeout(goOn, 200); }); // in the background none is drawn
    page.dataset.frames = Number(page.dataset.frames ?? 0) + 1;
  }
  draw();
}

function draw() {
  for (const photo of stale) drawRow(photo, rows.get(photo));
  stale.clear();
  const bar = find("bar");
  bar.max = Math.max(1, total.bytes);
  bar.value = total.sent;
  find("count").textContent = `${total.done.toLocaleString("en")} of ${counted(total.count)}`;
  find("bytes").textContent = `${megabytes(total.sent)} of ${megabytes(total.bytes)}${timeLeft()}`;
}

function drawRow(photo, shown) {
  total.sent += photo.sent - shown.counted;
  shown.counted = photo.sent;
  const [, state] = shown.row.children;
  if (photo.state !== shown.state) {
    total.done += (photo.state === "done") - (shown.state === "done");
    total.refused += (photo.state === "refused") - (shown.state === "refused");
    shown.state = photo.state;
    shown.row.dataset.state = photo.state;
    if (photo.state === "refused") find("list").prepend(shown.row);
  }
  const percent = photo.size ? Math.floor((100 * photo.sent) / photo.size) : 0;
  state.textContent = photo.words || (photo.state === "sending" || (percent && photo.state === "waiting") ? `${percent} %` : photo.state);
}

function timeLeft() {
  const seconds = (performance.now() - pace.since) / 1000;
  const sent = total.sent - pace.sent;
  if (!sending || sending.isPaused || seconds < 5 || sent <= 0) return "";
  const left = ((total.bytes - total.sent) * seconds) / sent;
  return left > 90 ? `, about ${Math.ceil(left / 60)} minutes left` : `, about ${Math.ceil(left / 10) * 10} seconds left`;
}

function showLeftOut() {
  const count = [...leftOut.values()].reduce((sum, each) => sum + each, 0);
  find("left-out").textContent = count ? `Left out: ${[...leftOut].map(([reason, many]) => `${many} × ${reason}`).join(", ")}.` : "";
}

function showPaused() {
  find("pause").textContent = sending.isPaused ? "Go on" : "Pause";
}

function say(words) {
  find("status").textContent = words;
}

function alarm(words) {
  const place = find("alarm");
  place.textContent = words;
  place.hidden = !words;
}

function offer(words, button, act) {
  const place = find("offer");
  place.querySelector("p").textContent = words;
  const press = place.querySelector("button");
  press.textContent = button;
  press.onclick = () => { place.hidden = true; act(); };
  place.hidden = false;
}

function counted(count) {
  return `${count.toLocaleString("en")} photo${count === 1 ? "" : "s"}`;
}

function megabytes(bytes) {
  return bytes < 1e9 ? `${(bytes / 1e6).toFixed(1)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;
}

// --- what a person does

for (const picker of page.querySelectorAll("input[type=file]")) {
  const taken = () => { take(Promise.resolve(ofPicker(picker.files, suffixes))); picker.value = ""; };
  picker.addEventListener("change", taken);
  if (picker.files.length) taken(); // chosen while this script was still on its way
}
const place = find("drop");
const takeDropped = () => {
  place.classList.remove("is-over");
  for (const entries of window.dropped.splice(0)) take(ofDrop(entries, suffixes));
};
addEventListener("dragover", () => place.classList.add("is-over"));
addEventListener("dragleave", (event) => { if (!event.relatedTarget) place.classList.remove("is-over"); });
addEventListener("drop", takeDropped);
takeDropped(); // what came while this script was still on its way
find("clear").addEventListener("click", () => {
  if (taking || isOpening) return; // the rows of what was chosen are still being made, or it is on its way
  for (const each of [photos, leftOut, rows, stale]) each.clear();
  Object.assign(total, { count: 0, bytes: 0, done: 0, sent: 0, refused: 0 });
  find("list").replaceChildren();
  find("chosen").hidden = true;
  find("start").disabled = true;
  alarm("");
  say("Nothing is chosen.");
  place.querySelector("input").focus(); // the button that was pressed is gone
});
options.addEventListener("submit", (event) => { event.preventDefault(); begin(); });
const fit = () => {
  const isZip = options.elements.format.value === "zip"; // it holds the photo as it came, so nothing else can be asked of it
  for (const each of options.querySelectorAll("[data-not-zip]")) each.disabled = isZip;
  options.elements.colour.disabled = options.elements.background.value !== "colour";
  options.elements.margin.disabled = options.elements.framing.value !== "crop";
};
options.addEventListener("change", fit);
fit(); // to what was chosen while this script was still on its way
find("pause").addEventListener("click", () => {
  if (sending.isPaused) {
    alarm("");
    sending.resume();
    say("Going on.");
  } else {
    sending.pause();
    say("Paused. What has come is kept.");
  }
  showPaused();
});
addEventListener("beforeunload", (event) => {
  if (sending && !isSealing && total.done < total.count) event.preventDefault();
});
