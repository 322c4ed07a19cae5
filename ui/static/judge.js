// The judging page: shows items from a buffer, takes a judgement, shows the next at once, saves behind.

import { Outbox } from "./outbox.js";
import { actionOf, keyOf } from "./keys.js";
import { answer, differences, summary, turn } from "./item.js";
import { ONE_KEY, SKIP, drawVerdicts } from "./verdicts.js";
import { drawRating } from "./rating.js";
import { drawRanking } from "./ranking.js";
import { FLAGS, fillKeys } from "./settings.js";
import { t, translate } from "./words.js";

const $ = (id) => document.getElementById(id);
const FIRST_AHEAD = 2, MORE_AHEAD = 2, MOST_AHEAD = 6, LOOK_AGAIN_MS = 30000, TRY_AGAIN_MS = 3000, LONGEST_S = 86400;  // the server takes no longer time
const WHY = { "nothing open": "empty", "trial failed": "trialFailed", "trial under way": "trialOn", "daily cap": "cap", closed: "closed", paused: "paused" };

let accounts = false, project = null, now = null, shownAt = 0, again = false, filling = false, why = "", edited = null, looking = 0, outbox = null, mode = null;
let buffer = [], done = [], ahead = FIRST_AHEAD;
const settled = new Set(), seenNotes = new Set();
const view = { plain: false, diff: false };

// Kinds: "item" goes with the item shown, "note" and "told" stay for one more, "saving" and "server" until it is over.
function say(text, kind = "item") {
  $("message").textContent = text;
  $("message").className = kind;
  $("message").hidden = false;
}

function hush(...kinds) {
  if (kinds.includes($("message").className)) $("message").hidden = true;
}

const on = {
  told: (waiting, error) => {
    if (waiting && error) say(t("notSaved", { n: waiting, error }), "saving");
    else hush("saving");
  },
  confirmed: (said, receipt) => {
    if (receipt.right !== null) say(`${t(receipt.right ? "right" : "wrong")} ${receipt.why}`, receipt.right ? "note" : "told");
    if (receipt.late) say(t("late"), "told");
  },
  refused: (said, error) => say(t("refused", { error }), "told"),
  loggedOut: () => loggedOut(),
  // What was stored may have opened more: the work after a trial.
  done: () => { if (!now) fill(); },
};

function loggedOut() {
  say(`${t("loggedOut")} `, "saving");
  $("message").append(Object.assign(document.createElement("a"), { href: "login.html", textContent: t("logIn") }));
}

async function ask(path, body) {
  const how = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, how);
  if (response.status === 401) location.assign("login.html");
  const facts = await response.json();
  if (!response.ok) throw new Error(facts.message ?? String(response.status));
  return facts;
}

const same = (one, other) => JSON.stringify([one.turns, one.answers]) === JSON.stringify([other.turns, other.answers]);

// Holds what is prepared and what is on its way; the server counts both. Whoever only looks in holds little; who goes on
// judging has more prepared each time.
async function fill() {
  if (filling || !project) return;
  filling = true;
  try {
    const underway = outbox.waiting.filter((one) => !one.again).length;
    const taken = await ask("api/take", { project: project.name, count: Math.min(ahead + underway, 32) });
    ahead = Math.min(ahead + MORE_AHEAD, MOST_AHEAD);
    const known = new Set([...settled, ...buffer.map((one) => one.lease), ...outbox.waiting.map((one) => one.lease)]);
    const held = new Set(taken.showings.map((one) => one.lease));
    buffer = buffer.filter((one) => one.note || held.has(one.lease));   // some ran out, or were given anew
    // An item that is looked at while its guideline changes goes on under the new one.
    if (now && !again && !held.has(now.lease)) now.lease = taken.showings.find((one) => same(one, now))?.lease ?? now.lease;
    if (now) known.add(now.lease);
    buffer.push(...taken.showings.filter((one) => !known.has(one.lease)));
    const back = taken.back.filter((one) => !seenNotes.has(one.number));
    back.forEach((one) => seenNotes.add(one.number));
    buffer.unshift(...back);
    why = taken.why;
    about(taken.project);
    hush("server");
  } catch (error) {
    say(t("cannotFill", { error: error.message }), "server");
    setTimeout(fill, TRY_AGAIN_MS);
  } finally { filling = false; }
  if (!now && (buffer.length || why)) next();
}

function about(facts) {
  if (!project && facts.mode === "rating") $("guideline").open = true;
  if (project && facts.guideline !== project.guideline) {
    say(t("newGuideline"), "told");
    $("guideline").open = true;
  }
  project = facts;
  $("project").textContent = facts.name;
  $("progress").textContent = t("progress", facts);
  $("guideline").hidden = !facts.guideline;
  $("guideline").querySelector("div").innerHTML = facts.guideline;
}

