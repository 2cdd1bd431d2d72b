// Quarantine, dead letters and what is scheduled: filters, a page of what matches, acts on some or on all of it.
import { count, get, h, notice, paint, part_address, post, table, time, waiting } from "./dom.js";

const PAGE = 50;
const FIELDS = [
  ["name", "Event name", "text"], ["handler", "Handler", "text"], ["reason", "Reason contains", "text"],
  ["key", "Key", "text"], ["since", "From (UTC)", "datetime-local"], ["until", "Until (UTC)", "datetime-local"],
];

const SCOPES = { partition: "Outbox partition", topic: "Topic", subscription: "Subscription", outbox: "Outbox" };

// An act is { what, verb, explained, harm, back, asks: [{ name, label, type, needed, value(text) }] }.
export const RATE = { name: "rate", label: "At most so many a second", type: "number", min: "0.01", placeholder: "as fast as it goes", value: Number };
const ACTS = [{ what: "redrive", verb: "Redrive", asks: [RATE] }, { what: "discard", verb: "Discard", harm: true, asks: [RATE] }];

export function letters({ key, title, places, columns, row, empty, read, scope, fields = FIELDS, acts = ACTS, explained }) {
  const state = { filters: {}, where: {}, skip: 0, chosen: new Map(), matching: null, took: 0, running: [], again: false, places: {} };
  const id = (name) => `${key}-${name}`;
  let list = null, running = null, form = null;

  function changed() {
    state.filters = Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));
    for (const name of ["since", "until"]) if (state.filters[name]) state.filters[name] += "Z";
    state.skip = 0;
    state.chosen.clear();
    again();
  }

  function field([name, label, type]) {
    return h("div", {}, h("label", { for: id(name) }, label),
      h("input", { id: id(name), name, type, step: type === "text" ? null : 1, class: "form-control form-control-sm", autocomplete: "off", maxlength: 1000, list: scope.includes(name) ? id(`${name}-list`) : null }),
      scope.includes(name) ? h("datalist", { id: id(`${name}-list`) }) : null);
  }

  async function suggest() {
    try {
      const known = places(await get("places"));
      for (const name of scope) {
        const list = document.getElementById(id(`${name}-list`));
        if (list) paint(list, [...new Set(known[name] || [])].map((value) => h("option", { value })));
      }
    } catch { /* only suggestions */ }
  }

  function enter(place) {
    form = h("form", { class: "outbox-card", "aria-label": `Filter of ${title}`, onsubmit: (e) => { e.preventDefault(); changed(); } },
      h("div", { class: "outbox-filters" }, scope.map((name) => field([name, SCOPES[name], "text"])),
        fields.map(field),
        h("div", { class: "outbox-bar m-0" },
          h("button", { class: "btn btn-sm btn-primary", type: "submit" }, "Filter"),
          h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", onclick: () => { form.reset(); changed(); } }, "Clear"))));
    list = h("div", { class: "outbox-card" }, waiting("Looking"));
    running = h("div", { "aria-live": "polite" });
    state.filters = {};
    state.chosen.clear();
    state.skip = 0;
    state.again = true;
    paint(place, form, running, list);
    suggest();
  }

  async function load() {
    const began = performance.now();
    const now = (await get("running-acts")).running_acts.filter((one) => one.kind === title.toLowerCase());
    const ended = state.running.some((old) => !old.ended_at && now.some((one) => one.id === old.id && one.ended_at));
    if (ended) state.again = true;
    state.running = now;
    progress();
    const answer = await read({ ...state.filters, skip: state.skip, limit: PAGE, again: state.again ? 1 : "" });
    state.again = false;
    state.took = performance.now() - began;
    return answer;
  }

  function show(answer) {
    const page = answer.page;
    state.may_not_act = answer.may_not_act;
    if (page === null) {
      paint(list, waiting(answer.reading ? `Being read: ${count(answer.read)} so far` : "Not read"));
      return null;
    }
    state.matching = page.matching;
    if (page.matching <= state.skip && state.skip > 0) { state.skip = Math.max(0, state.skip - PAGE); again(); }
    const found = `${page.at_least ? "At least " : ""}${count(page.matching)} match`;
    const last = Math.min(page.matching, state.skip + page.items.length);
    paint(list,
      h("header", {}, h("h2", {}, found),
        h("span", { class: "outbox-muted" }, page.items.length ? `${count(state.skip + 1)} to ${count(last)}` : "", answer.at ? [" as of ", time(answer.at)] : "",
          answer.reading ? ` · being read again: ${count(answer.read)} so far` : "")),
      bar(page),
      table(["", ...columns], page.items.map((item) => line(item, page)), { label: title, empty: empty(Object.keys(state.filters).length > 0) }),
      pager(page));
    return null;
  }

  const again = () => window.dispatchEvent(new Event("outbox-refresh"));

  function line(item, page) {
    const own = row(item);
    const box = h("input", {
      type: "checkbox", class: "form-check-input", "data-key": `${key}-box-${own.id}`, checked: state.chosen.has(own.id), "aria-label": `Select ${own.id}`,
      onchange: (e) => { choose(page, [own.id], e.target.checked); show.again(page); },
    });
    return h("tr", {}, h("td", {}, box), own.cells);
  }

  function bar(page) {
    const ids = page.items.map((item) => row(item).id);
    const all = ids.length > 0 && ids.every((each) => state.chosen.has(each));
    return h("div", { class: "outbox-bar" },
      h("label", { class: "outbox-muted" }, h("input", {
        type: "checkbox", class: "form-check-input me-1", checked: all, disabled: !ids.length, "data-key": `${key}-page`,
        onchange: (e) => { choose(page, ids, e.target.checked); show.again(page); },
      }), "All on this page"),
      h("span", { class: "spread" }),
      h("span", { class: "d-flex flex-wrap gap-2" }, actions(page)),
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", "data-key": `${key}-again`, onclick: () => { state.again = true; again(); } }, "Look again"));
  }
  let latest = null;
  show.again = () => { if (latest) show(latest); };

  // An event that several handlers gave up is chosen with all of its letters, and counted so.
  function choose(page, ids, on) {
    const all = page.items.map((item) => row(item).id);
    for (const each of new Set(ids)) {
      if (on) state.chosen.set(each, all.filter((other) => other === each).length); else state.chosen.delete(each);
    }
  }

  function actions(page) {
    if (state.may_not_act) return [h("span", { class: "outbox-muted" }, state.may_not_act)];
    const some = [...state.chosen.values()].reduce((a, b) => a + b, 0);
    const number = some || page.matching;
    const words = some ? `${count(some)} selected` : `all ${count(page.matching)} that match`;
    return acts.map((act) => h("button", {
      class: `btn btn-sm ${act.harm ? "btn-outline-danger" : "btn-outline-primary"}`, type: "button", disabled: !number, "data-key": `${key}-${act.what}`,
      onclick: () => confirm(act, number, words),
    }, `${act.verb} ${words}`));
  }

  function confirm({ what, verb, harm, back, asks }, number, words) {
    const ids = [...state.chosen.keys()];
    const inputs = asks.map((one) => [one, h("input", { id: id(one.name), type: one.type, min: one.min || null, step: one.step || "any", required: !!one.needed, class: "form-control form-control-sm", placeholder: one.placeholder || null })]);
    const entered = () => Object.fromEntries(inputs.filter(([, input]) => input.value).map(([one, input]) => [one.name, one.value(input.value)]));
    const needed = inputs.find(([one]) => one.needed);
    const trouble = h("div", {});
    const opener = document.activeElement;
    const go = h("button", { class: `btn ${harm ? "btn-danger" : "btn-primary"}`, type: "submit" }, `${verb} ${count(number)}`);
    const close = () => { dialog.close(); dialog.remove(); (document.querySelector(`[data-key="${key}-${what}"]`) || opener)?.focus(); };
    const dialog = h("dialog", { class: "outbox-dialog", "aria-label": "Confirm", oncancel: (e) => { e.preventDefault(); close(); } },
      h("form", { onsubmit: async (e) => {
        e.preventDefault();
        go.disabled = true;
        try {
          await post(`${key}/${what}`, { ...state.filters, ...(ids.length ? { ids } : {}), confirmed: number, ...entered() });
          state.chosen.clear();
          close();
          again();
        } catch (error) {
          go.disabled = false;
          paint(trouble, notice("danger", error.message));
        }
      } },
      h("h2", { class: "h5" }, `${verb} ${words}?`),
      h("p", {}, explained[what]),
      Object.keys(state.filters).length && !ids.length ? h("p", { class: "outbox-muted" }, `Filter: ${Object.entries(state.filters).map(([a, b]) => `${a} ${b}`).join(", ")}`) : null,
      inputs.map(([one, input]) => h("div", { class: "mb-3" }, h("label", { for: id(one.name) }, one.label), input)),
      trouble,
      h("div", { class: "d-flex gap-2 justify-content-end" },
        h("button", { class: "btn btn-outline-secondary", type: "button", onclick: close }, back || "Cancel"), go)));
    document.body.append(dialog);
    dialog.showModal();
    (harm ? dialog.querySelector("button[type=button]") : needed ? needed[1] : go).focus();
  }

  function progress() {
    paint(running, state.running.filter((one) => !one.ended_at || Date.now() - new Date(one.ended_at) < 60000).map((one) => {
      const words = `${one.what}: ${count(one.done.done)} of ${count(one.asked)} done${one.done.left ? `, ${count(one.done.left)} others left` : ""}`;
      return notice(one.ended_at ? (one.failed ? "danger" : "success") : "info",
        h("div", {}, h("strong", {}, one.ended_at ? (one.failed ? "Failed · " : "Ended · ") : "Under way · "), words, one.sentence ? ` · ${one.sentence}` : "", ` · by ${one.who || "somebody"}`),
        one.ended_at ? null : h("div", { class: "d-flex gap-2 align-items-center mt-1" },
          h("progress", { class: "w-100", max: one.asked || 1, value: one.done.done, "aria-label": words }),
          h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: one.stopping || !!state.may_not_act, "data-key": `stop-${one.id}`,
            onclick: () => post(`running-acts/${one.id}/stop`, {}).then(again, again) }, "Stop")));
    }));
  }

  function pager(page) {
    const go = (skip) => () => { state.skip = skip; again(); };
    if (page.matching <= PAGE && !state.skip) return null;
    return h("div", { class: "outbox-bar" },
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: !state.skip, "data-key": `${key}-first`, onclick: go(0) }, "First"),
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: !state.skip, "data-key": `${key}-back`, onclick: go(Math.max(0, state.skip - PAGE)) }, "Previous"),
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: state.skip + PAGE >= page.matching, "data-key": `${key}-next`, onclick: go(state.skip + PAGE) }, "Next"),
      h("button", { class: "btn btn-sm btn-outline-secondary", type: "button", disabled: state.skip + PAGE >= page.matching, "data-key": `${key}-last`, onclick: go(Math.floor((page.matching - 1) / PAGE) * PAGE) }, "Last"));
  }

  return {
    title, enter, load,
    show: (answer) => { latest = answer; return show(answer); },
    troubles: (answer) => [{ at: answer.at, trouble: answer.trouble || "" }],
    // What takes long is not asked for all the time.
    pause: (answer) => (answer && (answer.reading || state.running.some((one) => !one.ended_at)) ? 1000 : Math.max(3000, 10 * state.took)),
  };
}

export function cell(...content) { return h("td", {}, ...content); }
export function event(id, name) {
  return h("td", { class: "name" }, h("a", { href: part_address(`journey?${encodeURIComponent(id)}`), "data-key": `event-${id}` }, id), name ? h("div", {}, name) : null);
}
export function reason(text) { return h("td", { class: "outbox-reason" }, text || "—"); }
export { get, count, time };
