// The frame: menu, freshness, and the part that is shown. Parts are plain objects:
// { title, load() -> answer, show(answer) -> nodes, troubles(answer), enter(place) }
import { h, notice, paint, part_address, waiting } from "./dom.js";
import { partitions } from "./partitions.js";
import { topics } from "./topics.js";
import { quarantine } from "./quarantine.js";
import { scheduled } from "./scheduled.js";
import { deadLetters } from "./dead_letters.js";
import { doctor } from "./doctor.js";
import { journey } from "./journey.js";
import { actions } from "./actions.js";

const PARTS = { partitions, topics, scheduled, quarantine, "dead-letters": deadLetters, journey, doctor, actions };
const EVERY = 3000;
const SOON = 700;

const place = document.getElementById("outbox-section");
const troubles = document.getElementById("outbox-troubles");
const dot = document.getElementById("outbox-dot");
const fresh = document.getElementById("outbox-fresh");

let name = "";
let round = 0;
let timer = 0;
let answeredAt = null;

function chosen() {
  const wanted = location.hash.slice(1).split("?")[0];
  return wanted in PARTS ? wanted : "partitions";
}

function menu() {
  paint(document.getElementById("outbox-tabs"), Object.entries(PARTS).map(([key, part]) =>
    h("li", { class: "nav-item" }, h("a", {
      class: `nav-link ${key === name ? "active" : ""}`, href: part_address(key), "data-key": `tab-${key}`,
      "aria-current": key === name ? "page" : null,
    }, part.title))));
  document.querySelector("#outbox-tabs .active").scrollIntoView({ block: "nearest", inline: "center" });
}

function enter() {
  const next = chosen();
  if (next === name && !PARTS[name].reenter) return;
  name = next;
  menu();
  place.removeAttribute("aria-busy");
  paint(place, waiting("Loading"));
  paint(troubles);
  if (PARTS[name].enter) PARTS[name].enter(place);
  refresh();
}

async function refresh() {
  clearTimeout(timer);
  const mine = ++round;
  const part = PARTS[name];
  let pause = EVERY;
  let answer = null;
  try {
    answer = await part.load();
    if (mine !== round) return;
    answeredAt = new Date();
    say("live", `Updated ${answeredAt.toLocaleTimeString("en-GB")}`);
    const seen = part.troubles ? part.troubles(answer).filter(Boolean) : [];
    if (seen.some((s) => !s.at && !s.trouble)) pause = SOON;
    tell(seen.filter((s) => s.trouble));
    if (part.pause) pause = part.pause(answer);
    const content = part.show(answer);
    if (content) paint(place, ...[content].flat());
  } catch (error) {
    if (mine !== round) return;
    const since = answeredAt ? ` What is shown is of ${answeredAt.toLocaleTimeString("en-GB")}.` : "";
    say("error", "Not up to date");
    paint(troubles, notice("danger", `${error.message}${since}`));
    if (!error.status && !(error.message || "").startsWith("Flower")) throw error;
  } finally {
    if (mine === round && !document.hidden) timer = setTimeout(refresh, pause);
  }
}

function tell(seen) {
  const now = new Set(seen.map((s) => s.trouble));
  paint(troubles, [...now].map((trouble) => {
    const at = seen.find((s) => s.trouble === trouble).at;
    const shown = at ? ` What is shown of it is of ${new Date(at).toLocaleTimeString("en-GB")}.` : "";
    return notice("warning", `${trouble}${shown}`);
  }));
}

function say(kind, sentence) {
  dot.className = `status-dot status-dot-${kind}`;
  fresh.textContent = sentence;
}

window.addEventListener("hashchange", enter);
document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
window.addEventListener("outbox-refresh", refresh);
enter();
