// One event's way, by its id: written, relayed, on its topics, handled, or where it ended.
import { base, count, facts, get, h, notice, paint, seconds, time, waiting } from "./dom.js";

let asked = "";
let place = null;

async function find(id) {
  asked = id;
  if (!id) return paint(place);
  paint(place, waiting("Looking in the outbox, on the topics, in inbox, quarantine and dead letters"));
  try {
    const answer = await get("journey", { id });
    if (asked === id) paint(place, shown(answer));
  } catch (error) {
    if (asked === id) paint(place, notice("danger", error.message));
  }
}

export const journey = {
  title: "Journey",
  reenter: true,
  enter(section) {
    const id = decodeURIComponent(location.hash.split("?")[1] || "");
    const input = h("input", { id: "journey-id", class: "form-control", value: id, maxlength: 1000, autocomplete: "off", required: true });
    place = h("div", { "aria-live": "polite" });
    paint(section, h("form", { class: "outbox-card", onsubmit: (e) => {
      e.preventDefault();
      const next = `#journey?${encodeURIComponent(input.value.trim())}`;
      if (location.hash === next) find(input.value.trim()); else location.hash = next;
    } },
    h("label", { for: "journey-id", class: "form-label" }, "Event id"),
    h("div", { class: "d-flex gap-2" }, input, h("button", { class: "btn btn-primary", type: "submit" }, "Find"))), place);
    find(id);
  },
  load: async () => ({}),
  show: () => null,
};

function step(title, there, ...content) {
  return h("li", { class: there ? null : "none" }, h("strong", {}, title), h("div", {}, ...content));
}

function shown(answer) {
  const found = answer.journey;
  return [
    answer.found
      ? h("article", { class: "outbox-card", "aria-label": "Journey" },
        h("header", {}, h("h2", {}, answer.name || "Event"), h("code", {}, found.event_id)),
        h("ol", { class: "outbox-steps mt-3" }, written(found), quarantined(found), relayed(found), handled(found, answer.tasks), dead(found)),
        answer.data === null ? null : [h("h3", {}, "Data"), h("pre", { tabindex: 0 }, answer.data)])
      : notice("warning", h("strong", {}, "Not found. "), "No place that was looked at knows an event of this id."),
    h("article", { class: "outbox-card", "aria-label": "Where was looked" },
      h("h3", { class: "mt-0" }, "Where was looked"), h("ul", { class: "mb-0" }, found.looked.map((where) => h("li", {}, where))),
      found.not_looked.length ? [h("h3", {}, "Where could not be looked"), h("ul", { class: "mb-0" }, found.not_looked.map((where) => h("li", { class: "outbox-warn" }, where)))] : null),
  ].flat();
}

function written(found) {
  const row = found.row;
  if (!row) return step("Outbox row", false, "None: it was pruned, or never written here.");
  const relayed = { true: "yes", false: "not yet", null: "not known" }[String(found.relayed)];
  return step("Outbox row", true, facts([
    ["Outbox partition", row.partition], ["Written", time(row.written_at)],
    ["Committed", found.committed_at ? time(found.committed_at) : "not known: the oplog no longer tells"],
    ["Relayed", relayed],
  ]));
}

function quarantined(found) {
  const entry = found.quarantined;
  if (!entry) return null;
  return step("In quarantine", true, h("div", { class: "outbox-fail" }, entry.reason),
    h("div", { class: "outbox-muted" }, "since ", time(entry.quarantined_at), entry.topic ? `; it waits for ${entry.topic} and returns by itself` : ""));
}

function relayed(found) {
  if (!found.messages.length) return step("On a topic", false, "Not found on any topic that was looked at.");
  return step("On a topic", true, found.messages.map((message) => facts([
    ["Topic", message.topic], ["Message id", h("code", {}, message.message_id)], ["Position", count(message.position)],
    ["Published", time(message.published_at)], ["Producer", message.producer + (message.is_replay ? " (a replay)" : "")],
  ])));
}

function task(uuid) {
  return h("a", { href: `${base}/task/${encodeURIComponent(uuid)}`, "data-key": `task-${uuid}` }, uuid);
}

function handled(found, tasks) {
  const inbox = found.handled.map((each) => h("div", {}, h("strong", {}, each.trace.handler), ` of ${each.trace.subscription}: `,
    each.trace.handled_at ? ["handled ", time(each.trace.handled_at)] : each.trace.begun_at ? ["begun ", time(each.trace.begun_at), ` by ${each.trace.begun_by || "a worker"}`] : "handled",
    ", task ", task(each.task_id)));
  const seen = tasks.map((each) => h("div", {}, "Task ", task(each.uuid), ` ${each.name || ""} ${each.state || ""}`,
    each.retries ? `, ${count(each.retries)} attempts before` : "", each.runtime ? `, ran ${each.runtime.toFixed(3)} s` : "", each.worker ? `, on ${each.worker}` : "",
    each.received ? [", received ", time(each.received * 1000)] : ""));
  if (!inbox.length && !seen.length) return step("Handled", false, "No inbox row, and no task of it in Flower's memory.");
  return step("Handled", true, inbox.length ? inbox : "No inbox row yet.", seen);
}

function dead(found) {
  if (!found.dead_letters.length) return null;
  return step("Dead letter", true, found.dead_letters.map((letter) => h("div", {},
    h("strong", {}, letter.handler || "no handler"), ` of ${letter.subscription}, ${count(letter.attempts)} attempts, last `, time(letter.last_failure),
    h("div", { class: "outbox-fail" }, letter.reason))));
}
