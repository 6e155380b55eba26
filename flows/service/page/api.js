// Questions to the service. The token, where one is asked for, is kept in this module's memory and nowhere else.

import { byId } from "/page/parts.js";

let token = "";

export class Refused extends Error {
  /** Nobody answers, or not yet: it is worth asking again. */
  constructor(text, later = false) {
    super(text);
    this.later = later;
  }
}

/** Ask until the service lets us in: where it wants a token, the page shows the field for it and waits. */
export async function ask(path, body) {
  for (;;) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const options = { headers, credentials: "omit", cache: "no-store" };
    if (body !== undefined) {
      Object.assign(options, { method: "POST", body: JSON.stringify(body) });
      headers["Content-Type"] = "application/json";
    }
    let answer;
    try {
      answer = await fetch(path, options);
    } catch {
      throw new Refused("The service does not answer.", true);
    }
    if (answer.status === 401) {
      await entered(token !== "");
      continue;
    }
    const found = await answer.json().catch(() => ({ detail: `The service answers ${answer.status}.` }));
    if (!answer.ok) throw new Refused(found.detail, answer.status === 503);
    return found;
  }
}

let waiting = null;

function entered(wasWrong) {
  if (waiting) return waiting;
  token = "";
  const door = byId("door");
  door.hidden = false;
  byId("status").textContent = wasWrong ? "This is not the token." : "This service asks for its token.";
  byId("token").focus();
  waiting = new Promise((resolve) => {
    door.addEventListener("submit", (event) => {
      event.preventDefault();
      token = byId("token").value.trim();
      byId("token").value = "";
      door.hidden = true;
      byId("status").textContent = "";
      waiting = null;
      resolve();
    }, { once: true });
  });
  return waiting;
}
