// Several dimensions on a scale, for each answer: a number rates the marked scale and goes on to the next.

import { t } from "./words.js";
import { arrows } from "./verdicts.js";

export function drawRating(box, { item, project, opinion, decide }) {
  const scores = item.answers.map((_, k) => ({ ...opinion?.scores?.[k] }));
  const asked = item.answers.flatMap((_, k) => project.dimensions.map((dimension) => ({ k, dimension })));
  const missing = () => asked.findIndex(({ k, dimension }) => !(dimension in scores[k]));
  let at = Math.max(missing(), 0);
  const how = Object.assign(document.createElement("p"), { className: "how", textContent: t("rateHow") });
  const table = Object.assign(document.createElement("div"), { className: "ratings" });
  const done = Object.assign(document.createElement("button"), { type: "button", className: "judge", textContent: t("judge") });
  const groups = asked.map(({ k, dimension }, place) => {
    const name = item.answers.length > 1 ? t("rateOf", { dimension, n: k + 1 }) : dimension;
    const row = document.createElement("div");
    row.className = "rating";
    const group = document.createElement("div");
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", name);
    group.append(...Array.from({ length: project.scale }, (_, n) => {
      const radio = Object.assign(document.createElement("div"), { textContent: String(n + 1) });
      radio.setAttribute("role", "radio");
      radio.addEventListener("click", () => rate(place, n + 1));
      return radio;
    }));
    group.addEventListener("keydown", (event) => arrows(event, [...group.children], (radio) => rate(place, Number(radio.textContent))));
    row.append(Object.assign(document.createElement("span"), { textContent: name }), group);
    table.append(row);
    return group;
  });

  function show() {
    groups.forEach((group, place) => {
      const { k, dimension } = asked[place], given = scores[k][dimension];
      group.parentElement.classList.toggle("current", place === at);
      [...group.children].forEach((radio, n) => {
        radio.setAttribute("aria-checked", String(given === n + 1));
        radio.tabIndex = n + 1 === (given ?? 1) ? 0 : -1;
      });
    });
    done.disabled = missing() >= 0;
  }

  function rate(place, score) {
    scores[asked[place].k][asked[place].dimension] = score;
    at = Math.min(place + 1, asked.length - 1);
    show();
  }

  function finish() {
    if (missing() < 0) decide({ kind: "rating", scores });
    else { at = missing(); show(); }
  }

  done.addEventListener("click", finish);
  box.replaceChildren(how, table, done);
  show();
  return {
    key(event) {
      const number = Number(event.key);
      if (number >= 1 && number <= project.scale) rate(at, number);
      else if (event.key === "Backspace") { at = Math.max(at - 1, 0); show(); }
      else if (event.key === "Enter" && !event.target.closest("button, summary, a")) finish();
      else return false;
      return true;
    },
  };
}
