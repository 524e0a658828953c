// The right side: how the slate of one team came about, and how the session goes.

import { bar, el, lines, signedBar } from "./draw.js";
import { decisionName, inLanguage, nameOf, percent, shown, t } from "./words.js";

const byId = (id) => document.getElementById(id);

/** Draw what one of the teams did last; `looked` is its place among them. */
export function drawInside(teams, looked, topics) {
  const team = teams[looked];
  const slate = team.slates.at(-1);
  const taken = team.clicked.get(slate.request)?.size ?? 0;
  const unknown = (text) => [el("p", { class: "note" }, text)];
  const { details } = slate;
  byId("funnel").replaceChildren(...(details ? funnel(slate, taken) : unknown(t("not_kept"))));
  byId("decisions").replaceChildren(...(details ? decisions(details) : unknown(t("not_kept"))));
  byId("reasons").replaceChildren(
    ...slate.items.map((item, at) => reason(item, sentence(slate, at))),
  );
  const simulated = Boolean(slate.objectives);
  byId("course").replaceChildren(simulated ? objectives(team) : course(teams));
  byId("course-title").textContent = simulated ? t("course_objectives") : t("course");
  byId("course-note").textContent = simulated ? t("course_simulated") : t("course_note");
  const memory = team.state?.memory;
  byId("topics").replaceChildren(...(memory ? byTopic(memory, topics) : unknown(t("no_memory"))));
}

/** Return why an item is on a slate, in a sentence of the language chosen. */
export function sentence(slate, at) {
  return inLanguage(slate.details?.reasons)[at] ?? "";
}

function funnel(slate, taken) {
  const { funnel: stages } = slate.details;
  const whole = Math.log1p(stages.catalog); // from thousands to a few: lengths by order of size
  const step = (label, count, kind) =>
    bar(label, Math.log1p(count) / whole, shown(count, 0), kind);
  const blocks = Object.entries(stages.blocks ?? {});
  const on = blocks.filter(([, computed]) => computed).map(([name]) => nameOf(name));
  const off = blocks.filter(([, computed]) => !computed).map(([name]) => nameOf(name));
  const found = [
    step(t("catalog"), stages.catalog, ""),
    step(t("unseen"), stages.unseen, ""),
    step(t("candidates"), stages.candidates, "strong"),
    ...Object.entries(stages.channels ?? {}).map(([channel, count]) =>
      step(t("of_which", { channel: nameOf(channel) }), count, "part"),
    ),
  ];
  if (blocks.length) {
    const said = off.length ? `; ${t("left_out", { blocks: off.join(", ") })}` : "";
    found.push(el("p", { class: "blocks" }, `${t("computed")}: ${on.join(", ") || "–"}${said}`));
  }
  found.push(step(t("slate"), stages.slate, "strong"), step(t("clicks"), taken, "taken"));
  return found;
}

function decisions(details) {
  const cards = Object.entries(details.decisions).map(([agent, numbers]) => {
    const values = Object.entries(numbers);
    const most = Math.max(1, ...values.map(([, value]) => Math.abs(value)));
    return el(
      "section",
      { class: "card", "aria-label": nameOf(agent) },
      el("h4", {}, nameOf(agent)),
      ...values.map(([name, value]) =>
        signedBar(decisionName(name), value, most, shown(value)),
      ),
    );
  });
  const sent = Object.entries(details.messages ?? {});
  const texts = sent.map(([agent, numbers]) =>
    el("li", {}, `${nameOf(agent)}: ${numbers.map((value) => shown(value)).join(", ")}`),
  );
  cards.push(
    el(
      "section",
      { class: "card", "aria-label": t("messages") },
      el("h4", {}, t("messages")),
      texts.length ? el("ul", {}, ...texts) : el("p", { class: "note" }, t("silent")),
    ),
  );
  return cards;
}

function reason(item, told) {
  const said = [];
  if (item.channel) said.push(t("brought_by", { channel: nameOf(item.channel) }));
  if (item.score != null) said.push(t("score", { score: shown(item.score) }));
  const parts = Object.entries(item.blocks ?? {}).filter(([, value]) => value);
  const most = Math.max(0.01, ...parts.map(([, value]) => Math.abs(value)));
  return el(
    "li",
    {},
    el("strong", {}, item.title),
    ...(told ? [el("p", { class: "told" }, told)] : []),
    el("p", { class: "why" }, said.join(" · ")),
    ...parts.map(([name, value]) => signedBar(nameOf(name), value, most, shown(value))),
  );
}

function course(teams) {
  const series = teams.map((team, place) => ({
    name: nameOf(team.policy),
    kind: `team-${place}`,
    values: team.slates.map(
      (slate) => (team.clicked.get(slate.request)?.size ?? 0) / slate.items.length,
    ),
  }));
  if (series[0].values.length < 2) return el("p", { class: "note" }, t("no_course"));
  const told = series.map(({ name, values }) => `${name}: ${values.map(percent).join(", ")}`);
  return lines(series, `${t("course")}. ${told.join("; ")}`);
}

/** Return f_i of each component and F over a simulated session, all of it, with the slate looked at
 * marked. */
function objectives(team) {
  const { requests, place } = team.replay;
  const agents = Object.keys(requests[0].objectives);
  const series = agents.map((agent, number) => ({
    name: nameOf(agent),
    kind: `of-${number}`,
    values: requests.map((one) => one.objectives[agent]),
  }));
  series.push({
    name: t("satisfied"), kind: "content", values: requests.map((one) => one.satisfaction),
  });
  series.push({
    name: t("team_objective"), kind: "whole", values: requests.map((one) => one.team),
  });
  const told = series.map(({ name, values }) => `${name} ${percent(values[place])}`).join(", ");
  return el(
    "div",
    {},
    lines(series, `${t("slate_number", { number: place + 1 })}: ${told}`, place),
    ...series.map(({ name, values, kind }) => bar(name, values[place], percent(values[place]), kind)),
  );
}

function byTopic(memory, topics) {
  const total = memory.interest.reduce((sum, value) => sum + value, 0) || 1;
  const rows = topics.map((topic, place) => ({
    topic,
    interest: memory.interest[place] / total,
    exposure: memory.exposure[place],
  }));
  rows.sort((a, b) => b.interest + b.exposure - a.interest - a.exposure);
  return rows.map(({ topic, interest, exposure }) =>
    el(
      "div",
      { class: "topic-row", role: "group", "aria-label": topic },
      el("span", { class: "topic-name" }, topic),
      bar(t("interest"), interest, percent(interest), "interest"),
      bar(t("exposure"), exposure, percent(exposure), "exposure"),
    ),
  );
}
