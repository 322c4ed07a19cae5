// What is judged: the prompt's turns and the answers, rendered or as plain text, or word by word with their differences.

import { pieces, side } from "./diff.js";
import { t } from "./words.js";

export function turn(message, plain) {
  const box = Object.assign(document.createElement("div"), { className: "turn" });
  box.append(Object.assign(document.createElement("p"), { className: "role", textContent: t(message.role) }), body(message, plain));
  return box;
}

export function answer(text, place, count, plain) {
  const box = Object.assign(document.createElement("article"), { className: "answer" });
  const title = count === 1 ? t("answer") : count === 2 ? t(`answer${place + 1}`) : t("answerN", { n: place + 1 });
  box.append(Object.assign(document.createElement("h2"), { textContent: title }), body(text, plain));
  return box;
}

// The HTML was made safe by the server; the page's policy runs no script that it does not serve itself.
function body(text, plain) {
  const box = Object.assign(document.createElement("div"), { className: plain ? "body plain" : "body", dir: "auto" });
  if (plain) box.textContent = text.text;
  else box.innerHTML = text.html;
  return box;
}

// Shows two answers as they differ; false where they differ too much.
export function differences(box, [first, second]) {
  const found = pieces(first.text, second.text);
  if (!found) return false;
  box.querySelectorAll(".body").forEach((each, place) => {
    each.className = "body plain";
    each.replaceChildren(side(found, place ? "more" : "less"));
  });
  return true;
}

// What was said, in a few words.
export function summary(opinion) {
  switch (opinion.kind) {
    case "pairwise": return t({ first: `first${opinion.strength ?? 2}`, second: `second${opinion.strength ?? 2}` }[opinion.verdict] ?? opinion.verdict);
    case "thumb": return t(opinion.up ? "up" : "down");
    case "rating": return opinion.scores.map((each) => Object.entries(each).map(([name, score]) => `${name} ${score}`).join(", ")).join(" / ");
    case "ranking": return opinion.order.map((tied) => tied.map((k) => k + 1).join(" = ")).join(" > ");
  }
}
