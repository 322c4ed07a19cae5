// The arena: type a prompt, two policies answer at once, judge them by key; their names come with the vote's receipt.

import { actionOf, keyOf } from "./keys.js";
import { answer } from "./item.js";
import { ONE_KEY, drawVerdicts } from "./verdicts.js";
import { t, translate } from "./words.js";

const $ = (id) => document.getElementById(id);
let battle = null, complete = 0;

function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

async function send(path, body) {
  const response = await fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
  if (response.status === 401) location.assign("login.html");
  const facts = await response.json();
  if (!response.ok) throw new Error(facts.message ?? facts.detail ?? String(response.status));
  return facts;
}

async function begin() {
  say("");
  $("names").textContent = "";
  $("verdicts").hidden = true;
  complete = 0;
  try {
    ({ battle } = await send("api/arena/begin", { prompt: $("prompt").value }));
  } catch (error) { return say(error.message); }
  const boxes = [0, 1].map((side) => answer({ text: "", html: "" }, side, 2, true));
  $("answers").replaceChildren(...boxes);
  $("answers").setAttribute("aria-busy", "true");
  boxes.forEach((box, side) => stream(battle, side, box.querySelector(".body")));
}

async function stream(of, side, box) {
  const response = await fetch(`api/arena/answer/${of}/${side}`);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done || of !== battle) break;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) show(JSON.parse(line), box);
  }
}

function show(said, box) {
  if (said.piece) box.textContent += said.piece;
  if (said.error) say(t("arenaBroken", { error: said.error }));
  if (said.html === undefined) return;
  box.className = "body";
  box.innerHTML = said.html;  // made safe by the server
  complete += 1;
  if (complete < 2) return;
  $("answers").setAttribute("aria-busy", "false");
  drawVerdicts($("verdicts"), { mode: "pairwise", opinion: null, keyOf, choose: vote, without: ["skip"] });
  $("verdicts").hidden = false;
  $("main").focus();
}

async function vote(action) {
  if (!battle || $("verdicts").hidden) return;
  const { verdict, strength } = ONE_KEY.pairwise[action];
  $("verdicts").hidden = true;
  try {
    const { policies } = await send("api/arena/vote", { battle, verdict, strength });
    battle = null;
    $("names").textContent = t("arenaNames", { first: policies[0], second: policies[1] });
  } catch (error) {
    say(t("refused", { error: error.message }));
    $("verdicts").hidden = false;
  }
}

document.addEventListener("keydown", (event) => {
  if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.target.matches("textarea")) return;
  const action = actionOf(event.key, (name) => name in ONE_KEY.pairwise && name !== "skip");
  if (action) { event.preventDefault(); vote(action); }
});
$("ask").addEventListener("submit", (event) => { event.preventDefault(); begin(); });
translate(document);
