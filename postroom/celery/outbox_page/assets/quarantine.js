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
  empty: (filtered) => (filtered ? "No quarantined row matches." : "No row is in quarantine."),
});
