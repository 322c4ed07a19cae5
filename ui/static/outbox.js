// Judgements on their way to the server. They are in the browser's storage before the next item is shown, and leave it
// when the server has confirmed them by lease; sending one twice changes nothing there.

import { t } from "./words.js";

const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 15000;

export class Outbox {
  #name; #on; #running = false; #wait = FIRST_WAIT_MS; #memory = [];

  // Each person has a list of their own, for people share browsers. `on` has: told(waiting, error), how many wait and
  // why; confirmed(said, receipt); refused(said, message); loggedOut(); done(), none waits.
  constructor(person, on) {
    this.#name = `outbox:${person}`;
    this.#on = on;
    addEventListener("online", () => this.send());
  }

  get waiting() {
    try { return JSON.parse(localStorage.getItem(this.#name)) ?? []; } catch { return this.#memory; }
  }

  // Another tab may change the list between two calls, so each change starts from what is stored now.
  #change(how) {
    const list = how(this.waiting);
    this.#memory = list;
    try { localStorage.setItem(this.#name, JSON.stringify(list)); } catch { /* no storage: kept while the page is open */ }
  }

  add(said) {
    this.#change((list) => [...list.filter((one) => one.id !== said.id), said]);
    this.send();
  }

  async send() {
    if (this.#running || !this.waiting.length) return;
    this.#running = true;
    for (let first; (first = this.waiting[0]); ) {
      const { id, ...body } = first;
      let answer = null, facts = null;
      try {
        answer = await fetch("api/judge", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
        facts = await answer.json();
      } catch { answer = null; }
      if (!answer || answer.status >= 500 || answer.status === 401 || answer.status === 429) {
        if (answer?.status === 401) this.#on.loggedOut();
        else this.#on.told(this.waiting.length, facts?.message ?? t("unreachable"));
        await new Promise((go) => setTimeout(go, this.#wait));
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
        continue;
      }
      this.#wait = FIRST_WAIT_MS;
      this.#change((list) => list.filter((one) => one.id !== id));
      if (answer.ok) this.#on.confirmed(first, facts);
      else this.#on.refused(first, facts?.message ?? String(answer.status));
      this.#on.told(this.waiting.length, "");
    }
    this.#running = false;
    this.#on.done();
  }
}
