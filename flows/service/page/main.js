// The page put together: a history and rules in, the lists of all scores out.

import { ask, Refused } from "/page/api.js";
import { finder } from "/page/finder.js";
import { showItem, showLists } from "/page/lists.js";
import { byId, make, newMark, small } from "/page/parts.js";
import { rules } from "/page/rules.js";

const PAUSE = 120, AGAIN = 2000;
let history = [], timer = 0, asked = 0, model = "";

function complain(text) {
  byId("status").replaceChildren(make("span", { class: "error" }, text));
}

function changed() {
  clearTimeout(timer);
  timer = setTimeout(explore, PAUSE);
}

const rule = rules(changed);
const actions = {
  add: (item) => setHistory([...history, item]),
  leaveOut: (item) => rule.leaveOut(item),
  complain,
};

function setHistory(items, focus) {
  history = items;
  showHistory(focus);
  changed();
}

function move(from, to) {
  const items = [...history];
  items.splice(to, 0, ...items.splice(from, 1));
  setHistory(items, [to, to < from ? "up" : "down"]);
}

function showHistory(focus) {
  const last = history.length - 1;
  byId("history").replaceChildren(...history.map((item, place) => make("li", {},
    make("span", { class: "named" },
      item.unknown ? make("span", { class: "unknown" }, `${item.item_id} (unknown)`)
        : make("button", { type: "button", class: "title", onclick: () => showItem(item.item_id, actions) }, item.title),
      " ", newMark(item)),
    small("↑", `Move ${item.title} up`, () => move(place, place - 1), { disabled: place === 0, "data-way": "up" }),
    small("↓", `Move ${item.title} down`, () => move(place, place + 1), { disabled: place === last, "data-way": "down" }),
    small("×", `Remove ${item.title}`, () => {
      const rest = history.filter((_, other) => other !== place);
      setHistory(rest, rest.length ? [Math.min(place, rest.length - 1), "remove"] : null);
      if (!rest.length) byId("search").focus();
    }, { "data-way": "remove" }))));
  byId("history-empty").hidden = history.length > 0;
  byId("clear").disabled = !history.length;
  if (focus) {
    const row = byId("history").children[focus[0]];
    (row.querySelector(`[data-way=${focus[1]}]:not(:disabled)`) ?? row.querySelector("button:not(:disabled)")).focus();
  }
}

async function explore() {
  const own = ++asked, k = Math.min(100, Math.max(1, Math.round(Number(byId("k").value)) || 10));
  byId("lists").setAttribute("aria-busy", "true");
  try {
    // Until somebody says, it is as the model was measured.
    const seen = byId("keep-seen").indeterminate ? {} : { keep_seen: byId("keep-seen").checked };
    const body = { history: history.map((item) => item.item_id), k, ...seen, ...rule.asked() };
    const found = await ask("/explore", body);
    if (own !== asked) return;
    if (`${found.model.name}/${found.model.version}` !== model) await know();
    const named = new Map(found.history.map((item) => [item.item_id, item])), unknown = new Set(found.unknown_items);
    history = history.map((item) => named.get(item.item_id)
      ?? { item_id: item.item_id, title: item.item_id, new: false, unknown: unknown.has(item.item_id) });
    if (!byId("history").contains(document.activeElement)) showHistory();
    showLists(found.lists, k, actions);
    const told = found.rule ? `${found.rule.allowed.toLocaleString("en")} items may be recommended.` : "";
    byId("status").textContent = unknown.size ? `${unknown.size} unknown in the history. ${told}` : told;
  } catch (error) {
    if (own !== asked) return;
    // What stood there was asked for otherwise.
    byId("lists").replaceChildren();
    complain(error.message);
    if (!(error instanceof Refused) && !(error instanceof Error)) throw error;
  } finally {
    byId("lists").removeAttribute("aria-busy");
  }
}

async function know() {
  const catalogue = await ask("/catalogue"), { lists } = await ask("/lists");
  model = `${catalogue.model.name}/${catalogue.model.version}`;
  const news = catalogue.new_items ? `, ${catalogue.new_items.toLocaleString("en")} of them new` : "";
  byId("model").textContent = `${model}: ${catalogue.items.toLocaleString("en")} items${news}`;
  rule.know(catalogue, lists);
}

/** A service that is starting has no model yet. */
async function begin() {
  try {
    await know();
  } catch (error) {
    complain(error.message);
    if (error.later) setTimeout(begin, AGAIN);
    return;
  }
  byId("status").textContent = "";
  await explore();
}

async function takeExample() {
  const said = byId("example-said");
  try {
    const { users } = await ask("/catalogue/examples");
    if (!users.length) {
      said.textContent = "The data set of this model is not at hand.";
      return;
    }
    const [user] = users;
    said.textContent = `${user.user_id}, who then took ${user.held_back}`;
    setHistory(user.history.map((id) => ({ item_id: id, title: id, new: false })));
    showItemTitle(user, said);
  } catch (error) {
    complain(error.message);
  }
}

async function showItemTitle(user, said) {
  try {
    const { item } = await ask(`/catalogue/item?item_id=${encodeURIComponent(user.held_back)}`);
    said.textContent = `${user.user_id}, who then took: ${item.title}`;
  } catch { /* The id says it too. */ }
}

finder((item) => actions.add(item), complain);
byId("example").addEventListener("click", takeExample);
byId("clear").addEventListener("click", () => { byId("example-said").textContent = ""; setHistory([]); byId("search").focus(); });
byId("paste").addEventListener("click", () => {
  const ids = byId("pasted").value.split(/[,\n]/).map((id) => id.trim().replace(/^["']|["']$/g, "")).filter(Boolean);
  if (ids.length) setHistory(ids.map((id) => ({ item_id: id, title: id, new: false })));
});
for (const id of ["k", "keep-seen"]) byId(id).addEventListener("change", changed);
byId("keep-seen").indeterminate = true;
showHistory();
begin();
