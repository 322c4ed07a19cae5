// Judgements on their way to the server. They are in the browser's storage before the next item is shown, and leave it
// when the server has confirmed them by lease; sending one twice changes nothing there.

import { t } from "./words.js";

const FIRST_WAIT_MS = 500, LONGEST_WAIT_MS = 15000, TRIES = 5, MOST_REFUSED = 200;

export class Outbox {
  #person; #name; #on; #running = false; #wait = FIRST_WAIT_MS; #memory = null;

  // Each person has a list of their own, for people share browsers. `on` has: told(waiting, error), how many wait and
  // why; confirmed(said, receipt); refused(said, message); loggedOut(); done(), none waits.
  constructor(person, on) {
    this.#person = person;
    this.#name = `outbox:${person}`;
    this.#on = on;
    addEventListener("online", () => this.send());
  }

  get waiting() {
    if (this.#memory) return this.#memory;
    try { return JSON.parse(localStorage.getItem(this.#name)) ?? []; } catch { return []; }
  }

  // Another tab may change the list between two calls, so each change starts from what is stored now. Where nothing more
  // can be stored, the list is kept while the page is open.
  #change(how) {
    const list = how(this.waiting);
    try {
      localStorage.setItem(this.#name, JSON.stringify(list));
      this.#memory = null;
    } catch { this.#memory = list; }
  }

  // What the server will not take is still what somebody said.
  #keepRefused(said, message) {
    const name = `refused:${this.#person}`;
    try {
      const kept = JSON.parse(localStorage.getItem(name)) ?? [];
      localStorage.setItem(name, JSON.stringify([...kept, { ...said, message }].slice(-MOST_REFUSED)));
    } catch { /* no storage: the page says why it was refused */ }
  }

  add(said) {
    this.#change((list) => [...list.filter((one) => one.id !== said.id), said]);
    this.send();
  }

  async send() {
    if (this.#running || !this.waiting.length) return;
    this.#running = true;
    for (let first, tries = 0; (first = this.waiting[0]); ) {
      const { id, ...body } = first;
      let answer = null, facts = null;
      try {
        // Another person may have logged in meanwhile, in another tab.
        const headers = { "content-type": "application/json", "x-person": encodeURIComponent(this.#person) };
        answer = await fetch("api/judge", { method: "POST", headers, body: JSON.stringify(body) });
        facts = await answer.json();
      } catch { answer = null; }
      if (!answer || answer.status >= 500 || answer.status === 401 || answer.status === 429) {
        if (answer?.status === 401) this.#on.loggedOut();
        else this.#on.told(this.waiting.length, facts?.message ?? t("unreachable"));
        // One that the server fails on holds up no other.
        if (answer?.status >= 500 && ++tries % TRIES === 0) this.#change((list) => [...list.filter((one) => one.id !== id), first]);
        await new Promise((go) => setTimeout(go, this.#wait));
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
        continue;
      }
      this.#wait = FIRST_WAIT_MS;
      tries = 0;
      const message = answer.ok ? "" : facts?.message ?? String(answer.status);
      if (message) this.#keepRefused(first, message);
      this.#change((list) => list.filter((one) => one.id !== id));
      if (message) this.#on.refused(first, message);
      else this.#on.confirmed(first, facts);
      this.#on.told(this.waiting.length, "");
    }
    this.#running = false;
    this.#on.done();
  }
}
