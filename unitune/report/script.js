"use strict";
// Filter the cases without reloading, select a filter by address, and search the cases. The page is
// complete without JavaScript.
const section = document.querySelector(".filter")?.parentElement;
const groups = [...document.querySelectorAll(".group")];
const filters = [...document.querySelectorAll(".filter a")];
const find = document.querySelector(".find");
let chosen = "cases";

const mark = () => (chosen.startsWith("only-") ? chosen.slice(5) : "");

function show() {
  const wanted = find.querySelector("input").value.trim().toLowerCase();
  let found = 0;
  for (const group of groups) {
    let here = 0;
    for (const row of group.querySelectorAll("tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      if (!row.hidden && (!mark() || row.classList.contains(mark()))) here += 1;
    }
    group.hidden = mark() ? !here : chosen !== "cases" && group.id !== chosen;
    if (here && (wanted || mark())) {
      group.open = true;
      for (const rest of group.querySelectorAll(".rest")) rest.open = true;
    }
    if (!group.hidden) found += here;
  }
  find.querySelector("output").textContent = wanted ? found + " found" : "";
}

function choose(id) {
  chosen = id;
  section.dataset.only = mark();
  for (const group of groups) if (group.id === id) group.open = true;
  for (const filter of filters) {
    if (filter.hash === "#" + id) filter.setAttribute("aria-current", "true");
    else filter.removeAttribute("aria-current");
  }
  show();
}

if (section) {
  const names = filters.map((filter) => filter.hash.slice(1));
  for (const link of section.querySelectorAll(".filter a, .only a")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      choose(link.hash.slice(1));
    });
  }
  find.hidden = false;
  find.querySelector("input").addEventListener("input", show);
  choose(names.includes(location.hash.slice(1)) ? location.hash.slice(1) : "cases");
}
