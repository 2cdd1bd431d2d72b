import { cell, count, event, get, letters, reason, time } from "./letters.js";

export const quarantine = letters({
  key: "quarantine",
  title: "Quarantine",
  scope: ["partition", "topic"],
  places: (known) => ({ partition: known.partitions, topic: known.places.map((place) => place.topic) }),
  columns: ["Row", "Outbox partition", "Position", "Quarantined", "Reason", "Waits for"],
  read: async (asked) => {
    const answer = await get("quarantine", asked);
    return { page: answer.page, at: answer.at, reading: false, trouble: "", may_not_act: answer.may_not_act };
  },
  row: (item) => ({
    id: item.row_id,
    cells: [
      event(item.row_id, item.gone ? "gone from the outbox" : item.name),
      cell(item.partition), cell(count(item.position)), cell(time(item.quarantined_at)), reason(item.reason),
      cell(item.topic || "an operator"),
    ],
  }),
  explained: {
    redrive: "Each row is put behind all that is in the outbox and relayed as it is now. Mend the rows first: one that still cannot be sent comes back here.",
    discard: "The rows are forgotten: they are never sent, and pruned like those that were.",
  },
  empty: (filtered) => (filtered ? "No quarantined row matches." : "No row is in quarantine."),
});
