// The drift page: cells open their rows, what is unchanged is never drawn again, the address says what is shown.

import { markDifferences } from "./texts.js";

const here = () => new URLSearchParams(location.search);
const $ = (id) => document.getElementById(id);
const matrix = $("matrix"), rows = $("rows"), live = $("live"), readout = $("readout");
let known = JSON.parse($("known").textContent);

async function text(address) {
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `the server answered ${answer.status}`);
  return answer.text();
}

// Rows.

let latest = 0;   // an answer that comes after rows were closed, or others asked for, is dropped

async function showRows(query, { move = true } = {}) {
  const mine = ++latest;
  try {
    const found = await text(`/drift/rows?${query}`);
    if (mine !== latest) return;
    rows.innerHTML = found;   // made by the server from templates that escape
  } catch (error) {
    if (mine !== latest) return;
    rows.textContent = `These rows cannot be shown: ${error.message}`;
  }
  markDifferences(rows);
  markOpen();
  if (move) { rows.scrollIntoView({ block: "start" }); rows.focus({ preventScroll: true }); }
}

function open(query) {
  history.pushState(null, "", `?${query}#rows`);
  showRows(query);
}

function close() {
  const query = here();
  for (const name of ["cell", "turn", "start"]) query.delete(name);
  history.pushState(null, "", `?${query}`);
  latest++;
  rows.replaceChildren();
  markOpen();
  matrix.querySelector("td[tabindex='0']")?.focus();
}

window.addEventListener("popstate", () => {
  if (here().get("cell")) showRows(here(), { move: false });
  else { latest++; rows.replaceChildren(); markOpen(); }
});

document.addEventListener("click", (event) => {
  if (event.ctrlKey || event.metaKey || event.shiftKey) return;
  const link = event.target.closest("a");
  const address = link?.getAttribute("href") ?? link?.href?.baseVal;
  if (link?.hasAttribute("data-close")) { event.preventDefault(); close(); return; }
  if (!address?.startsWith("?")) return;
  const query = new URLSearchParams(address.slice(1).split("#")[0]);
  if (!query.get("cell")) return;
  event.preventDefault();
  if (here().get("against")) query.set("against", here().get("against"));
  open(query);
});

// The matrix: one stop for Tab, arrows inside.

const cells = () => [...matrix.querySelectorAll("tbody tr")].map((row) => [...row.querySelectorAll("td")]);

function told(cell) {
  return cell.title || cell.dataset.told || "";
}

function enter() {
  const all = cells();
  const wanted = matrix.dataset.at?.split(",").map(Number) ?? [0, (all[0]?.length ?? 1) - 1];
  const cell = all[wanted[0]]?.[wanted[1]] ?? all[0]?.[0];
  matrix.querySelectorAll("td[tabindex]").forEach((one) => one.removeAttribute("tabindex"));
  cell?.setAttribute("tabindex", "0");
  for (const head of matrix.querySelectorAll("thead th[data-policy]")) {
    if (head.querySelector("button")) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.setAttribute("aria-label", `pin ${head.title} as baseline`);
    head.append(button);
  }
  markOpen();
}

function markOpen() {
  matrix.querySelectorAll(".open").forEach((one) => one.classList.remove("open"));
  const wanted = here().get("cell");
  if (!wanted) return;
  const [policy, ...rest] = wanted.split(" "), suite = rest.pop(), number = rest.join(" ");
  const heads = [...matrix.querySelectorAll("thead th")].findIndex((head) => head.dataset.policy === policy);
  for (const row of matrix.querySelectorAll("tbody tr")) {
    if (heads > 0 && row.dataset.suite === suite && row.dataset.number === number) row.cells[heads]?.classList.add("open");
  }
}

function addressOf(cell) {
  if (!cell.textContent.trim() && !cell.dataset.has) return null;
  const row = cell.parentElement, head = matrix.querySelectorAll("thead th")[cell.cellIndex];
  if (!row.dataset.suite || !head?.dataset.policy) return null;
  const query = new URLSearchParams({ policy: matrix.dataset.policy, cell: `${head.dataset.policy} ${row.dataset.number} ${row.dataset.suite}` });
  for (const name of ["within", "against"]) if (here().get(name)) query.set(name, here().get(name));
  return query;
}

