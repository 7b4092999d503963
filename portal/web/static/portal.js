// Keeps the time that is left to an erasure current. The page says it without this script, too.
"use strict";
function say(element) {
  const minutes = Math.max(0, Math.floor((Date.parse(element.dataset.until) - Date.now()) / 60000));
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  element.textContent = hours ? `${hours} h ${String(rest).padStart(2, "0")} min` : `${rest} min`;
}
const countdowns = document.querySelectorAll("[data-until]");
if (countdowns.length) setInterval(() => countdowns.forEach(say), 30000);
