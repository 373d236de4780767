// The page: a question, one answer or two, and a choice that is learned.

import { Answer } from "./answer.js";
import { ask, stream } from "./api.js";
import { conversation } from "./conversation.js";
import { announce, button, find, make } from "./dom.js";
import { Pair } from "./pair.js";
import { ProfilePanel } from "./profile.js";

const CHAT = "/v1/chat/completions";
const NEAR = 48; // pixels from the end of the conversation, within which it follows what comes

const log = find("#log");
const turns = find("#turns");
const question = find("#question");
const panel = new ProfilePanel(fail);
let running = null; // the AbortController of the answer under way
let following = true;

/** Show what went wrong, where the conversation is. */
function fail(error, again = null) {
  const line = make("p", { class: "error", role: "alert", textContent: error.message });
  for (const old of turns.querySelectorAll(".error")) if (old.textContent === line.textContent) old.remove();
  if (again) line.append(" ", button("Again", () => { line.remove(); again(); }, { class: "again" }));
  (turns.lastElementChild ?? turns).append(line);
  follow();
}

function follow() {
  if (following) log.scrollTop = log.scrollHeight;
}

/** Stream answers; returns whether they came to their end, and whether two came out alike. */
async function answering(answers, work) {
  const control = new AbortController();
  running = control;
  const busy = (is) => {
    find("#send").hidden = is;
    find("#stop").hidden = !is;
    log.setAttribute("aria-busy", String(is));
  };
  busy(true);
  announce("Answering.");
  try {
    await work(control.signal);
    return true;
  } catch (error) {
    for (const answer of answers) {
      if (answer.element.getAttribute("aria-busy") === "true") answer.end("stopped");
    }
    if (error.name !== "AbortError") fail(error);
    announce("Stopped.");
    return false;
  } finally {
    running = null;
    busy(false);
  }
}

/** Read a stream into the answers that its chunks are of; returns whether two came out alike. */
async function read(answers, path, messages, drift, signal, more = {}) {
  let same = false;
  const body = { messages, drift: { ...panel.field, ...drift }, ...more };
  for await (const chunk of stream(path, body, signal)) {
    for (const { index, delta, restart, finish_reason: reason, drift: own } of chunk.choices) {
      const answer = answers[index];
      if (delta.role || restart) answer.begin();
      if (delta.content) answer.add(delta.content);
      if (reason) {
        answer.name = { id: chunk.id, index };
        answer.end(reason, own ?? chunk.drift);
      }
    }
    same ||= chunk.same === true;
    follow();
  }
  return same;
}

/** One question, and what was answered. */
class Turn {
  constructor(at, text) {
    this.at = at; // place of the question among the messages
    this.question = text;
    this.attempt = 0;
    this.pair = null;
    this.slot = make("div");
    this.element = make("section", { class: "turn" }, make("p", { class: "question", textContent: text }), this.slot);
    turns.append(this.element);
    find("#empty").hidden = true;
  }

  get messages() {
    return [...conversation.before(this.at), { role: "user", content: this.question }];
  }

  /** One answer. */
  async one() {
    const answer = new Answer("Answer");
    this.slot.replaceChildren(answer.element);
    await answering([answer], (signal) => read([answer], CHAT, this.messages, {}, signal));
    if (!this.element.isConnected) return;
    if (answer.text) {
      announce(answer.text);
      this.settle(answer);
    } else {
      this.unanswered(() => this.one());
    }
  }

  /** Two answers, in an order that tells nothing. */
  async two() {
    const pair = new Pair(["First answer", "Second answer"]);
    let same = false;
    await this.choose(pair, "page /ab", async (signal) => {
      same = await read(pair.answers, "/v1/drift/candidates", this.messages, {}, signal);
      pair.own = pair.answers[1].drift?.own ? 1 : 0;
      return same;
    }, () => this.two());
  }

  /** The person's answer, and what the model says by itself, drawn with the same noise. */
  async pure() {
    const pair = new Pair(["Mine", "Pure"]);
    const [mine, pure] = pair.answers;
    const [seed] = crypto.getRandomValues(new Uint32Array(1));
    await this.choose(pair, "page /compare", async (signal) => {
      await read([mine], CHAT, this.messages, {}, signal, { seed });
      await read([pure], CHAT, this.messages, { mode: "off" }, signal, { seed });
      return mine.text === pure.text;
    }, () => this.pure());
  }

  /** Another answer beside the one that is there. */
  async again(before) {
    this.attempt += 1;
    const pair = new Pair(["Before", "Again"], before);
    await this.choose(pair, "page /regen", async (signal) => {
      await read([pair.answers[1]], CHAT, this.messages, { attempt: this.attempt }, signal);
      return before.text === pair.answers[1].text;
    }, () => {});
  }

