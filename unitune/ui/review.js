"use strict";
// Keys of the review. Every key is also a button or a link, so that the page works without them.
const VERDICTS = { ArrowLeft: "left", ArrowRight: "right", ArrowDown: "tie", "?": "unsure" };
const CLAUSE_VERDICTS = { p: "pass", f: "fail", "?": "unsure" };
const note = document.querySelector("textarea[name=note]");
const form = document.querySelector("form.pair");
const clauses = [...document.querySelectorAll(".clause")];
let sent = false;
let current = 0; // clause that the keys decide

function show(at) {
  current = Math.max(0, Math.min(at, clauses.length - 1));
  clauses.forEach((clause, number) => clause.classList.toggle("current", number === current));
  clauses[current].scrollIntoView({ block: "nearest" });
}

// Return whether a key was for the clauses. The last verdict sends all of them.
function decideClause(key) {
  const verdict = CLAUSE_VERDICTS[key];
  if (verdict) {
    clauses[current].querySelector(`input[value=${verdict}]`).checked = true;
    if (current === clauses.length - 1) form.requestSubmit();
    else show(current + 1);
  } else if (key === "ArrowDown") show(current + 1);
  else if (key === "ArrowUp" || (key === "u" && current)) show(current - 1);
  else if (key === "Enter") form.requestSubmit();
  else return false;
  return true;
}

if (clauses.length) show(0);
clauses.forEach((clause, number) => clause.addEventListener("change", () => show(number + 1)));

form?.addEventListener("submit", (event) => {
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
  const verdict = clauses.length ? undefined : VERDICTS[event.key];
  const opens = event.key === "Enter" && event.target.closest("a, summary"); // its own key
  if (clauses.length && !opens && decideClause(event.key)) {
    event.preventDefault();
  } else if (verdict) {
    event.preventDefault();
    document.querySelector(`button[value=${verdict}]`)?.click();
  } else if (event.key === "u") {
    document.getElementById("undo")?.click();
  } else if (event.key === "n" && note) {
    event.preventDefault();
    note.focus();
  }
});
