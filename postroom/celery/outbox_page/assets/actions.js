// The action log: who did what, when, to what, and what came of it.
import { count, get, h, table, time } from "./dom.js";

const PAGE = 50;
let skip = 0;
const again = () => window.dispatchEvent(new Event("outbox-refresh"));

export const actions = {
  title: "Actions",
  enter() { skip = 0; },
  load: () => get("actions", { skip, limit: PAGE }),
  show(answer) {
    return [h("div", { class: "outbox-card" },
      table(["When", "Who", "What", "Of what", "Filter", "How many", "Result"], answer.actions.map(row), { label: "Action log", empty: "Nobody has acted yet." })),
    h("div", { class: "outbox-bar" },
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: !skip, "data-key": "actions-newer", onclick: () => { skip = Math.max(0, skip - PAGE); again(); } }, "Newer"),
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: !answer.more, "data-key": "actions-older", onclick: () => { skip += PAGE; again(); } }, "Older"))];
  },
};

function row(action) {
  const where = Object.entries(action.where).map(([name, value]) => `${name} ${value}`).join(", ");
  return h("tr", {},
    h("td", {}, time(action.began_at)), h("td", {}, action.who || "—", h("div", { class: "outbox-muted" }, action.by)),
    h("td", {}, action.what), h("td", {}, action.target), h("td", {}, where || "all"),
    h("td", { class: "number" }, count(action.count)), h("td", {}, action.result));
}
