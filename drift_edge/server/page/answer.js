// One answer: its words as they come, and what can be done with it.

import { button, make } from "./dom.js";
import { tinted } from "./tint.js";

const REASONS = {
  length: "Ended at the limit of its length.",
  stopped: "Stopped.",
};

/** An answer on the page. */
export class Answer {
  /** @param {string} label what it is called, such as "Answer". */
  constructor(label) {
    this.text = "";
    this.name = null; // { id, index }, by which the server knows it
    this.drift = null;
    this.body = make("div", { class: "text" });
    this.note = make("p", { class: "note muted" });
    this.actions = make("div", { class: "actions" });
    this.legend = make("p", { class: "legend", hidden: true });
    this.label = make("h3", { class: "label", textContent: label });
    this.element = make("article", { class: "answer", "aria-busy": "false" });
    this.element.append(this.label, this.body, this.legend, this.note, this.actions);
  }

  /** The answer begins, or begins again. */
  begin() {
    this.text = "";
    this.body.replaceChildren();
    this.element.setAttribute("aria-busy", "true");
  }

  /** More of its text. */
  add(text) {
    this.text += text;
    this.body.append(text);
  }

  /** The whole of its text at once. */
  set(text) {
    this.text = text;
    this.body.replaceChildren(text);
    this.legend.hidden = true;
  }

  /** The answer has ended. */
  end(reason, drift = null) {
    this.drift = drift;
    this.body.normalize();
    this.element.setAttribute("aria-busy", "false");
    const told = [REASONS[reason] ?? "", ...(drift?.notices ?? []).map((notice) => notice.text)];
    this.tell(told.filter(Boolean).join(" "));
  }

  /** A line below it. */
  tell(text) {
    this.note.textContent = text;
  }

  /** Whether the server can say why its words came. */
  get explains() {
    const steering = this.drift?.steering;
    return this.name !== null && ["logits", "both"].includes(steering?.mode) && Object.keys(steering.weights).length > 0;
  }

  /** A button that tints the words by what pushed them, and takes the tint off again. */
  whyButton(failed) {
    const toggle = button("Why these words", async () => {
      if (toggle.getAttribute("aria-pressed") === "true") {
        this.set(this.text);
        toggle.setAttribute("aria-pressed", "false");
        return;
      }
      toggle.disabled = true;
      try {
        const { words, legend } = await tinted(this.name, this.drift.steering.weights);
        this.body.replaceChildren(...words);
        this.legend.replaceChildren(...legend);
        this.legend.hidden = false;
        toggle.setAttribute("aria-pressed", "true");
        toggle.scrollIntoView({ block: "nearest" }); // the legend pushed it down
      } catch (error) {
        failed(error);
      } finally {
        toggle.disabled = false;
      }
    });
    toggle.setAttribute("aria-pressed", "false");
    return toggle;
  }

  /** Let the person rewrite it: `done` gets the new text, and nothing where it stayed. */
  edit(done) {
    const field = make("textarea", { value: this.text, "aria-label": "Edit the answer" });
    field.rows = Math.min(20, Math.max(3, Math.ceil(this.body.offsetHeight / 24)));
    const save = button("Save", () => finish(field.value.trim()), { class: "primary" });
    const bar = make("div", { class: "actions" }, save, button("Cancel", () => finish(null)));
    const finish = (text) => {
      bar.replaceWith(this.actions);
      this.set(this.text);
      done(text === "" || text === this.text ? null : text);
    };
    field.addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        event.stopPropagation();
        finish(null);
      }
    });
    this.body.replaceChildren(field);
    this.legend.hidden = true;
    this.actions.replaceWith(bar);
    field.focus();
  }
}