  async choose(pair, source, work, again) {
    this.pair = pair;
    this.slot.replaceChildren(pair.element);
    follow();
    let same = false;
    const ended = await answering(pair.answers, async (signal) => {
      same = await work(signal);
    });
    if (!this.element.isConnected) return;
    const [first, second] = pair.answers;
    if (!first.text) {
      this.unanswered(again);
    } else if (!ended || !second.text || same) {
      this.settle(first);
      if (same) first.tell("Both answers came out alike: there is nothing to choose.");
    } else {
      const own = pair.answers[pair.own];
      this.keep(own.text);
      announce(`${first.label.textContent}: ${first.text} ${second.label.textContent}: ${second.text}`);
      pair.open((index) => this.chosen(pair, index, source));
    }
  }

  async chosen(pair, index, source) {
    const kept = pair.answers[index ?? pair.own];
    const other = pair.answers.find((answer) => answer !== kept);
    this.settle(kept);
    find("button", kept.actions)?.focus({ preventScroll: true });
    await this.learn(kept, other.text, source, index === null);
  }

  async learn(kept, rejected, source, tie = false) {
    const choice = { messages: this.messages, chosen: kept.text, rejected, tie, source };
    const attempt = async () => {
      kept.tell("Learning …");
      try {
        kept.tell(await panel.learn(choice));
        announce(kept.note.textContent);
      } catch (error) {
        kept.tell("");
        fail(error, attempt);
      }
    };
    await attempt();
  }

  /** The answer that stays. */
  settle(answer) {
    this.pair = null;
    this.keep(answer.text);
    answer.label.textContent = "Answer";
    const actions = [
      button("Try again", () => running || this.again(answer), { class: "again" }),
      button("Edit", () => this.edit(answer)),
    ];
    if (answer.explains) actions.push(answer.whyButton(fail));
    answer.actions.replaceChildren(...actions);
    this.slot.replaceChildren(answer.element);
    follow();
  }

  /** The answer as the person would have it, which is a choice too. */
  edit(answer) {
    answer.edit((text) => {
      if (text !== null) {
        const before = answer.text;
        answer.set(text);
        answer.name = null;
        this.settle(answer);
        if (panel.steers) this.learn(answer, before, "page edit");
      }
      find("button", answer.actions)?.focus();
    });
  }

  keep(text) {
    conversation.put(this.at, "user", this.question);
    conversation.put(this.at + 1, "assistant", text);
  }

  /** Nothing came. */
  unanswered(again) {
    this.pair = null;
    this.slot.replaceChildren(button("Ask again", () => running || again(), { class: "again" }));
  }

  /** The person goes on without choosing. */
  leave() {
    if (this.pair) this.settle(this.pair.answers[this.pair.own]);
  }
}

let last = null;

function send() {
  const text = question.value.trim();
  if (!text || running) return;
  last?.leave();
  question.value = "";
  following = true;
  last = new Turn(conversation.messages.length, text);
  last[find("input[name=mode]:checked").value]();
}

function restore() {
  conversation.restore();
  const { messages } = conversation;
  for (let at = 0; at + 1 < messages.length; at += 2) {
    last = new Turn(at, messages[at].content);
    const answer = new Answer("Answer");
    answer.set(messages[at + 1].content);
    last.settle(answer);
  }
}

find("#composer").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
question.addEventListener("keydown", (event) => {
  // An Enter that ends a composition (Japanese, Chinese …) sends nothing.
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
find("#stop").addEventListener("click", () => {
  running?.abort();
  question.focus();
});
find("#new").addEventListener("click", () => {
  running?.abort();
  conversation.cut(0);
  turns.replaceChildren();
  last = null;
  find("#empty").hidden = false;
  question.focus();
});
find("#show-profile").addEventListener("click", (event) => {
  const shown = document.body.classList.toggle("profile-shown");
  event.currentTarget.setAttribute("aria-expanded", String(shown));
});
log.addEventListener("scroll", () => {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;
});
panel.select.addEventListener("shown", () => {
  for (const mode of document.querySelectorAll("#modes input:not([value=one])")) {
    mode.disabled = !panel.steers;
    if (mode.disabled && mode.checked) find("#modes input").checked = true;
  }
});
addEventListener("focus", () => running || panel.load()); // another program may have taught it

restore();
panel.load();
ask("GET", "/v1/models").then(
  ({ data }) => {
    find("#model").textContent = data[0].id;
  },
  fail,
);
