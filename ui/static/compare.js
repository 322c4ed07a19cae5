// Two answers word by word; j and k move from one prompt to the next.

import { markDifferences } from "./texts.js";

markDifferences(document.getElementById("main"));
const items = [...document.querySelectorAll("article.item")];
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, textarea, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key !== "j" && event.key !== "k") return;
  const at = items.indexOf(document.activeElement);
  items[Math.min(Math.max(at + (event.key === "j" ? 1 : -1), 0), items.length - 1)]?.focus();
});
for (const select of document.querySelectorAll(".choose select")) select.addEventListener("change", () => select.form.requestSubmit());

// A prompt for both.

const form = document.getElementById("say");
form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = document.getElementById("told"), place = document.getElementById("said"), button = form.querySelector("button");
  told.textContent = "answering…";
  button.disabled = true;
  try {
    const body = JSON.stringify({ prompt: document.getElementById("prompt").value, first: form.dataset.first, second: form.dataset.second });
    const answer = await fetch("/compare/say", { method: "POST", headers: { "content-type": "application/json" }, body });
    const found = await answer.json();
    if (!answer.ok) throw new Error(found.detail ?? found.message ?? `the server answered ${answer.status}`);
    const texts = [...place.querySelectorAll("pre")];
    ["first", "second"].forEach((name, k) => { texts[k].textContent = found[name]; texts[k].dataset.diff = name; delete texts[k].dataset.done; });
    place.hidden = false;
    markDifferences(place);
    told.textContent = "";
  } catch (error) {
    told.textContent = error.message;
  }
  button.disabled = false;
});
