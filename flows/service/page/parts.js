// Pieces of the page. What comes from data is set as text, never as HTML.

export const byId = (id) => document.getElementById(id);

/** An element with attributes, listeners (`onclick`) and children; texts become text. */
export function make(name, given = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(given)) {
    if (value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "class") element.className = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const number = (value) => (value > 0 ? "+" : value < 0 ? "−" : "") + Math.abs(value).toFixed(2);
export const plain = (value) => value.toFixed(2).replace("-", "−");

export const newMark = (item) => (item.new ? make("span", { class: "new", title: "not there in training" }, "new") : null);

export function small(text, label, onclick, more = {}) {
  return make("button", { type: "button", class: "small", "aria-label": label, title: label, onclick, ...more }, text);
}

/** Codes as what their items have in common. */
export function codesInWords(codes) {
  const steps = codes.map((step, level) => {
    const words = step.words.length ? step.words.join(", ") : step.items === 1 ? "this item alone" : "no words in common";
    const likely = step.log_probability === undefined || step.log_probability === null
      ? "" : ` · ${Math.round(100 * Math.exp(step.log_probability))}%`;
    return make("li", { title: `code ${step.code} of level ${level + 1}, shared by ${step.items} items` },
      `${step.code}: ${words}`, make("span", { class: "id" }, ` ${step.items}${likely}`));
  });
  return make("ol", { class: "codes", "aria-label": "Codes in words" }, ...steps);
}
