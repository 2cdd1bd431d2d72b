import { ago, base, count, facts, figures, get, h, paint, post, rate, seconds, table, time, waiting, notice } from "./dom.js";
import { chart } from "./chart.js";

export const partitions = {
  title: "Partitions",
  troubles: (answer) => [answer.partitions, answer.workers],
  load: () => get("partitions"),
  show(answer) {
    const rows = answer.partitions.value;
    if (rows === null && answer.partitions.trouble) return relays(answer.relays);
    if (rows === null) return waiting("The database is being looked at");
    const more = answer.complete ? null : notice("secondary",
      "Not all rows of the outbox were looked at, to be done in time: there may be rows of further outbox partitions that no relay was ever started for.");
    if (!rows.length) {
      return [notice("secondary", "No relay has ever been started on this database, and no event waits in its outbox."), more];
    }
    return [...rows.map((row) => card(row, answer.now, answer.may_not_act)), more];
  },
};

// What is left to show where the database does not answer.
function relays(found) {
  return h("article", { class: "outbox-card", "aria-label": "Relays" },
    h("h2", {}, "What the relays say of themselves"),
    table(["Outbox partition", "Relay", "State", "It says"], found.map(({ worker: name, told }) => h("tr", {},
      h("td", {}, String(told.partition ?? "—")), h("td", {}, String(told.owner ?? "—"), " (", worker({ worker: name, owner: told.owner }), ")"),
      h("td", {}, String(told.state ?? "—")), h("td", { class: "outbox-reason" }, String(told.reason || "—")))),
    { label: "Relays", empty: "No relay has answered, and nothing is known of the outbox partitions." }));
}

function card(row, now, mayNotAct) {
  const view = row.view;
  const state = row.well ? "outbox-ok" : row.state === "standby" || row.state === "unknown" ? "outbox-warn" : "outbox-fail";
  return h("article", { class: "outbox-card", "aria-label": `Outbox partition ${view.partition}` },
    h("header", {}, h("h2", {}, view.partition), h("span", { class: `outbox-state ${state}` }, row.state), steering(view, mayNotAct)),
    h("p", { class: "outbox-sentence" }, row.sentence),
    numbers(row, now), charts(row),
    facts([
      ["Owner", ...owner(row)],
      ["Standbys", ...standbys(row)],
      ["Position", count(view.position)],
      ["Relayed until", time(view.relayed_until)],
      ["Topics", view.topics.length ? view.topics.join(", ") : "—"],
    ]));
}

// One that no relay was ever started for, or that is closed, has nothing that could stand still.
function steering(view, mayNotAct) {
  if (!view.ever_relayed || view.closed) return null;
  if (mayNotAct) return h("span", { class: "outbox-muted" }, mayNotAct);
  const what = view.paused_by === null ? "pause" : "resume";
  const key = `steer-${view.partition}`;
  return h("button", {
    class: `btn btn-sm btn-outline-${what === "pause" ? "danger" : "primary"} ms-auto`, type: "button", "data-key": key,
    "aria-label": `${WORDS[what]} outbox partition ${view.partition}`, onclick: () => ask(what, view.partition, key),
  }, WORDS[what]);
}

const WORDS = { pause: "Pause", resume: "Resume" };
const EXPLAINED = {
  pause: "Its relay sends nothing more, over restarts too, until it is resumed. What is committed meanwhile waits, and nothing is lost.",
  resume: "Its relay goes on from where it stood still.",
};

function ask(what, partition, key) {
  const trouble = h("div", {});
  const go = h("button", { class: `btn ${what === "pause" ? "btn-danger" : "btn-primary"}`, type: "submit" }, WORDS[what]);
  const close = () => { dialog.close(); dialog.remove(); document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus(); };
  const submit = async (e) => {
    e.preventDefault();
    go.disabled = true;
    try {
      await post(`partitions/${what}`, { partition });
      close();
      window.dispatchEvent(new Event("outbox-refresh"));
    } catch (error) {
      go.disabled = false;
      paint(trouble, notice("danger", error.message));
    }
  };
  const dialog = h("dialog", { class: "outbox-dialog", "aria-label": "Confirm", oncancel: (e) => { e.preventDefault(); close(); } },
    h("form", { onsubmit: submit },
      h("h2", { class: "h5" }, `${WORDS[what]} outbox partition ${partition}?`), h("p", {}, EXPLAINED[what]), trouble,
      h("div", { class: "d-flex gap-2 justify-content-end" },
        h("button", { class: "btn btn-outline-secondary", type: "button", onclick: close }, "Cancel"), go)));
  document.body.append(dialog);
  dialog.showModal();
  (what === "resume" ? go : dialog.querySelector("button[type=button]")).focus();
}

function numbers(row, now) {
  const view = row.view;
  const backlog = view.waiting === null || (view.waiting_at_least && !view.waiting) ? "not known" : `${view.waiting_at_least ? "≥ " : ""}${count(view.waiting)}`;
  return figures([
    ["Backlog", backlog, view.waiting ? "outbox-warn" : null],
    ["Oldest unsent", view.waiting === 0 ? "none" : seconds(view.lag_seconds)],
    ["Lag", seconds(row.lag_seconds), row.lag_seconds > 60 ? "outbox-fail" : null],
    ["Rate now", rate(row.curves.rate_now)],
    ["Quarantined", `${view.quarantined_more ? "> " : ""}${count(view.quarantined_now)}`, view.quarantined_now ? "outbox-fail" : null],
    ["Last checkpoint", ago(view.checkpointed_at, now)],
  ]);
}

function charts(row) {
  const { rates, backlogs } = row.curves;
  const most = (points) => points.reduce((a, b) => Math.max(a, b ?? 0), 0);
  const figure = (title, points, shown) => h("figure", {},
    h("figcaption", {}, h("span", {}, `${title}, last hour`), h("span", {}, `highest ${shown}`)),
    chart(points, `${title} over the last hour, highest ${shown}`));
  return h("div", { class: "outbox-charts" },
    figure("Rate", rates, rate(most(rates))), figure("Backlog", backlogs, count(most(backlogs))));
}

function worker(relay) {
  return h("a", { href: `${base}/worker/${encodeURIComponent(relay.worker)}`, "data-key": `worker-${relay.owner}` }, relay.worker);
}

function owner(row) {
  const view = row.view;
  if (!view.owner && !row.leader) return ["none yet"];
  const name = (row.leader && row.leader.owner) || view.owner;
  const since = view.owned_since && view.owner === name ? [" since ", time(view.owned_since), `, epoch ${view.epoch ?? "—"}`] : [];
  return [h("code", {}, name), ...since, ...(row.leader ? [", worker ", worker(row.leader)] : [])];
}

function standbys(row) {
  if (row.state === "unknown") return ["not known: no worker has answered"];
  if (!row.standbys.length) return row.leader ? [h("span", { class: "outbox-warn" }, "none: nobody takes over if it ends")] : ["none"];
  return row.standbys.flatMap((relay, index) => [
    index ? ", " : "", h("code", {}, relay.owner), " (", worker(relay), `, ${relay.state}${relay.reason ? `: ${relay.reason}` : ""})`,
  ]);
}