function next() {
  now = buffer.shift() ?? null;
  again = Boolean(now?.note);  // sent back by a lead: a new verdict replaces the old one
  $("item").hidden = !now;
  $("empty").hidden = Boolean(now);
  if (now) draw(now, now.said ?? null);
  else {
    $("empty").querySelector("h2").textContent = t(why ? WHY[why] : "loading");
    $("empty").querySelector("p").textContent = why ? t(`${WHY[why]}Why`) : "";
  }
  if (buffer.length < ahead / 2 && !why) fill();
  if (!now && why) { clearTimeout(looking); looking = setTimeout(fill, LOOK_AGAIN_MS); }
}

function draw(item, said = null) {
  const draft = said ? null : drafts()[item.lease];
  $("rationale").value = said?.rationale ?? draft?.rationale ?? "";
  edited = said?.edit || draft?.edit || null;
  $("edit").value = edited ?? "";
  $("editing").hidden = !edited;
  $("answers").classList.toggle("veiled", Boolean(project.warning));
  $("answers").classList.toggle("many", item.answers.length > 2);
  drawTexts();
  if (project.warning) say(t("veiled", { warning: project.warning, key: keyOf("unveil") }));
  else if (item.trial) say(t("trial"));
  if (item.note) say(t("returned", { reason: item.note }));
  drawMode(said?.opinion);
  $("flags").querySelectorAll("input").forEach((box) => { box.checked = said?.flags.includes(box.value) ?? false; });
  shownAt = performance.now();
  scrollTo(0, 0);
}

function drawTexts() {
  $("prompt").replaceChildren(...now.turns.map((each) => turn(each, view.plain)));
  $("answers").replaceChildren(...now.answers.map((each, place) => answer(each, place, now.answers.length, view.plain)));
  if (view.diff && now.answers.length === 2 && !differences($("answers"), now.answers)) say(t("tooDifferent"));
}

function drawMode(opinion = null) {
  const context = { item: now, project, mode: project.mode, opinion, keyOf, choose: decideByName, decide };
  mode = { rating: drawRating, ranking: drawRanking }[project.mode]?.($("verdicts"), context) ?? drawVerdicts($("verdicts"), context);
  if (project.mode in ONE_KEY) return;
  const skip = Object.assign(document.createElement("button"), { type: "button", textContent: `${t("skipMore")} ` });
  skip.append(Object.assign(document.createElement("kbd"), { textContent: keyOf("skip") }));
  skip.addEventListener("click", () => decideByName("skip"));
  $("verdicts").append(skip);
}

function decideByName(action) {
  if (!now) return;
  if (action !== "skip") return decide(ONE_KEY[project.mode][action]);
  $("skip-reason").value = $("rationale").value;
  $("unwanted").hidden = !accounts || !now.topic;
  $("unwanted").querySelector("input").checked = false;
  $("unwanted").querySelector("span").textContent = t("unwanted", { topic: now.topic });
  $("skip").showModal();
}

// Half a character, as a cut emoji leaves it, is no text.
const whole = (text) => text.toWellFormed?.() ?? text;

function decide(opinion, reason = "") {
  if (!now) return;
  const flags = [...$("flags").querySelectorAll("input:checked")].map((box) => box.value);
  const said = {
    id: `${now.lease}/${Date.now()}`, lease: now.lease, opinion, flags, edit: opinion === SKIP || edited === null ? "" : whole($("edit").value),
    rationale: whole(reason || $("rationale").value.trim()), seconds: Math.min((performance.now() - shownAt) / 1000, LONGEST_S), again,
  };
  done.push({ item: now, said });
  settled.add(now.lease);
  keepDraft(now.lease, null);
  hush("item", "note", "told");
  outbox.add(said);  // first: what is asked for next is counted beside it
  next();
}

// A reason or an edit that was begun outlives the page.
const drafts = () => { try { return JSON.parse(localStorage.getItem("drafts")) ?? {}; } catch { return {}; } };
function keepDraft(lease, draft) {
  const { [lease]: _, ...others } = drafts();
  try { localStorage.setItem("drafts", JSON.stringify(draft ? { ...others, [lease]: draft } : others)); } catch { /* no storage */ }
}
const draftNow = () => { if (now && !again) keepDraft(now.lease, { rationale: $("rationale").value, edit: edited === null ? "" : $("edit").value }); };

function reopen(item, said) {
  if (now && !again && now !== item) buffer.unshift(now);
  now = item;
  again = true;
  $("item").hidden = false;
  $("empty").hidden = true;
  draw(item, said);
  say(t("again"), "note");
}

function undo() {
  const last = done.pop();
  if (last) reopen(last.item, last.said);
  else say(t("nothingToUndo"));
}

