// Keeps the numbers of a running batch fresh. The page says it without this script, too, when it is loaded again.
"use strict";
const place = document.querySelector("[data-events]");
if (place) {
  const events = new EventSource(place.dataset.events);
  events.addEventListener("progress", (event) => {
    const batch = JSON.parse(event.data);
    for (const name of ["done", "items", "failed"]) place.querySelector(`[data-count=${name}]`).textContent = batch[name];
    const bar = place.querySelector("progress");
    bar.max = Math.max(batch.items, 1);
    bar.value = batch.done + batch.failed;
  });
  events.addEventListener("end", () => { events.close(); location.reload(); });
}
