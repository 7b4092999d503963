// On every page: the time that is left to an erasure stays current, as does a page that is gone back to, and a form that
// is on its way is not sent again by a second press. The pages say and do the same without this script.
"use strict";
const AGAIN = 10000; // milliseconds after which a press counts anew, should no answer have come
function say(element) {
  const minutes = Math.max(0, Math.floor((Date.parse(element.dataset.until) - Date.now()) / 60000));
  const hours = Math.floor(minutes / 60);
  const rest = minutes % 60;
  element.textContent = hours ? `${hours} h ${String(rest).padStart(2, "0")} min` : `${rest} min`;
}
const countdowns = document.querySelectorAll("[data-until]");
if (countdowns.length) setInterval(() => countdowns.forEach(say), 30000);

const forget = (form) => { delete form.dataset.sent; };
document.addEventListener("submit", (event) => {
  const form = event.target;
  if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
  if (form.dataset.sent !== undefined) return event.preventDefault();
  form.dataset.sent = "";
  setTimeout(forget, AGAIN, form);
});
// A page that is gone back to, as it was, may say that what is on is off. What was chosen on the upload page stays. It is
// asked for anew, where it was, and not loaded again: what answered a form would send the form once more.
const AT = "at";
if (sessionStorage.getItem(AT) !== null) {
  scrollTo(0, sessionStorage.getItem(AT));
  sessionStorage.removeItem(AT);
}
addEventListener("pageshow", (event) => {
  if (event.persisted && !document.querySelector("#upload")) {
    sessionStorage.setItem(AT, scrollY);
    location.replace(location.pathname + location.search);
  }
  document.querySelectorAll("form[data-sent]").forEach(forget);
});
