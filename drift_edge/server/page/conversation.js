// The messages so far. They outlive a reload of the page, and end with its tab.

const KEY = "messages";

/** Messages as OpenAI's API has them: questions and answers in turn. */
export const conversation = {
  messages: [],

  /** Take up what this tab had. */
  restore() {
    try {
      const kept = JSON.parse(sessionStorage.getItem(KEY) ?? "[]");
      this.messages = Array.isArray(kept) ? kept : [];
    } catch {
      this.messages = [];
    }
  },

  /** Put a message at a place: the next one, or one that is there. */
  put(at, role, content) {
    this.messages[at] = { role, content };
    this.keep();
  },

  /** Messages up to a place. */
  before(at) {
    return this.messages.slice(0, at);
  },

  /** Forget the messages from a place on. */
  cut(at) {
    this.messages.length = at;
    this.keep();
  },

  keep() {
    try {
      sessionStorage.setItem(KEY, JSON.stringify(this.messages));
    } catch {
      // Too long to keep: it is still on the page.
    }
  },
};
