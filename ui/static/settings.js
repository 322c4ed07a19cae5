// The dialog in which people choose their keys.

import { actions, choose, forget, keyOf } from "./keys.js";
import { t } from "./words.js";

export const FLAGS = ["pii", "broken", "offensive"];
const NAMES = { edit: "editKey", undo: "undoKey" };
const nameOf = (action) => t(NAMES[action] ?? action);

export function fillKeys() {
  document.querySelector("#keys tbody").replaceChildren(...actions().map((action) => {
    const row = document.createElement("tr"), field = document.createElement("input"), cell = document.createElement("td");
    field.value = keyOf(action);
    field.readOnly = true;
    field.setAttribute("aria-label", nameOf(action));
    field.addEventListener("keydown", (event) => {
      if (event.key.length !== 1 || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      const taken = choose(action, event.key);
      document.getElementById("keys-told").textContent = taken ? t("taken", { key: event.key, action: nameOf(taken) }) : "";
      field.value = keyOf(action);
    });
    cell.append(field);
    row.append(Object.assign(document.createElement("td"), { textContent: nameOf(action) }), cell);
    return row;
  }));
}

document.getElementById("default-keys").addEventListener("click", () => { forget(); fillKeys(); });
