// The lists of all scores side by side, with reasons, and the panel of one item.

import { ask, Refused } from "/page/api.js";
import { byId, codesInWords, make, newMark, number, plain, small } from "/page/parts.js";

const SCORERS = {
  ranked: "Ranked", fused: "Fused", generative: "Generative", dense: "Dense score", popular: "Popularity",
};
const PARTS = {
  generative: "generation", dense: "dense score", successor: "what followed", text: "nearness of text", popularity: "popularity",
  predecessor: "what came before", item_knn: "what others have too", own_count: "how often it was had", own_recency: "how lately it was had",
};

function highlight(id, on) {
  for (const row of document.querySelectorAll("#lists li[data-item]"))
    row.classList.toggle("same", on && row.dataset.item === id);
}

function reason(why) {
  const most = Math.max(...why.parts.map((part) => Math.abs(part.contribution)), 1e-9);
  const rows = [...why.parts].sort((a, b) => Math.abs(b.contribution) - Math.abs(a.contribution)).flatMap((part) => {
    const bar = make("div", { class: `bar ${part.contribution < 0 ? "down" : "up"}` });
    bar.style.width = `${(100 * Math.abs(part.contribution)) / most}%`;
    const about = part.title ? `${part.name === "text" ? "near" : "after"} ${part.title}`
      : part.name === "popularity" && part.value !== undefined ? `${part.value} times in training` : "";
    const row = make("tr", {}, make("td", {}, PARTS[part.name] ?? part.name), make("td", {}, bar),
      make("td", { class: `number ${part.contribution < 0 ? "text-down" : "text-up"}` }, number(part.contribution)));
    return about ? [row, make("tr", {}, make("td", { class: "id", colspan: "3" }, about))] : [row];
  });
  const from = why.baseline === null || why.baseline === undefined ? "Nothing of the history is known."
    : `Added to ${plain(why.baseline)}, the score of this history's mean candidate.`;
  return make("div", { class: "why" }, make("table", {}, make("tbody", {}, ...rows)), make("p", { class: "id" }, from),
    codesInWords(why.codes));
}

function row(item, actions) {
  const li = make("li", { "data-item": item.item_id,
    onmouseenter: () => highlight(item.item_id, true), onmouseleave: () => highlight(item.item_id, false),
    onfocusin: () => highlight(item.item_id, true), onfocusout: () => highlight(item.item_id, false) });
  const why = item.why ? reason(item.why) : null;
  if (why) why.hidden = true;
  const toggle = why && small("why", `Why ${item.title}`, () => {
    why.hidden = !why.hidden;
    toggle.setAttribute("aria-expanded", String(!why.hidden));
  }, { "aria-expanded": "false" });
  li.append(
    make("div", { class: "line" }, make("span", { class: "rank" }, String(item.rank)),
      make("button", { type: "button", class: "title", onclick: () => showItem(item.item_id, actions) }, item.title),
      make("span", { class: "score", title: "score" }, plain(item.score))),
    make("div", { class: "under" }, newMark(item) ?? "", make("span", { class: "id" }, item.item_id), toggle ?? "",
      small("+", `Add ${item.title} to the history`, () => actions.add(item)),
      small("−", `Leave ${item.title} out`, () => actions.leaveOut(item))));
  if (why) li.append(why);
  return li;
}

export function showLists(lists, k, actions) {
  byId("lists").replaceChildren(...lists.map((list) => {
    const title = make("h3", { id: `list-${list.scorer}` }, SCORERS[list.scorer] ?? list.scorer);
    if (list.recommends) title.append(make("span", { class: "id" }, " recommends"));
    const short = list.items.length < k ? make("p", { class: "quiet" },
      list.items.length ? `No more than ${list.items.length} are left.` : "Nothing is left.") : null;
    return make("article", { class: `list${list.recommends ? " recommends" : ""}`, "aria-labelledby": `list-${list.scorer}` },
      title, make("ol", {}, ...list.items.map((item) => row(item, actions))), short ?? "");
  }));
}

function neighbours(title, items, told, actions) {
  const rows = items.map((item) => make("li", {},
    make("span", { class: "named" }, make("button", { type: "button", class: "title",
      onclick: () => showItem(item.item_id, actions) }, item.title), " ", newMark(item)),
    make("span", { class: "id" }, told(item)), small("+", `Add ${item.title} to the history`, () => actions.add(item))));
  return make("section", {}, make("h3", {}, title),
    rows.length ? make("ul", {}, ...rows) : make("p", { class: "quiet" }, "None are known."));
}

export async function showItem(id, actions) {
  let found;
  try {
    found = await ask(`/catalogue/item?item_id=${encodeURIComponent(id)}`);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return actions.complain(error.message);
  }
  byId("item-title").replaceChildren(found.item.title, " ", newMark(found.item) ?? "");
  byId("item-about").textContent = `${found.item.item_id}, ${found.times_in_training.toLocaleString("en")} times in training`;
  byId("item-parts").replaceChildren(
    make("section", {}, make("h3", {}, "Codes in words"), codesInWords(found.codes)),
    neighbours("Neighbours in code space", found.in_codes, (item) => `${item.shared_codes} code${item.shared_codes === 1 ? "" : "s"} shared`, actions),
    neighbours("Neighbours in text", found.in_text, (item) => `cosine ${plain(item.cosine)}`, actions));
  const dialog = byId("item");
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
}
