// The profile: who steers, how strongly, and what has been learned.

import { ask } from "./api.js";
import { announce, button, find, make, signed } from "./dom.js";

const STRENGTH = "strength";
const NOBODY = "\n"; // no profile can be called so
const MOVES = 3; // of a lesson that are told

/** The panel beside the conversation. */
export class ProfilePanel {
  /** @param {(error: Error) => void} failed told of what the server refused. */
  constructor(failed) {
    this.failed = failed;
    this.current = null; // the server's
    this.chosen = undefined; // undefined: the server's; null: nobody's
    this.rows = new Map();
    this.select = find("#profile-name");
    this.strength = find("#strength");
    this.own = { beta: null, strength: null }; // the profile's, which steer until a strength is set here
    this.set = kept();
    this.select.addEventListener("change", () => {
      const name = this.select.value;
      this.chosen = name === NOBODY ? null : name === this.current ? undefined : name;
      this.load();
    });
    this.strength.addEventListener("input", () => this.setStrength(Number(this.strength.value)));
    find("#strength-reset").addEventListener("click", () => {
      this.setStrength(null);
      this.strength.focus();
    });
    find("#choices").addEventListener("toggle", () => this.listChoices());
  }

  /** Whether a profile steers. */
  get steers() {
    return this.select.value !== NOBODY;
  }

  /** What requests say in their field `drift`. */
  get field() {
    const field = this.chosen === undefined ? {} : { profile: this.chosen };
    return this.set === null || !this.steers ? field : { ...field, strength: this.set };
  }

  path(route) {
    return `/v1/drift/${route}${this.chosen ? `?profile=${encodeURIComponent(this.chosen)}` : ""}`;
  }

  /** Ask for all profiles, and show the one that steers. */
  async load() {
    try {
      const { current, profiles } = await ask("GET", "/v1/drift/profiles");
      this.current = current;
      const names = [...new Set([...(current === null ? [] : [current]), ...profiles])];
      const selected = this.chosen === undefined ? current : this.chosen;
      this.select.replaceChildren(
        ...names.map((name) => make("option", { value: name, textContent: name, selected: name === selected })),
        make("option", { value: NOBODY, textContent: "nobody's", selected: selected === null }),
      );
      find("#profile").classList.toggle("nobody", !this.steers);
      if (this.steers) this.show(await ask("GET", this.path("profile")));
      else find("#counts").textContent = "Answers are the model's own.";
      this.select.dispatchEvent(new Event("shown"));
    } catch (error) {
      this.failed(error);
    }
  }

  async change(body) {
    try {
      this.show(await ask("PATCH", this.path("profile"), body));
    } catch (error) {
      this.failed(error);
      this.load();
    }
  }

  /** Show a profile. */
  show(profile) {
    const { n, pending, settings, weights, attributes } = profile;
    const waiting = pending ? `, ${pending} not yet counted` : "";
    find("#counts").textContent = n || pending
      ? `Learned from ${n} ${n === 1 ? "choice" : "choices"}${waiting}.`
      : "Nothing learned yet: ask for two answers and choose one.";
    this.own = settings;
    this.tellStrength();

    const focused = document.activeElement;
    const names = Object.keys(weights).sort((a, b) => Math.abs(weights[b].weight) - Math.abs(weights[a].weight));
    const reach = Math.max(0.25, ...names.map((name) => Math.abs(weights[name].weight) + (weights[name].se ?? 0)));
    const [front, behind] = [find("#bars"), find("#others .bars")];
    for (const name of names) {
      if (!this.rows.has(name)) this.rows.set(name, this.row(name));
      const row = this.rows.get(name);
      const pinned = settings.pinned.includes(name);
      row.update(weights[name], reach, attributes[name], pinned, settings.blocked.includes(name));
      (weights[name].active || pinned ? front : behind).append(row.element);
    }
    if (focused !== document.activeElement) focused.focus({ preventScroll: true });
    this.listChoices();
  }

  /** Steer by a strength from 0 to 1, or as the profile says again. */
  setStrength(strength) {
    this.set = strength;
    try {
      if (strength === null) localStorage.removeItem(STRENGTH);
      else localStorage.setItem(STRENGTH, String(strength));
    } catch {
      // A browser that keeps nothing still steers.
    }
    this.tellStrength();
  }

