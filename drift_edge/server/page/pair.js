// Two answers side by side, one of which a person chooses.

import { Answer } from "./answer.js";
import { button, make } from "./dom.js";

/** Two answers to one question. */
export class Pair {
  /**
   * @param {string[]} labels what the two are called.
   * @param {Answer} [first] an answer that is there already.
   */
  constructor(labels, first = new Answer("")) {
    this.answers = [first, new Answer("")];
    this.own = 0; // the one that stays where nobody chooses
    this.buttons = labels.map((label, i) => {
      this.answers[i].label.textContent = label;
      const choose = button("Choose this one", () => this.close(i), { disabled: true });
      choose.setAttribute("aria-label", `Choose ${label}`);
      this.answers[i].actions.replaceChildren(choose);
      return choose;
    });
    this.neither = button("Neither is better", () => this.close(null), { disabled: true });
    const columns = make("div", { class: "columns" }, ...this.answers.map((answer) => answer.element));
    this.element = make("section", { class: "pair", "aria-label": "Two answers" }, columns, this.neither);
  }

  /** Let the person choose: `chosen` gets the index, or null where neither is better. */
  open(chosen) {
    this.close = (index) => {
      this.close = () => {};
      chosen(index);
    };
    for (const each of [...this.buttons, this.neither]) each.disabled = false;
  }

  close() {}
}
