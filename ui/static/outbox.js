// Judgements on their way to the server. They are in the browser's storage before the next item is shown, and leave it
// when the server has confirmed them by lease; sending one twice changes nothing there.

const NAME = "outbox";
const LONGEST_WAIT_MS = 15000;

export class Outbox {
  #told; #refused; #confirmed; #done; #running = false; #wait = 500; #memory = [];

  // told(waiting, error): how many wait and why, confirmed(said, receipt), refused(said, message), done(): none waits
  constructor({ told, confirmed, refused, done }) {
    this.#told = told; this.#confirmed = confirmed; this.#refused = refused; this.#done = done;
    addEventListener("online", () => this.send());
  }

  get waiting() {
    try { return JSON.parse(localStorage.getItem(NAME)) ?? []; } catch { return this.#memory; }
  }

  // Another tab may change the list between two calls, so each change starts from what is stored now.
  #change(how) {
    const list = how(this.waiting);
    this.#memory = list;
    try { localStorage.setItem(NAME, JSON.stringify(list)); } catch { /* no storage: kept while the page is open */ }
  }

  add(said) {
    this.#change((list) => [...list.filter((one) => one.id !== said.id), said]);
    this.send();
  }

  async send() {
    if (this.#running) return;
    this.#running = true;
    const any = this.waiting.length;
    for (let first; (first = this.waiting[0]); ) {
      const { id, ...body } = first;
      let answer, facts;
      try {
        answer = await fetch("api/judge", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
        facts = await answer.json();
      } catch { answer = null; }
      if (!answer || answer.status >= 500) {
        this.#told(this.waiting.length, facts?.message ?? "the server cannot be reached");
        await new Promise((go) => setTimeout(go, this.#wait));
        this.#wait = Math.min(this.#wait * 2, LONGEST_WAIT_MS);
        continue;
      }
      this.#wait = 500;
      this.#change((list) => list.filter((one) => one.id !== id));
      if (answer.ok) this.#confirmed(first, facts);
      else this.#refused(first, facts?.message ?? `the server answered ${answer.status}`);
      this.#told(this.waiting.length, "");
    }
    this.#running = false;
    if (any) this.#done();
  }
}
