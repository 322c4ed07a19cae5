// The judging page: shows items from a buffer, takes a verdict with one key, shows the next at once, saves behind.

import { Outbox } from "./outbox.js";
import { actionOf, actions, choose, forget, keyOf } from "./keys.js";
import { pieces, side } from "./diff.js";

const $ = (id) => document.getElementById(id);
const AHEAD = 4, LOOK_AGAIN_MS = 30000;
const VERDICTS = {
  pairwise: [
    ["first3", "first", 3, "First: much better"], ["first2", "first", 2, "First: better"], ["first1", "first", 1, "First: slightly"],
    ["tie", "tie", null, "Equally good"],
    ["second1", "second", 1, "Second: slightly"], ["second2", "second", 2, "Second: better"], ["second3", "second", 3, "Second: much better"],
    ["neither", "neither", null, "Both bad"], ["skip", "skip", null, "Skip …"],
  ],
  thumb: [["up", "up", null, "Good"], ["down", "down", null, "Bad"], ["skip", "skip", null, "Skip …"]],
};
const FLAGS = { pii: "personal data", broken: "broken", offensive: "offensive" };
const NAMES = {
  first3: "First much better", first2: "First better", first1: "First slightly better", tie: "Equally good",
  second1: "Second slightly better", second2: "Second better", second3: "Second much better", neither: "Both bad",
  up: "Good", down: "Bad", skip: "Skip", undo: "Undo the last judgement", edit: "Edit the better answer",
  rationale: "Say why", pii: "Flag personal data", broken: "Flag as broken", offensive: "Flag as offensive",
  plain: "Plain text", diff: "Differences", history: "My judgements", help: "Keys", unveil: "Show blurred answers",
  guideline: "Guideline",
};
const WHY = {
  "nothing open": ["Nothing to judge now", "Everything is judged or held by others. Look again later."],
  "trial failed": ["The trial was not passed", "Talk to whoever leads the project."],
  "trial under way": ["The trial goes on", "Finish the items you hold."],
  "daily cap": ["Enough for today", "The project's daily limit is reached. Go on tomorrow."],
  closed: ["The project is closed", "Nothing more is asked."],
};

let project = null, now = null, shownAt = 0, again = false, filling = false, why = "", edited = null, looking = 0;
let buffer = [], done = [];
const settled = new Set();
const view = { plain: false, diff: false };

const outbox = new Outbox({
  told: (waiting, error) => {
    if (waiting && error) say(`Not saved yet: ${waiting}. ${error}. It is kept in this browser and sent again.`, "saving");
    else hush("saving");
  },
  confirmed: (said, receipt) => {
    if (receipt.right !== null) say(`${receipt.right ? "Right." : "Not what was expected."} ${receipt.why}`, receipt.right ? "note" : "told");
    if (receipt.late) say("This came after its time had run out and somebody else had judged it: kept, but not used.", "told");
  },
  // What was stored may have opened more: the work after a trial.
  done: () => { if (!now) fill(); },
  refused: (said, message) => say(`Not stored: ${message}`, "told"),
});

// Kinds: "item" goes with the item shown, "note" and "told" stay for one more, "saving" and "server" until it is over.
function say(text, kind = "item") {
  $("message").textContent = text;
  $("message").className = kind;
  $("message").hidden = false;
}

function hush(...kinds) {
  if (kinds.includes($("message").className)) $("message").hidden = true;
}

async function ask(path, body) {
  const how = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(path, how);
  const facts = await answer.json();
  if (!answer.ok) throw new Error(facts.message ?? `the server answered ${answer.status}`);
  return facts;
}