  tellStrength() {
    const strength = this.set ?? this.own.strength;
    const told = strength === null ? `beta ${this.own.beta}` : strength.toFixed(2);
    this.strength.value = strength ?? 0.5; // about what the paper's beta achieves
    find("#strength-told").textContent = told;
    find("#strength-reset").disabled = this.set === null;
    this.strength.setAttribute("aria-valuetext", told);
  }

  row(name) {
    const bar = make("span", { class: "bar" });
    const error = make("span", { class: "error-bar" });
    const track = make("span", { class: "track", "aria-hidden": "true" }, bar, error);
    const value = make("span", { class: "value" });
    const toggle = (text, on, off) => {
      const made = button(text, () => {
        this.change({ [made.getAttribute("aria-pressed") === "true" ? off : on]: [name] });
      });
      made.setAttribute("aria-label", `${text} ${name}`);
      return made;
    };
    const [pin, block] = [toggle("Pin", "pin", "unpin"), toggle("Block", "block", "allow")];
    const title = make("span", { class: "name", textContent: name });
    const element = make("li", {}, title, value, pin, block, track);
    const percent = (weight, reach) => 50 + (50 * Math.max(-reach, Math.min(reach, weight))) / reach;

    const update = ({ weight, se, learned }, reach, prompt, pinned, blocked) => {
      const [zero, end] = [50, percent(weight, reach)];
      bar.style.left = `${Math.min(zero, end)}%`;
      bar.style.width = `${Math.abs(end - zero)}%`;
      bar.classList.toggle("negative", weight < 0);
      error.hidden = !se;
      if (se) {
        const [from, to] = [percent(weight - se, reach), percent(weight + se, reach)];
        error.style.left = `${from}%`;
        error.style.width = `${to - from}%`;
      }
      value.textContent = signed(weight);
      value.title = [se ? `standard error ${se.toFixed(2)}` : "", learned === undefined ? "" : "set by hand"]
        .filter(Boolean)
        .join(", ");
      title.title = prompt;
      element.classList.toggle("blocked", blocked);
      pin.setAttribute("aria-pressed", String(pinned));
      block.setAttribute("aria-pressed", String(blocked));
    };
    return { element, update };
  }

  /** Learn a choice; returns what became of it, in words. */
  async learn(choice) {
    const told = await ask("POST", this.path("choices"), choice);
    this.show(told.profile);
    if (choice.tie) return "Noted: neither was better.";
    if (told.learned) return `Learned. ${moves(told)}`;
    return told.known ? "This choice was known already." : `Kept for later: ${told.why}`;
  }

  /** List the last choices, where the list is open. */
  async listChoices() {
    if (!find("#choices").open || !this.steers) return;
    try {
      const { choices } = await ask("GET", this.path("choices"));
      const list = find("#choices ol");
      list.replaceChildren(
        ...choices.map(({ id, question, chosen, tie }) => {
          const forget = button("Forget", () => this.forget(id));
          forget.setAttribute("aria-label", `Forget the choice on: ${question.slice(0, 80)}`);
          const what = make("span", { class: "what", textContent: tie ? "neither was better" : chosen });
          return make("li", {}, make("span", { class: "what", textContent: question }), what, forget);
        }),
      );
      if (!choices.length) list.append(make("li", { class: "muted", textContent: "None yet." }));
    } catch (error) {
      this.failed(error);
    }
  }

  async forget(id) {
    try {
      const [route, query] = this.path(`choices/${encodeURIComponent(id)}`).split("?");
      const told = await ask("DELETE", query ? `${route}?${query}` : route);
      this.show(told.profile);
      announce(`Forgotten. ${moves(told)}`);
      find("#choices summary").focus();
    } catch (error) {
      this.failed(error);
    }
  }
}

/** The strength that was set before, or null. */
function kept() {
  try {
    const strength = Number.parseFloat(localStorage.getItem(STRENGTH));
    return strength >= 0 && strength <= 1 ? strength : null;
  } catch {
    return null;
  }
}

/** The weights that moved most. */
function moves({ before, after }) {
  const moved = [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .map((name) => ({ name, from: before[name] ?? 0, to: after[name] ?? 0 }))
    .filter(({ from, to }) => Math.abs(to - from) >= 0.005)
    .sort((a, b) => Math.abs(b.to - b.from) - Math.abs(a.to - a.from));
  const told = moved.slice(0, MOVES).map(({ name, from, to }) => `${name} ${signed(from)} → ${signed(to)}`);
  return told.length ? `${told.join(", ")}.` : "No weight moved.";
}
