// Elements, and what screen readers are told.

/** The element that a selector names. */
export const find = (selector, within = document) => within.querySelector(selector);

/** A new element: properties (`class`, `aria-…` and `data-…` are attributes, functions are listeners), then children. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name.includes("-") || name === "class" || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

/** A button. */
export const button = (text, click, properties = {}) =>
  make("button", { type: "button", textContent: text, click, ...properties });

/** Have screen readers say something once. */
export function announce(text) {
  find("#status").textContent = text;
}

/** A number with its sign, to two places. */
export const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;
