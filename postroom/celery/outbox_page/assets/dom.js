// What all parts share. Texts become text nodes and nothing else: none of them can be markup.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat().filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

// Puts new content in place and keeps the keyboard where it was, by data-key.
export function paint(place, ...content) {
  const key = place.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  const scrolled = [...place.querySelectorAll("[data-scroll]")].map((e) => e.scrollLeft);
  place.replaceChildren(...content.flat().filter(Boolean));
  place.querySelectorAll("[data-scroll]").forEach((e, i) => { e.scrollLeft = scrolled[i] || 0; });
  if (key) place.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

const root = document.getElementById("outbox");
export const base = root.dataset.base;

// By the whole path: Flower makes a tab of Bootstrap's of each link to `#…` alone.
export const part_address = (part) => `${base}/outbox#${part}`;

export async function get(path, parameters = {}) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== "" && value !== null && value !== undefined) query.set(name, value);
  }
  return answer(fetch(`${base}/outbox/api/${path}${query.size ? `?${query}` : ""}`, {
    signal: AbortSignal.timeout(30000), cache: "no-store",
  }));
}

export async function post(path, body) {
  const cookie = document.cookie.split("; ").find((c) => c.startsWith("_xsrf="));
  return answer(fetch(`${base}/outbox/api/${path}`, {
    method: "POST", body: JSON.stringify(body), signal: AbortSignal.timeout(30000),
    headers: {
      "Content-Type": "application/json",
      "X-XSRFToken": cookie ? decodeURIComponent(cookie.slice("_xsrf=".length)) : "",
    },
  }));
}

async function answer(asked) {
  let got;
  try {
    got = await asked;
  } catch (error) {
    throw new Error("Flower does not answer.", { cause: error });
  }
  const value = await got.json().catch(() => ({}));
  if (!got.ok) {
    const failed = new Error(value.sentence || `Flower answered ${got.status}.`);
    failed.status = got.status;
    throw failed;
  }
  return value;
}

export function count(value) {
  return value === null || value === undefined ? "—" : Number(value).toLocaleString("en");
}

export function seconds(value) {
  if (value === null || value === undefined) return "—";
  if (value < 60) return `${Math.round(value)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

export function rate(value) {
  if (value === null || value === undefined) return "—";
  return `${value < 10 ? Math.round(value * 10) / 10 : count(Math.round(value))}/s`;
}

export function time(value) {
  if (!value) return "—";
  const at = new Date(value);
  if (Number.isNaN(at.getTime())) return String(value);
  const shown = at.toISOString().slice(0, 19).replace("T", " ");
  return h("time", { datetime: at.toISOString(), title: at.toString() }, `${shown} UTC`);
}

export function ago(value, now) {
  if (!value) return "—";
  return `${seconds(Math.max(0, (new Date(now) - new Date(value)) / 1000))} ago`;
}

export function facts(pairs) {
  return h("dl", { class: "outbox-facts" }, pairs.flatMap(([name, ...value]) => [
    h("dt", {}, name), h("dd", {}, ...value),
  ]));
}

export function figures(pairs) {
  return h("dl", { class: "outbox-figures" }, pairs.map(([name, value, kind]) => h("div", {},
    h("dt", {}, name), h("dd", { class: kind || null }, value))));
}

export function table(titles, rows, { label, wide = true, empty = "Nothing to show." } = {}) {
  // Where there is no room for columns each cell stands below the one before it, with its title.
  for (const row of rows) [...row.children].forEach((cell, index) => { cell.dataset.title = titles[index] || ""; });
  return h("div", { class: "table-responsive", "data-scroll": true, tabindex: 0, role: "region", "aria-label": label, "data-key": `table-${label}` },
    h("table", { class: `table outbox-table align-top ${wide ? "outbox-wide" : ""}` },
      h("thead", {}, h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)))),
      h("tbody", {}, rows.length ? rows : h("tr", {}, h("td", { colspan: titles.length, class: "outbox-muted" }, empty)))));
}

export function notice(kind, ...content) {
  return h("div", { class: `alert alert-${kind} py-2`, role: kind === "danger" ? "alert" : null }, ...content);
}

export function waiting(what) {
  return h("p", { class: "outbox-muted" }, `${what}…`);
}
