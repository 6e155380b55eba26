// The field that finds items by title: arrows choose, Enter takes, Escape closes.

import { ask, Refused } from "/page/api.js";
import { byId, make, newMark } from "/page/parts.js";

const PAUSE = 150;

export function finder(take, complain) {
  const field = byId("search"), list = byId("found");
  let items = [], chosen = -1, timer = 0, asked = 0;

  function close() {
    list.hidden = true;
    chosen = -1;
    field.setAttribute("aria-expanded", "false");
    field.removeAttribute("aria-activedescendant");
  }

  function choose(place) {
    chosen = place;
    for (const [each, row] of [...list.children].entries()) row.setAttribute("aria-selected", String(each === place));
    const row = list.children[place];
    if (row) {
      field.setAttribute("aria-activedescendant", row.id);
      row.scrollIntoView({ block: "nearest" });
    }
  }

  function pick(place) {
    const item = items[place];
    if (!item) return;
    take(item);
    field.value = "";
    close();
    field.focus();
  }

  function show() {
    list.replaceChildren(...items.map((item, place) =>
      make("li", { id: `found-${place}`, role: "option", "aria-selected": "false",
        onmousedown: (event) => { event.preventDefault(); pick(place); } },
      item.title, " ", newMark(item), " ", make("span", { class: "id" }, item.item_id))));
    if (!items.length) list.append(make("li", { "aria-disabled": "true" }, "no such item"));
    list.hidden = false;
    field.setAttribute("aria-expanded", "true");
    choose(items.length ? 0 : -1);
  }

  async function look() {
    const text = field.value.trim(), own = ++asked;
    if (!text) return close();
    try {
      const found = await ask(`/catalogue/search?text=${encodeURIComponent(text)}`);
      if (own !== asked) return;
      items = found.items;
      show();
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      complain(error.message);
    }
  }

  field.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, PAUSE); });
  field.addEventListener("blur", close);
  field.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step && !list.hidden && items.length) {
      event.preventDefault();
      choose((chosen + step + items.length) % items.length);
    } else if (event.key === "Enter") {
      event.preventDefault();
      if (!list.hidden) pick(chosen);
    } else if (event.key === "Escape") close();
  });
}
