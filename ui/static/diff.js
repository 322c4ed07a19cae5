// Word by word: what two texts share and where they differ (Myers, "An O(ND) Difference Algorithm", 1986).

import { t } from "./words.js";

const MOST_EDITS = 2000;
const COLLAPSE = 40;

const words = (text) => text.match(/\s+|[\p{L}\p{N}_]+|[^\s\p{L}\p{N}_]/gu) ?? [];

// Pieces [kind, text], kind "same", "less" (in the first alone) or "more"; null where the texts differ too much.
export function pieces(first, second) {
  const a = words(first), b = words(second);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a.at(-1 - end) === b.at(-1 - end)) end++;
  const middle = steps(a.slice(start, a.length - end), b.slice(start, b.length - end));
  if (!middle) return null;
  const all = [...a.slice(0, start).map((w) => ["same", w]), ...middle, ...a.slice(a.length - end).map((w) => ["same", w])];
  const joined = [];
  for (const [kind, word] of all) {
    if (joined.at(-1)?.[0] === kind) joined.at(-1)[1] += word;
    else joined.push([kind, word]);
  }
  return joined;
}

function steps(a, b) {
  const furthest = new Map([[1, 0]]), trace = [];
  for (let d = 0; d <= Math.min(a.length + b.length, MOST_EDITS); d++) {
    trace.push(new Map(furthest));
    for (let k = -d; k <= d; k += 2) {
      const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
      let x = down ? furthest.get(k + 1) : furthest.get(k - 1) + 1;
      while (x < a.length && x - k < b.length && a[x] === b[x - k]) x++;
      furthest.set(k, x);
      if (x >= a.length && x - k >= b.length) return back(a, b, trace);
    }
  }
  return null;
}

function back(a, b, trace) {
  const found = [];
  let x = a.length, y = b.length;
  for (let d = trace.length - 1; d >= 0; d--) {
    const furthest = trace[d], k = x - y;
    const down = k === -d || (k !== d && (furthest.get(k - 1) ?? -1) < (furthest.get(k + 1) ?? -1));
    const from = down ? k + 1 : k - 1, fromX = furthest.get(from) ?? 0, fromY = fromX - from;
    while (x > fromX && y > fromY && x > 0 && y > 0) { found.push(["same", a[--x]]); y--; }
    if (d > 0) found.push(down ? ["more", b[--y]] : ["less", a[--x]]);
  }
  return found.reverse();
}

// One side of a comparison as nodes; long passages both share are folded away and open at a click.
export function side(found, own) {
  const box = document.createDocumentFragment();
  for (const [kind, text] of found) {
    if (kind !== "same" && kind !== own) continue;
    const node = document.createElement(kind === "same" ? "span" : kind === "less" ? "del" : "ins");
    node.textContent = text;
    const count = kind === "same" ? words(text).length : 0;
    if (count > 2 * COLLAPSE) {
      const fold = document.createElement("button");
      fold.type = "button"; fold.className = "same"; fold.textContent = t("shared", { n: Math.round(count / 2) });
      fold.addEventListener("click", () => fold.replaceWith(node));
      box.append(fold);
    } else box.append(node);
  }
  return box;
}
