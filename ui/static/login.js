// Logging in; the answer sets a cookie that scripts cannot read.

import { t, translate } from "./words.js";

const REFUSED = { unknown: "providerUnknown", unproved: "providerUnproved", unreachable: "providerUnreachable" };

translate(document);
const refused = REFUSED[location.hash.slice(1)];
if (refused) Object.assign(document.getElementById("message"), { textContent: t(refused), hidden: false });
fetch("api/ways").then((answer) => answer.json()).then((ways) => { document.getElementById("provider").hidden = !ways.provider; }).catch(() => {});
document.getElementById("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  const told = document.getElementById("message"), given = Object.fromEntries(new FormData(event.target));
  try {
    const answer = await fetch("api/login", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(given) });
    if (answer.ok) return location.assign("judge.html");
    told.textContent = (await answer.json()).message;
  } catch { told.textContent = t("unreachable"); }
  told.hidden = false;
});
