// All answers from best to worst: their numbers in that order; ties are allowed.

import { t } from "./words.js";

export function drawRanking(box, { item, opinion, decide }) {
  let order = opinion?.order?.map((tied) => [...tied]) ?? [], tie = false;
  const button = (text, does) => {
    const made = Object.assign(document.createElement("button"), { type: "button", textContent: text });
    made.addEventListener("click", does);
    return made;
  };
  const how = Object.assign(document.createElement("p"), { className: "how", textContent: t("rankHow") });
  const list = Object.assign(document.createElement("div"), { className: "ranks" });
  const ranks = item.answers.map((_, k) => button("", () => put(k)));
  const tieButton = button(t("rankTie"), () => { tie = order.length > 0 && !tie; show(); });
  const back = button(t("rankBack"), takeBack), done = button(t("judge"), finish);
  done.className = "judge";
  list.append(...ranks, tieButton, back, done);
  list.setAttribute("role", "group");
  list.setAttribute("aria-label", t("verdict"));

  // Tied answers share the rank of the first of them, and the next one comes after all of them.
  const rank = (k) => {
    const place = order.findIndex((tied) => tied.includes(k));
    return place < 0 ? 0 : 1 + order.slice(0, place).reduce((sum, tied) => sum + tied.length, 0);
  };
  const complete = () => order.flat().length === item.answers.length;

  function show() {
    ranks.forEach((one, k) => {
      one.textContent = rank(k) ? t("rankOf", { n: k + 1, rank: rank(k) }) : t("rankNone", { n: k + 1 });
      one.disabled = rank(k) > 0;
    });
    tieButton.setAttribute("aria-pressed", String(tie));
    back.disabled = !order.length;
    done.disabled = !complete();
  }

  function put(k) {
    if (k >= item.answers.length || rank(k)) return;
    if (tie) order.at(-1).push(k);
    else order.push([k]);
    tie = false;
    show();
  }

  function takeBack() {
    if (order.at(-1)?.length > 1) order.at(-1).pop();
    else order.pop();
    tie = false;
    show();
  }

  function finish() { if (complete()) decide({ kind: "ranking", order }); }

  box.replaceChildren(how, list);
  show();
  return {
    key(event) {
      const number = Number(event.key);
      if (number >= 1 && number <= item.answers.length) put(number - 1);
      else if (event.key === "=") { tie = order.length > 0 && !tie; show(); }
      else if (event.key === "Backspace") takeBack();
      else if (event.key === "Enter" && !event.target.closest("button, summary, a")) finish();
      else return false;
      return true;
    },
  };
}
