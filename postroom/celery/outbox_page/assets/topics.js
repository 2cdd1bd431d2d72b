import { count, get, h, notice, rate, seconds, table, waiting } from "./dom.js";

export const topics = {
  title: "Topics",
  troubles: (answer) => [answer.topics],
  load: () => get("topics"),
  show(answer) {
    const rows = answer.topics.value;
    if (rows === null && answer.topics.trouble) return h("p", { class: "outbox-muted" }, "Nothing is known of topics and subscriptions.");
    if (rows === null) return waiting("Pulsar's admin interface is being asked");
    return rows.map(card);
  },
};

function card(topic) {
  const facts = [topic.role];
  if (topic.partitions) facts.push(`${topic.partitions} topic partitions`);
  if (topic.rate_in !== null) facts.push(`${rate(topic.rate_in)} in`);
  return h("article", { class: "outbox-card", "aria-label": topic.topic },
    h("header", {}, h("h2", {}, topic.topic.replace(/^persistent:\/\//, "")), h("span", { class: "outbox-muted" }, facts.join(" · "))),
    topic.exists
      ? table(["Subscription", "Type", "Consumers", "Backlog", "Oldest unacknowledged"], topic.subscriptions.map((each) => row(topic, each)),
        { label: `Subscriptions of ${topic.topic}`, empty: "Nobody has subscribed: what is sent here is kept for nobody." })
      : notice("secondary", topic.role === "dead letters" ? "There is no such topic yet: no event was given up." : "There is no such topic yet."));
}

function row(topic, subscription) {
  const names = subscription.consumers;
  return h("tr", {},
    h("td", {}, subscription.name), h("td", {}, subscription.type),
    h("td", { title: names.join(", ") }, names.length ? count(names.length) : h("span", { class: subscription.ours && topic.role === "events" ? "outbox-warn" : "outbox-muted" }, subscription.name.startsWith("postroom-relay-") ? "none: the relay's own mark" : "none")),
    h("td", { class: "number", title: "As Pulsar counts: a batch of messages once" }, subscription.backlog ? `≥ ${count(subscription.backlog)}` : "0"),
    h("td", { class: "number" }, subscription.backlog ? seconds(subscription.oldest_seconds) : "none"));
}
