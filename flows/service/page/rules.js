// Rules as they are put together on the page, and as a request has them.

import { byId, make, small } from "/page/parts.js";

const WAYS = {
  number: [["is", "is"], ["any", "is one of"], ["gte", "at least"], ["lte", "at most"], ["gt", "above"], ["lt", "below"]],
  date: [["is", "is"], ["gte", "from"], ["lt", "before"], ["gt", "after"], ["lte", "until"]],
  text: [["is", "is"], ["any", "is one of"]],
  texts: [["is", "has"], ["any", "has one of"]],
  boolean: [["is", "is"]],
};

export function rules(changed) {
  let attributes = [];
  const leftOut = new Map(), conditions = byId("conditions");

  function addCondition() {
    // With the columns of the model that it was asked of, whatever a later one has.
    const row = make("li"), offered = attributes;
    const column = make("select", { "aria-label": "Column" }, ...offered.map((each) => make("option", {}, each.name)));
    const way = make("select", { "aria-label": "How" }), holder = make("span", { class: "named" });
    const value = () => holder.firstElementChild;
    function adapt() {
      const of = offered[column.selectedIndex];
      way.replaceChildren(...WAYS[of.kind].map(([name, text]) => make("option", { value: name }, text)));
      const [low, high] = [of.examples[0], of.examples.at(-1)];
      const hint = of.kind === "number" || of.kind === "date" ? `${low} to ${high}` : of.examples.slice(0, 3).join(", ");
      const options = `values-${of.name.replace(/\W/g, "-")}-${conditions.children.length}`;
      const field = of.kind === "boolean"
        ? make("select", { "aria-label": "Value" }, make("option", {}, "true"), make("option", {}, "false"))
        : make("input", { "aria-label": "Value", placeholder: hint, title: hint, list: options, autocomplete: "off" });
      const known = of.kind.startsWith("text")
        ? make("datalist", { id: options }, ...of.examples.map((each) => make("option", { value: String(each) }))) : null;
      field.addEventListener("change", changed);
      holder.replaceChildren(...[field, known].filter(Boolean));
    }
    column.addEventListener("change", () => { adapt(); changed(); });
    way.addEventListener("change", changed);
    row.read = () => read(offered[column.selectedIndex], way.value, value().value.trim());
    row.append(column, way, holder, small("×", "Remove the condition", () => { row.remove(); changed(); }));
    conditions.append(row);
    adapt();
    value().focus();
  }

  /** A condition as [column, what a request says]; nothing where no value was given. */
  function read(of, way, text) {
    if (!text) return null;
    const one = (part) => {
      if (of.kind !== "number") return of.kind === "boolean" ? part === "true" : part;
      // 1,000 is a thousand to one, and 1 to another.
      if (/,\d{3}$/.test(part)) throw new Error(`${of.name}: write “${part}” as 1000 or 0.125.`);
      const found = Number(part.replace(",", "."));
      if (Number.isFinite(found)) return found;
      throw new Error(`${of.name}: “${part}” is no number.`);
    };
    if (way === "is") return [of.name, one(text)];
    if (way !== "any") return [of.name, { [way]: one(text) }];
    const parts = text.split(/[;|]|, /).map((part) => part.trim()).filter(Boolean);
    return parts.length ? [of.name, parts.map(one)] : null;
  }

  function where() {
    const found = {};
    for (const row of conditions.children) {
      const said = row.read();
      if (!said) continue;
      const [name, condition] = said, before = found[name];
      const ranges = [before, condition].every((each) => each && typeof each === "object" && !Array.isArray(each));
      if (before !== undefined && !ranges) throw new Error(`${name}: ask for it once.`);
      found[name] = ranges ? { ...before, ...condition } : condition;
    }
    return Object.keys(found).length ? found : null;
  }

  function showLeftOut() {
    byId("left-out-part").hidden = !leftOut.size;
    byId("left-out").replaceChildren(...[...leftOut.values()].map((item) =>
      make("li", {}, make("span", { class: "named" }, item.title),
        small("×", `Allow ${item.title} again`, () => { leftOut.delete(item.item_id); showLeftOut(); changed(); }))));
  }

  for (const id of ["only-list", "exclude-list"]) byId(id).addEventListener("change", changed);
  byId("add-condition").addEventListener("click", addCondition);

  return {
    leaveOut(item) { leftOut.set(item.item_id, item); showLeftOut(); changed(); },
    know(catalogue, lists) {
      attributes = catalogue.attributes;
      byId("no-attributes").hidden = attributes.length > 0;
      byId("add-condition").hidden = !attributes.length;
      for (const id of ["only-list", "exclude-list"]) {
        const select = byId(id), was = select.value;
        select.replaceChildren(select.options[0], ...lists.map((list) =>
          make("option", { value: list.name }, `${list.name} (${list.items.toLocaleString("en")})`)));
        select.value = lists.some((list) => list.name === was) ? was : "";
      }
    },
    /** What a request says of them. */
    asked() {
      const only = {}, exclude = {}, met = where();
      if (byId("only-list").value) only.list = byId("only-list").value;
      if (met) only.where = met;
      if (byId("exclude-list").value) exclude.list = byId("exclude-list").value;
      if (leftOut.size) exclude.items = [...leftOut.keys()];
      return { ...(Object.keys(only).length ? { only } : {}), ...(Object.keys(exclude).length ? { exclude } : {}) };
    },
  };
}
