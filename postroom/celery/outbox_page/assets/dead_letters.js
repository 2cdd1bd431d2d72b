import { h } from "./dom.js";
import { cell, count, event, get, letters, reason, time } from "./letters.js";

export const deadLetters = letters({
  key: "dead-letters",
  title: "Dead letters",
  scope: ["topic", "subscription"],
  places: (known) => ({
    topic: known.places.map((place) => place.topic.replace(/^persistent:\/\//, "")),
    subscription: known.places.map((place) => place.subscription),
  }),
  columns: ["Event", "Handler", "Key", "Attempts", "Last failure", "Reason"],
  read: async (asked) => {
    const answer = await get("dead-letters", asked);
    return { ...answer.listed, may_not_act: answer.may_not_act };
  },
  row: (item) => ({
    id: item.id,
    cells: [
      event(item.id, item.name), h("td", { class: "name" }, item.handler || "—"), cell(item.key || "—"), cell(count(item.attempts)),
      cell(time(item.last_failure)), reason(item.reason),
    ],
  }),
  explained: {
    redrive: "Each event is handled again by the handler that gave it up. What fails again becomes a dead letter again.",
    discard: "The letters are taken off their topic: nothing handles these events any more.",
  },
  empty: (filtered) => (filtered ? "No dead letter matches." : "No event was given up here."),
});
