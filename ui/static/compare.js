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
