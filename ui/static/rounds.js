// A round that runs is drawn anew where it changed, and nowhere else.

const live = document.getElementById("live");
const parts = [...document.querySelectorAll("[data-part]")];
const EVERY_MS = 2000;

async function refresh() {
  try {
    for (const place of parts) {
      const answer = await fetch(`${location.pathname}/part/${place.dataset.part}`);
      if (!answer.ok) throw new Error(answer.status);
      const text = await answer.text();
      if (place.dataset.text !== text) {
        const opened = [...place.querySelectorAll("details")].map((one) => one.open);
        place.innerHTML = text;   // made by the server from templates that escape
        place.querySelectorAll("details").forEach((one, k) => { one.open = opened[k] ?? false; });
        place.dataset.text = text;
      }
    }
    live.textContent = "";
  } catch {
    live.textContent = "the server does not answer; trying again";
  }
  setTimeout(refresh, EVERY_MS);
}
if (parts.length) setTimeout(refresh, EVERY_MS);