// Holds what is prepared and what is on its way; the server counts both.
async function fill() {
  if (filling || !project) return;
  filling = true;
  try {
    const held = outbox.waiting.filter((one) => !one.again).length;
    const taken = await ask("api/take", { project: project.name, count: Math.min(AHEAD + held, 32) });
    const known = new Set([...settled, ...buffer.map((one) => one.lease), ...outbox.waiting.map((one) => one.lease)]);
    if (now) known.add(now.lease);
    buffer.push(...taken.showings.filter((one) => !known.has(one.lease)));
    why = taken.why;
    about(taken.project);
    hush("server");
  } catch (error) {
    say(`Cannot get the next items: ${error.message}. Trying again.`, "server");
    setTimeout(fill, 3000);
  } finally { filling = false; }
  if (!now && (buffer.length || why)) next();
}

function about(facts) {
  project = facts;
  $("project").textContent = facts.name;
  $("progress").textContent = `${facts.done} of ${facts.items} items done`;
  $("guideline").hidden = !facts.guideline;
  $("guideline").querySelector("div").innerHTML = facts.guideline;
}

function next() {
  now = buffer.shift() ?? null;
  again = false;
  $("item").hidden = !now;
  $("empty").hidden = Boolean(now);
  if (now) draw(now);
  else if (!why) [$("empty").querySelector("h2").textContent, $("empty").querySelector("p").textContent] = ["Loading …", ""];
  else {
    const [title, text] = WHY[why] ?? ["Nothing to judge now", ""];
    $("empty").querySelector("h2").textContent = title;
    $("empty").querySelector("p").textContent = text;
  }
  if (buffer.length < AHEAD - 1 && !why) fill();
  if (!now && why) { clearTimeout(looking); looking = setTimeout(fill, LOOK_AGAIN_MS); }
}

function draw(item, said = null) {
  $("rationale").value = said?.rationale ?? "";
  edited = said?.edit || null;
  $("edit").value = said?.edit ?? "";
  $("editing").hidden = !edited;
  $("prompt").replaceChildren(...item.turns.map(turn));
  $("answers").replaceChildren(...item.answers.map(answer));
  $("answers").classList.toggle("veiled", Boolean(project.warning));
  if (project.warning) say(`${project.warning} Press ${keyOf("unveil")} to show the answers.`);
  if (view.diff) differences();
  drawVerdicts(said);
  $("flags").querySelectorAll("input").forEach((box) => { box.checked = said?.flags.includes(box.value) ?? false; });
  shownAt = performance.now();
  scrollTo(0, 0);
}

function turn(message) {
  const box = Object.assign(document.createElement("div"), { className: "turn" });
  box.append(Object.assign(document.createElement("p"), { className: "role", textContent: message.role }), body(message));
  return box;
}

function answer(text, place) {
  const box = Object.assign(document.createElement("article"), { className: "answer" });
  const title = now.answers.length === 1 ? "Answer" : ["First answer", "Second answer"][place] ?? `Answer ${place + 1}`;
  box.append(Object.assign(document.createElement("h2"), { textContent: title }), body(text));
  return box;
}

// The HTML was made safe by the server; the page's policy runs no script that it does not serve itself.
function body(text) {
  const box = Object.assign(document.createElement("div"), { className: view.plain ? "body plain" : "body", dir: "auto" });
  if (view.plain) box.textContent = text.text;
  else box.innerHTML = text.html;
  return box;
}

function differences() {
  if (now?.answers.length !== 2) return;
  const found = pieces(now.answers[0].text, now.answers[1].text);
  if (!found) return say("The answers differ too much to compare them word by word.");
  $("answers").querySelectorAll(".body").forEach((box, place) => {
    box.className = "body plain";
    box.replaceChildren(side(found, place ? "more" : "less"));
  });
}

