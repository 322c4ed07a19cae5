// Which key does what. A person's own choice stays in their browser.

const NAME = "keys";
const DEFAULT = {
  "first3": "1", "first2": "2", "first1": "3", "tie": "4", "second1": "5", "second2": "6", "second3": "7", "neither": "8",
  "up": "1", "down": "2", "skip": "s", "undo": "u", "edit": "e", "rationale": "r", "pii": "p", "broken": "b",
  "offensive": "o", "plain": "t", "diff": "d", "history": "h", "help": "?", "unveil": "v", "guideline": "g",
};
// Actions of different modes may share a key.
const ELSEWHERE = new Set(["up", "down"]);

function own() {
  try { return JSON.parse(localStorage.getItem(NAME)) ?? {}; } catch { return {}; }
}

export const keyOf = (action) => own()[action] ?? DEFAULT[action];
export const actions = () => Object.keys(DEFAULT);

export function actionOf(key, offered) {
  return actions().find((action) => offered(action) && keyOf(action) === key);
}

// Gives the action a key and returns "", or the action that has it already.
export function choose(action, key) {
  const taken = actions().find((other) => other !== action && ELSEWHERE.has(other) === ELSEWHERE.has(action) && keyOf(other) === key);
  if (taken) return taken;
  localStorage.setItem(NAME, JSON.stringify({ ...own(), [action]: key }));
  return "";
}

export const forget = () => localStorage.removeItem(NAME);
