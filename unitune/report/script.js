"use strict";
// The page is whole without this. Here: the outcome links become filters, and cases can be searched.
const groups = [...document.querySelectorAll(".group")];
const filters = [...document.querySelectorAll(".filter a")];
const find = document.querySelector(".find");

function choose(id) {
  for (const group of groups) {
    group.hidden = id !== "cases" && group.id !== id;
    if (group.id === id) group.open = true;
  }
  for (const filter of filters) {
    if (filter.hash === "#" + id) filter.setAttribute("aria-current", "true");
    else filter.removeAttribute("aria-current");
  }
}

function search(query) {
  const wanted = query.trim().toLowerCase();
  let found = 0;
  for (const group of groups) {
    let here = 0;
    for (const row of group.querySelectorAll("tbody tr")) {
      row.hidden = !row.textContent.toLowerCase().includes(wanted);
      if (!row.hidden) here += 1;
    }
    if (wanted && here) group.open = true;
    found += here;
  }
  find.querySelector("output").textContent = wanted ? found + " found" : "";
}

for (const filter of filters) {
  filter.addEventListener("click", (event) => {
    event.preventDefault();
    choose(filter.hash.slice(1));
  });
}

if (find) {
  find.hidden = false;
  find.querySelector("input").addEventListener("input", (event) => search(event.target.value));
  choose("cases");
}