function drawVerdicts(said) {
  const offered = VERDICTS[project.mode] ?? [];
  if (!offered.length) say(`Projects of the kind '${project.mode}' cannot be judged on this page yet.`);
  const was = said && offered.findIndex(([, verdict, strength]) => verdict === (said.verdict ?? (said.up ? "up" : "down")) && (strength ?? null) === (said.strength ?? null));
  $("verdicts").replaceChildren(...offered.map(([action, , , label], place) => {
    const radio = document.createElement("div");
    radio.setAttribute("role", "radio");
    radio.setAttribute("aria-checked", String(place === was));
    radio.tabIndex = place === Math.max(was ?? 0, 0) ? 0 : -1;
    radio.dataset.action = action;
    radio.append(`${label} `, Object.assign(document.createElement("kbd"), { textContent: keyOf(action) }));
    return radio;
  }));
}

function decide(action, reason = "") {
  const found = VERDICTS[project?.mode]?.find(([name]) => name === action);
  if (!now || !found) return;
  if (action === "skip" && !reason && !$("skip").open) {
    $("skip-reason").value = $("rationale").value;
    return $("skip").showModal();
  }
  const [, verdict, strength] = found;
  const flags = [...$("flags").querySelectorAll("input:checked")].map((box) => box.value);
  const edit = verdict === "skip" || edited === null ? "" : $("edit").value;
  const said = {
    id: `${now.lease}/${Date.now()}`, lease: now.lease, verdict, strength, flags, edit,
    rationale: reason.trim() || $("rationale").value.trim(), seconds: (performance.now() - shownAt) / 1000, again,
  };
  done.push({ item: now, said });
  settled.add(now.lease);
  hush("item", "note", "told");
  next();
  outbox.add(said);
}

function reopen(item, said) {
  if (now && !again && now !== item) buffer.unshift(now);
  now = item;
  again = true;
  $("item").hidden = false;
  $("empty").hidden = true;
  draw(item, said);
  say("You judged this before. A new verdict replaces the old one.", "note");
}

function undo() {
  const last = done.pop();
  if (last) reopen(last.item, last.said);
  else say("Nothing to undo here. 'My judgements' has earlier ones.");
}

async function past() {
  try {
    const found = await ask(`api/own?project=${encodeURIComponent(project.name)}`);
    $("past").querySelector("ol").replaceChildren(...found.map((own) => {
      const row = document.createElement("li");
      const open = Object.assign(document.createElement("button"), { type: "button" });
      const what = own.said.verdict ?? (own.said.up ? "good" : "bad");
      open.textContent = `${what}${own.said.strength ? ` (${own.said.strength})` : ""}: ${own.turns.at(-1).text.slice(0, 80)}`;
      open.addEventListener("click", () => { $("past").close(); reopen(own, own.said); });
      row.append(open);
      return row;
    }));
    $("past").showModal();
  } catch (error) { say(`Cannot read your judgements: ${error.message}`); }
}

function edit() {
  if (!now) return;
  if (edited === null) {
    const better = $("verdicts").querySelector('[aria-checked="true"]')?.dataset.action ?? document.activeElement?.dataset?.action ?? "first";
    edited = now.answers[better.startsWith("second") ? 1 : 0].text;
    $("edit").value = edited;
  }
  $("editing").hidden = false;
  $("edit").focus();
}

function toggle(name) {
  view[name] = !view[name];
  $(name).setAttribute("aria-pressed", String(view[name]));
  if (!now) return;
  $("answers").replaceChildren(...now.answers.map(answer));
  $("prompt").replaceChildren(...now.turns.map(turn));
  if (view.diff) differences();
}

