// Words tinted by the attribute that pushed them most.

import { ask } from "./api.js";
import { make, signed } from "./dom.js";

const LEAST = 0.1; // nats: pushes below it are told of nobody's
const FULL = 2; // nats of the strongest tint

/** Spans of the words of an answer, and a legend of the attributes in them. */
export async function tinted(name, weights) {
  const { attributes, tokens } = await ask("POST", "/v1/drift/explain", name);
  // A negative weight pushes away from its attribute.
  const titles = attributes.map((attribute) => (weights[attribute] < 0 ? `less ${attribute}` : attribute));
  const hue = (i) => String(Math.round((360 * i) / attributes.length + 200) % 360);
  const counts = attributes.map(() => 0);
  let begun = false;
  const words = [];
  for (const { text, pushes } of tokens) {
    const shown = begun ? text : text.trimStart();
    if (!shown) continue;
    begun = true;
    const most = pushes.indexOf(Math.max(...pushes));
    if (!(pushes[most] >= LEAST) || !shown.trim()) {
      words.push(shown);
      continue;
    }
    counts[most] += 1;
    const word = make("span", { class: "tint", textContent: shown });
    word.title = `${titles[most]} ${signed(pushes[most])} nats`;
    word.style.setProperty("--hue", hue(most));
    word.style.setProperty("--tint", `${Math.round(35 + 65 * Math.min(1, pushes[most] / FULL))}%`);
    words.push(word);
  }
  const legend = attributes.flatMap((_, i) => {
    if (!counts[i]) return [];
    const item = make("span", { class: "tint", textContent: titles[i] });
    item.style.setProperty("--hue", hue(i));
    item.style.setProperty("--tint", "80%");
    return [item, ` ${counts[i]}  `];
  });
  return { words, legend: legend.length ? ["Tokens pushed by ", ...legend] : ["Steering pushed none of these words."] };
}