async function past() {
  try {
    const found = await ask(`api/own?project=${encodeURIComponent(project.name)}`);
    $("past").querySelector("ol").replaceChildren(...found.map((own) => {
      const row = document.createElement("li");
      const open = Object.assign(document.createElement("button"), { type: "button" });
      open.textContent = `${summary(own.said.opinion)}: ${own.turns.at(-1).text.slice(0, 80)}`;
      open.addEventListener("click", () => { $("past").close(); reopen(own, own.said); });
      row.append(open);
      return row;
    }));
    $("past").showModal();
  } catch (error) { say(t("cannotHistory", { error: error.message })); }
}

async function avoid(topic) {
  try {
    await ask("api/avoid", { project: project.name, topic });
    buffer = buffer.filter((one) => one.topic !== topic);  // some may have come meanwhile
    say(t("avoided", { topic }), "note");
    if (now?.topic === topic && !again) next();
  } catch (error) { say(t("notAvoided", { error: error.message }), "note"); }
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
  if (now) drawTexts();
}

function labels() {
  for (const name of ["plain", "diff", "undo", "history", "help"]) $(name).querySelector("kbd").textContent = keyOf(name);
  document.querySelector('label[for="rationale"] kbd').textContent = keyOf("rationale");
  $("flags").replaceChildren($("flags").firstElementChild, ...FLAGS.map((name) => {
    const label = document.createElement("label");
    label.append(Object.assign(document.createElement("input"), { type: "checkbox", value: name }), `${t(name)} `,
      Object.assign(document.createElement("kbd"), { textContent: keyOf(name) }));
    return label;
  }));
  fillKeys();
}

const DO = {
  undo, edit, history: past, plain: () => toggle("plain"), diff: () => toggle("diff"), help: () => $("keys").showModal(),
  rationale: () => $("rationale").focus(), unveil: () => $("answers").classList.remove("veiled"),
  guideline: () => { $("guideline").open = !$("guideline").open; }, skip: () => decideByName("skip"),
};

const offered = (action) => action in (ONE_KEY[project?.mode] ?? {}) || FLAGS.includes(action) || action in DO;

function act(action) {
  if (FLAGS.includes(action)) $("flags").querySelector(`[value=${action}]`).click();
  else if (action in DO) DO[action]();
  else decideByName(action);
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || document.querySelector("dialog[open]")) return;
  if (event.target.matches("textarea, input:not([type=checkbox]), select")) {
    if (event.key === "Escape") $("main").focus();
    return;
  }
  if (now && mode.key(event)) return event.preventDefault();
  const action = actionOf(event.key, offered);
  if (action) { event.preventDefault(); act(action); }
});
for (const name of ["plain", "diff", "undo", "history", "help"]) $(name).addEventListener("click", () => DO[name]());
for (const name of ["rationale", "edit"]) $(name).addEventListener("input", draftNow);
$("drop-edit").addEventListener("click", () => { edited = null; $("editing").hidden = true; draftNow(); });
$("skip").addEventListener("close", () => {
  if ($("skip").returnValue !== "skip") return;
  $("skip").returnValue = "";
  const topic = $("unwanted").querySelector("input").checked ? now.topic : "";
  if (topic) buffer = buffer.filter((one) => one.topic !== topic);
  decide(SKIP, $("skip-reason").value.trim());
  if (topic) avoid(topic);
});
$("keys").addEventListener("close", () => { labels(); if (now && project.mode in ONE_KEY) drawMode(); });
$("retry").addEventListener("click", fill);
$("logout").addEventListener("click", async () => { await ask("api/logout", {}); location.assign("login.html"); });
$("projects").addEventListener("change", () => { location.search = `?project=${encodeURIComponent($("projects").value)}`; });

async function start() {
  try {
    const me = await ask("api/me");
    outbox ??= new Outbox(me.person, on);
    accounts = me.accounts;
    $("logout").hidden = !accounts;
    $("lead").hidden = !me.leads;
    $("drift").hidden = !me.drift;
    $("arena").hidden = !me.arena;
    const all = await ask("api/projects");
    const wanted = new URLSearchParams(location.search).get("project");
    $("projects").replaceChildren(...all.map((one) => new Option(one.name, one.name, false, one.name === wanted)));
    document.querySelector(".chooser").hidden = all.length < 2;
    const chosen = all.find((one) => one.name === wanted) ?? all[0];
    if (!chosen) {
      $("empty").hidden = false;
      $("empty").querySelector("h2").textContent = t("noProject");
      $("empty").querySelector("p").textContent = t("noProjectWhy");
      return;
    }
    about(chosen);
    outbox.send();
    await fill();
    if (!now) next();
  } catch (error) {
    say(t("cannotStart", { error: error.message }), "server");
    setTimeout(start, TRY_AGAIN_MS);
  }
}
translate(document);
labels();
start();