function labels() {
  for (const name of ["plain", "diff", "undo", "history", "help"]) $(name).querySelector("kbd").textContent = keyOf(name);
  document.querySelector('label[for="rationale"] kbd').textContent = keyOf("rationale");
  $("flags").replaceChildren($("flags").firstElementChild, ...Object.entries(FLAGS).map(([name, text]) => {
    const label = document.createElement("label");
    label.append(Object.assign(document.createElement("input"), { type: "checkbox", value: name }), `${text} `,
      Object.assign(document.createElement("kbd"), { textContent: keyOf(name) }));
    return label;
  }));
  $("keys").querySelector("tbody").replaceChildren(...actions().map((action) => {
    const row = document.createElement("tr"), field = document.createElement("input");
    field.value = keyOf(action);
    field.readOnly = true;
    field.setAttribute("aria-label", NAMES[action]);
    field.addEventListener("keydown", (event) => {
      if (event.key.length !== 1 || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const taken = choose(action, event.key);
      $("keys-told").textContent = taken ? `'${event.key}' is the key of '${NAMES[taken]}' already.` : "";
      field.value = keyOf(action);
    });
    const cell = document.createElement("td");
    cell.append(field);
    row.append(Object.assign(document.createElement("td"), { textContent: NAMES[action] }), cell);
    return row;
  }));
}

const DO = {
  undo, edit, history: past, plain: () => toggle("plain"), diff: () => toggle("diff"), help: () => $("keys").showModal(),
  rationale: () => $("rationale").focus(), unveil: () => $("answers").classList.remove("veiled"),
  guideline: () => { $("guideline").open = !$("guideline").open; },
};

function act(action) {
  if (action in FLAGS) $("flags").querySelector(`[value=${action}]`).click();
  else if (action in DO) DO[action]();
  else decide(action);
}

function offered(action) {
  const verdicts = VERDICTS[project?.mode]?.map(([name]) => name) ?? [];
  return verdicts.includes(action) || action in FLAGS || action in DO;
}

function arrows(event) {
  const radios = [...$("verdicts").children], place = radios.indexOf(event.target.closest("[role=radio]"));
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (place < 0) return false;
  if (event.key === " " || event.key === "Enter") { event.preventDefault(); decide(radios[place].dataset.action); return true; }
  if (!step) return false;
  event.preventDefault();
  const wanted = radios[(place + step + radios.length) % radios.length];
  radios.forEach((radio) => { radio.tabIndex = radio === wanted ? 0 : -1; });
  wanted.focus();
  return true;
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.matches("textarea, input:not([type=checkbox]), select")) {
    if (event.key === "Escape") $("main").focus();
    return;
  }
  if (arrows(event)) return;
  const action = actionOf(event.key, offered);
  if (action) { event.preventDefault(); act(action); }
});
$("verdicts").addEventListener("click", (event) => {
  const radio = event.target.closest("[role=radio]");
  if (radio && event.detail < 2) decide(radio.dataset.action);
});
for (const name of ["plain", "diff", "undo", "history", "help"]) $(name).addEventListener("click", () => DO[name]());
$("drop-edit").addEventListener("click", () => { edited = null; $("editing").hidden = true; });
$("skip").addEventListener("close", () => { if ($("skip").returnValue === "skip") { $("skip").returnValue = ""; decide("skip", $("skip-reason").value.trim() || " "); } });
$("keys").addEventListener("close", () => { labels(); if (now) drawVerdicts(null); });
$("default-keys").addEventListener("click", () => { forget(); labels(); });
$("retry").addEventListener("click", fill);
$("projects").addEventListener("change", () => { location.search = `?project=${encodeURIComponent($("projects").value)}`; });

async function start() {
  labels();
  try {
    const all = await ask("api/projects");
    const wanted = new URLSearchParams(location.search).get("project");
    $("projects").replaceChildren(...all.map((one) => new Option(one.name, one.name, false, one.name === wanted)));
    document.querySelector(".chooser").hidden = all.length < 2;
    const chosen = all.find((one) => one.name === wanted) ?? all[0];
    if (!chosen) {
      $("empty").hidden = false;
      $("empty").querySelector("h2").textContent = "No project yet";
      $("empty").querySelector("p").textContent = "`workbench ask NAME` puts comparisons on this page.";
      return;
    }
    about(chosen);
    outbox.send();
    await fill();
    if (!now) next();
  } catch (error) {
    say(`Cannot reach the server: ${error.message}. Trying again.`, "server");
    setTimeout(start, 3000);
  }
}
start();
