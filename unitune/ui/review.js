"use strict";
// Keys of the review. Every key is also a button or a link, so that the page works without them.
const VERDICTS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", "?": "unsure" };
const note = document.querySelector("textarea[name=note]");
let sent = false;

document.querySelector("form.pair")?.addEventListener("submit", (event) => {
  if (sent) event.preventDefault(); // one verdict for each page
  sent = true;
});

// A page that the browser kept may be decided again.
addEventListener("pageshow", () => {
  sent = false;
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target === note) {
    if (event.key === "Escape") note.blur();
    return;
  }
  const verdict = VERDICTS[event.key];
  if (verdict) {
    event.preventDefault();
    document.querySelector(`button[value=${verdict}]`)?.click();
  } else if (event.key === "u") {
    document.getElementById("undo")?.click();
  } else if (event.key === "n" && note) {
    event.preventDefault();
    note.focus();
  }
});
