// A round that runs is drawn anew where it changed, and nowhere else.

const live = document.getElementById("live"), round = document.getElementById("round");
const RUNNING_MS = 2000, WAITING_MS = 15000;
const places = document.querySelectorAll("[data-part]");
const drawn = new Map([...places].map((place) => [place, place.innerHTML]));   // as the browser writes what the server sent
let timer;

function draw(place, text) {
  const now = document.createElement("template");
  now.innerHTML = text;   // made by the server from templates that escape
  if (drawn.get(place) === now.innerHTML) return;
  drawn.set(place, now.innerHTML);
  const opened = [...place.querySelectorAll("details")].map((one) => one.open);
  place.replaceChildren(now.content);
  place.querySelectorAll("details").forEach((one, k) => { one.open = opened[k] ?? false; });
}

async function refresh() {
  clearTimeout(timer);
  if (document.hidden) return;
  let wait = RUNNING_MS;
  try {
    const answer = await fetch(`${location.pathname}/state`);
    if (!answer.ok) throw new Error(answer.status);
    const now = await answer.json();
    for (const place of places) draw(place, now.parts[place.dataset.part]);
    live.textContent = "";
    if (now.state !== round.dataset.state) {
      // The gate and what can be done differ now; a reason being written is not thrown away for them.
      if (![...document.querySelectorAll("input[name=reason]")].some((field) => field.value)) return location.reload();
      live.textContent = `the round is ${now.state} now; reload the page to see what can be done`;
    }
    wait = now.state === "running" ? RUNNING_MS : WAITING_MS;
  } catch {
    live.textContent = "the server does not answer; trying again";
  }
  clearTimeout(timer);
  timer = setTimeout(refresh, wait);
}

if (round) {
  document.addEventListener("visibilitychange", refresh);
  timer = setTimeout(refresh, RUNNING_MS);
}
