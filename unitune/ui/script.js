"use strict";
// Without JavaScript, the page reloads itself regularly. This script replaces only the parts that
// change, so that readers keep their scroll position.
const PAUSE_SECONDS = 2;

async function refresh() {
  const response = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!response.ok) throw new Error(response.statusText);
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  for (const part of document.querySelectorAll("[data-live]")) {
    const now = page.getElementById(part.id);
    if (now && now.outerHTML !== part.outerHTML) part.replaceWith(document.importNode(now, true));
  }
  return page.querySelector("#live") !== null;
}

async function follow() {
  let goesOn = true;
  if (!document.hidden) {
    try {
      goesOn = await refresh();
      if (!goesOn) location.reload();
    } catch {
      const live = document.getElementById("live");
      if (live && !live.dataset.lost) {
        live.dataset.lost = "true";
        live.textContent += "; unitune ui does not answer";
      }
    }
  }
  if (goesOn) setTimeout(follow, PAUSE_SECONDS * 1000);
}

setTimeout(follow, PAUSE_SECONDS * 1000);
