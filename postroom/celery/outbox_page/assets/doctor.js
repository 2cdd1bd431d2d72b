// What the doctor found: the worst first, each with what to do.
import { get, h, notice, table, time, waiting } from "./dom.js";

const GRADES = ["fail", "warn", "ok"];

export const doctor = {
  title: "Doctor",
  troubles: (answer) => [answer.doctor],
  load: () => get("doctor"),
  show(answer) {
    const found = answer.doctor.value;
    if (found === null) return answer.doctor.trouble ? notice("secondary", "Nothing was found out.") : waiting("Settings, MongoDB, Pulsar and workers are being looked at; that takes half a minute at most");
    const sorted = GRADES.flatMap((grade) => found.filter((each) => each.grade === grade));
    const many = (grade) => found.filter((each) => each.grade === grade).length;
    return h("div", { class: "outbox-card" },
      h("header", {}, h("h2", {}, `${many("fail")} failed, ${many("warn")} to look at, ${many("ok")} well`), h("span", { class: "outbox-muted" }, "as of ", time(answer.doctor.at))),
      table(["", "What", "Found", "Remedy"], sorted.map(row), { label: "Findings" }));
  },
};

function row(finding) {
  return h("tr", {}, h("td", {}, h("span", { class: `outbox-state outbox-${finding.grade}` }, finding.grade)),
    h("td", {}, finding.what), h("td", { class: "outbox-reason" }, finding.found), h("td", {}, finding.remedy ? h("code", {}, finding.remedy) : ""));
}
