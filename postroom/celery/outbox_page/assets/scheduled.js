import { RATE, cell, event, get, letters, reason, time } from "./letters.js";

const FIELDS = [
  ["schedule", "Schedule", "text"], ["name", "Event name", "text"], ["key", "Key", "text"], ["reason", "Refused because", "text"],
  ["since", "Due from (UTC)", "datetime-local"], ["until", "Due until (UTC)", "datetime-local"],
];
const AT = { name: "at", label: "Due at (UTC)", type: "datetime-local", step: 1, needed: true, value: (text) => `${text}Z` };

export const scheduled = letters({
  key: "scheduled",
  title: "Scheduled",
  scope: ["outbox"],
  fields: FIELDS,
  places: (known) => ({ outbox: known.outboxes }),
  columns: ["Event", "Outbox", "Schedule", "Due", "Refused because"],
  acts: [
    { what: "fire", verb: "Fire", asks: [RATE] },
    { what: "reschedule", verb: "Reschedule", asks: [AT, RATE] },
    { what: "cancel", verb: "Cancel", harm: true, back: "Back", asks: [RATE] },
  ],
  explained: {
    fire: "The events are due at once, by MongoDB's clock, and those are tried again that could not be moved.",
    reschedule: "The events are due at that time, by MongoDB's clock; what is past is due at once. Their ids stay.",
    cancel: "The events are never sent. One that is due by now may have been sent meanwhile: that is counted.",
  },
  read: async (asked) => {
    const answer = await get("scheduled", asked);
    return { page: answer.page, at: answer.at, reading: false, trouble: "", may_not_act: answer.may_not_act };
  },
  row: (item) => ({
    id: item.row_id,
    cells: [event(item.row_id, item.name), cell(item.outbox), cell(item.schedule || "—"), cell(time(item.due_at)), reason(item.refused)],
  }),
  empty: (filtered) => (filtered ? "No scheduled event matches." : "No event is scheduled."),
});
