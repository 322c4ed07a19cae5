// Modes where one key is the whole judgement: a radio group whose choice judges at once.

import { t } from "./words.js";

const pairwise = (verdict, strength = null) => ({ kind: "pairwise", verdict, strength });
export const SKIP = pairwise("skip");
export const ONE_KEY = {
  pairwise: {
    first3: pairwise("first", 3), first2: pairwise("first", 2), first1: pairwise("first", 1), tie: pairwise("tie"),
    second1: pairwise("second", 1), second2: pairwise("second", 2), second3: pairwise("second", 3), neither: pairwise("neither"), skip: SKIP,
  },
  thumb: { up: { kind: "thumb", up: true }, down: { kind: "thumb", up: false }, skip: SKIP },
};

const same = (a, b) => a && a.kind === b.kind && a.verdict === b.verdict && (a.strength ?? null) === (b.strength ?? null) && a.up === b.up;

// Fills the box with the group. choose(action) is what a choice does.
export function drawVerdicts(box, { mode, opinion, keyOf, choose, without = [] }) {
  const group = document.createElement("div");
  group.className = "verdicts";
  group.setAttribute("role", "radiogroup");
  group.setAttribute("aria-label", t("verdict"));
  const offered = Object.entries(ONE_KEY[mode]).filter(([action]) => !without.includes(action));
  const was = offered.findIndex(([, each]) => same(opinion, each));
  group.append(...offered.map(([action], place) => {
    const radio = document.createElement("div");
    radio.setAttribute("role", "radio");
    radio.setAttribute("aria-checked", String(place === was));
    radio.tabIndex = place === Math.max(was, 0) ? 0 : -1;
    radio.dataset.action = action;
    radio.append(`${t(action === "skip" ? "skipMore" : action)} `, Object.assign(document.createElement("kbd"), { textContent: keyOf(action) }));
    return radio;
  }));
  group.addEventListener("click", (event) => {
    const radio = event.target.closest("[role=radio]");
    if (radio && event.detail < 2) choose(radio.dataset.action);
  });
  group.addEventListener("keydown", (event) => arrows(event, [...group.children], (radio) => choose(radio.dataset.action)));
  box.replaceChildren(group);
  return { key: () => false };
}

// Arrows move through radios, space and Enter decide.
export function arrows(event, radios, choose) {
  const place = radios.indexOf(event.target.closest("[role=radio]"));
  const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
  if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " || event.key === "Enter") {
    event.preventDefault();
    event.stopPropagation();
    if (!event.repeat) choose(radios[place]);
  } else if (step) {
    event.preventDefault();
    const wanted = radios[(place + step + radios.length) % radios.length];
    radios.forEach((radio) => { radio.tabIndex = radio === wanted ? 0 : -1; });
    wanted.focus();
  }
}
