// Pairs of texts in a list of rows, word by word: what the first alone has, and what the second.

import { pieces, side } from "./diff.js";

const PAIRS = [["answer before", "answer now"], ["chosen", "rejected"], ["first", "second"]];

export function markDifferences(place) {
  for (const item of place.querySelectorAll("[data-diff]")) {
    if (item.dataset.done) continue;
    const pair = PAIRS.find(([first]) => first === item.dataset.diff);
    const other = pair && item.closest("li, article")?.querySelector(`[data-diff="${pair[1]}"]`);
    if (!other) continue;
    const found = pieces(item.textContent, other.textContent);
    item.dataset.done = other.dataset.done = "yes";
    if (!found) continue;
    item.replaceChildren(side(found, "less"));
    other.replaceChildren(side(found, "more"));
  }
}