matrix.addEventListener("click", (event) => {
  const button = event.target.closest("thead button");
  if (button) {
    const query = here();
    query.set("policy", matrix.dataset.policy);
    query.set("against", button.closest("th").dataset.policy);
    location.search = query;
    return;
  }
  const cell = event.target.closest("td");
  if (!cell || event.target.closest("a")) return;
  const query = addressOf(cell);
  if (query) open(query);
});

matrix.addEventListener("keydown", (event) => {
  const cell = event.target.closest("td");
  if (!cell) return;
  const all = cells(), down = all.findIndex((row) => row.includes(cell)), across = all[down].indexOf(cell);
  const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1], Home: [0, -across], End: [0, all[down].length - 1 - across] };
  if (event.key === "Enter" || event.key === " ") {
    const query = addressOf(cell);
    event.preventDefault();
    if (query) open(query);
    return;
  }
  const by = moves[event.key];
  if (!by) return;
  event.preventDefault();
  const next = all[down + by[0]]?.[across + by[1]];
  if (!next) return;
  cell.removeAttribute("tabindex");
  next.setAttribute("tabindex", "0");
  matrix.dataset.at = `${down + by[0]},${across + by[1]}`;
  next.focus();
});

for (const name of ["focusin", "mouseover"]) {
  matrix.addEventListener(name, (event) => {
    const cell = event.target.closest("td");
    if (cell) readout.textContent = told(cell);
  });
}

document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && rows.hasChildNodes()) close();
  if (event.key === "j" || event.key === "k") {
    const items = [...rows.querySelectorAll(".rows > li")];
    if (!items.length) return;
    const at = items.indexOf(document.activeElement);
    const next = items[Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), items.length - 1)];
    next.tabIndex = -1;
    next.focus();
  }
});

// What changed is fetched; what did not is left alone.

const QUICK_MS = 3000, SLOW_MS = 15000;
let timer;

// The policy of this page stays it when a newer one is made.
function shown() {
  const query = here();
  query.set("policy", matrix.dataset.policy);
  return query;
}

function tellOf(now) {
  live.textContent = now.running ? "a round is running" : "";
  if (here().get("policy") || now.newest.startsWith(matrix.dataset.policy)) return;
  const link = document.createElement("a");
  const query = here();
  query.delete("cell");
  link.href = `/drift?${query}`;
  link.textContent = "a newer policy is there: show it";
  live.replaceChildren(link);
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  let wait = SLOW_MS;
  try {
    const answer = await fetch(`/drift/state?${shown()}`);
    if (answer.ok) {
      const now = await answer.json();
      wait = now.running ? QUICK_MS : SLOW_MS;
      tellOf(now);
      for (const [name, hash] of Object.entries(now.parts)) {
        if (known.parts[name] === hash) continue;
        const place = document.querySelector(`[data-part="${name}"]`);
        if (place) place.innerHTML = await text(`/drift/part/${name}?${shown()}`);
        if (name === "matrix") enter();
      }
      if (known.late !== now.late) LATE.forEach(later);
      known = now;
    } else live.textContent = answer.status === 401 ? "logged out" : "the server does not answer; trying again";
  } catch {
    live.textContent = "the server does not answer; trying again";
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}
document.addEventListener("visibilitychange", refresh);

// Parts that take longer come once the page is shown, and anew when the workspace changed; drawn again where they differ.
const LATE = ["averages", "people", "rewards"], drawn = {};

async function later(id) {
  const place = $(id);
  if (!place) return;
  try {
    const found = await text(place.dataset.source);
    if (drawn[id] !== found) place.innerHTML = drawn[id] = found;
  } catch (error) {
    known.late = "";   // asked for again at the next look; what was read stays till then
    if (!(id in drawn)) place.textContent = error.message;
  }
}

for (const select of document.querySelectorAll(".choose select")) select.addEventListener("change", () => select.form.requestSubmit());
for (const place of document.querySelectorAll('[data-part="lineage"]')) place.scrollLeft = place.scrollWidth;
enter();
markDifferences(rows);
LATE.forEach(later);
timer = setTimeout(refresh, QUICK_MS);
