// Keeps the numbers of a running batch fresh, and moves the line between before and after. Without this script the page
// says the same when it is loaded again, and shows half of each.
"use strict";
const PAUSE = 5000; // milliseconds before a stream that was refused is asked for again
const running = document.querySelector("[data-events]");
if (running) {
  const news = running.querySelector("[data-news]"); // always there: what is put into it is read aloud
  const tell = () => { if (!news.firstChild) news.append(running.querySelector("template").content.cloneNode(true)); };
  const still = running.querySelector("[data-still]");
  const out = running.querySelector("[data-out]");
  const again = async () => {
    const answer = await fetch(running.dataset.events.replace(/\/events$/, "")).catch(() => null);
    const isOurs = answer?.headers.get("Content-Type") === "application/problem+json"; // a proxy knows no page either
    out.hidden = !(isOurs && [401, 404].includes(answer.status));
    still.hidden = !out.hidden;
    if (out.hidden) setTimeout(watch, PAUSE);
  };
  let first = null;
  let misses = 0;
  const watch = () => {
    const events = new EventSource(running.dataset.events);
    events.addEventListener("open", () => { misses = 0; still.hidden = true; });
    events.addEventListener("error", () => {
      const isRefused = events.readyState === EventSource.CLOSED; // by a proxy while the server starts anew: a browser gives up
      misses += 1;
      if (isRefused) again();
      else if (misses > 1) still.hidden = false; // one miss is how every stream ends after a while
    });
    events.addEventListener("progress", (event) => {
      const batch = JSON.parse(event.data);
      for (const name of ["done", "items", "failed"]) running.querySelector(`[data-count=${name}]`).textContent = batch[name].toLocaleString("en");
      const bar = running.querySelector("progress");
      bar.max = Math.max(batch.items, 1);
      bar.value = batch.done + batch.failed;
      first ??= bar.value;
      if (bar.value !== first) tell();
    });
    events.addEventListener("end", () => {
      events.close();
      if (document.activeElement?.closest("main *")) tell(); // a reload would take away what somebody types, or is at
      else location.reload();
    });
  };
  watch();
}
for (const slider of document.querySelectorAll(".over input")) {
  const show = () => slider.parentElement.style.setProperty("--at", `${slider.value}%`);
  slider.addEventListener("input", show);
  show(); // a page that is gone back to keeps where sliders stood
}
