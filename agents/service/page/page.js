// A person's own session on the left; on the right what each component of the team did, and why.

import { api, useKey } from "./api.js";
import { el } from "./draw.js";
import { drawInside, sentence } from "./inside.js";
import { loadWords, nameOf, setLanguage, t } from "./words.js";

const byId = (id) => document.getElementById(id);
const WAIT = 200; // ms after the last letter before the catalog is searched

/** What the page knows: one entry of `teams` for each team that answers this session, or the one
 * whose session is watched, which has a `replay`. */
const page = {
  policies: [], topics: [], history: [], teams: [], looked: 0, busy: false, simulated: [],
};

function say(text) {
  byId("status").textContent = text;
}

function complain(error) {
  const box = byId("alert");
  box.textContent = error.status === 0 ? t("offline") : error.message;
  box.hidden = false;
  byId("key-form").hidden = error.status !== 401;
}

/** Do one thing at a time, and tell what went wrong with it. */
async function attempt(action) {
  if (page.busy) return;
  page.busy = true;
  document.body.setAttribute("aria-busy", "true");
  byId("alert").hidden = true;
  try {
    await action();
  } catch (error) {
    complain(error);
  } finally {
    page.busy = false;
    document.body.removeAttribute("aria-busy");
  }
}

async function connect() {
  const [policies, topics] = await Promise.all([api.policies(), api.topics()]);
  page.policies = policies.policies;
  page.topics = topics.topics;
  byId("key-form").hidden = true;
  page.simulated = (
    await Promise.all(
      page.policies.filter((one) => one.replays).map(async ({ name }) => {
        const { sessions } = await api.replays(name);
        return sessions.map((session, number) => ({ name, number, session }));
      }),
    )
  ).flat();
  drawTeamChoice();
  await search();
}

// ---------------------------------------------------------------- before a session

function drawTeamChoice() {
  const [first, second] = [byId("first-team"), byId("second-team")];
  const [one, two] = [first.value, second.value];
  const option = (policy) => el("option", { value: policy.name }, nameOf(policy.name));
  first.replaceChildren(...page.policies.map(option));
  const nobody = el("option", { value: "" }, t("nobody"));
  second.replaceChildren(nobody, ...page.policies.map(option));
  if (one) first.value = one;
  second.value = two;
  drawSimulated();
}

function drawSimulated() {
  const select = byId("simulated");
  const before = select.value;
  const options = page.simulated.map(({ name, number, session }, place) =>
    el("option", { value: place }, t("simulated_name", {
      name: nameOf(name), number: number + 1, requests: session.requests.length,
    })),
  );
  select.replaceChildren(
    ...(options.length ? options : [el("option", { value: "" }, t("no_simulated"))]),
  );
  if (before) select.value = before;
}

let asked = 0;

async function search() {
  const mine = (asked += 1);
  const { items } = await api.items(byId("search").value.trim());
  if (mine !== asked) return; // a later search has been sent since
  const taken = new Set(page.history.map((one) => one.item));
  const found = items.filter((one) => !taken.has(one.item));
  byId("found").replaceChildren(
    ...(found.length ? found.map(foundItem) : [el("li", {}, t("none_found"))]),
  );
}

function foundItem(one) {
  const add = () => {
    if (page.history.some((other) => other.item === one.item)) return; // pressed twice
    page.history.push({ ...one, liked: true });
    say(t("choosing", { title: one.title }));
    drawHistory();
    byId("search").focus();
    search().catch(complain);
  };
  const label = `${t("add")}: ${one.title}`;
  return el(
    "li",
    {},
    el("button", { type: "button", onclick: add, "aria-label": label }, `+ ${one.title}`),
    el("span", { class: "topic" }, one.topic),
  );
}

function drawHistory() {
  byId("no-history").hidden = page.history.length > 0;
  byId("history").replaceChildren(...page.history.map(historyItem));
}

function historyItem(one, place) {
  const flip = () => {
    one.liked = !one.liked;
    drawHistory();
    byId("history").children[place].querySelector("button").focus();
  };
  const remove = () => {
    page.history.splice(place, 1);
    drawHistory();
    byId("search").focus();
    search().catch(complain);
  };
  return el(
    "li",
    {},
    el("span", { class: "title" }, one.title),
    el(
      "button",
      { type: "button", "aria-pressed": one.liked, "aria-label": `${one.title}: ${t("liked")}`,
        onclick: flip },
      one.liked ? t("liked") : t("disliked"),
    ),
    el(
      "button",
      { type: "button", onclick: remove, "aria-label": `${t("remove")}: ${one.title}` },
      "×",
    ),
  );
}

// ---------------------------------------------------------------- the session

async function begin() {
  const names = [byId("first-team").value, byId("second-team").value];
  const wanted = names.filter((name, place) => name && names.indexOf(name) === place);
  const seed = Math.floor(Math.random() * 2 ** 31); // the same luck for both teams
  const body = {
    history: page.history.map((one) => one.item),
    feedback: page.history.map((one) => one.liked),
    seed,
  };
  say(t("waiting"));
  const begun = [];
  for (const policy of wanted) {
    const { session } = await api.begin({ ...body, policy });
    begun.push({ policy, session, slates: [], clicked: new Map(), passed: new Set(), state: null });
  }
  page.teams = begun;
  page.looked = 0;
  await nextSlate();
  show(true);
}

/** Show a session, or what is there before one. */
function show(running) {
  for (const id of ["begin", "watch", "nothing-yet"]) byId(id).hidden = running;
  for (const id of ["running", "inside"]) byId(id).hidden = !running;
  byId(running ? "session" : "search").focus();
}

async function nextSlate() {
  if (page.teams[0].replay) return turnTo(page.teams[0].replay.place + 1);
  say(t("waiting"));
  await Promise.all(
    page.teams.map(async (team) => {
      team.slates.push(await api.recommend(team.session));
      team.state = await api.state(team.session);
    }),
  );
  draw();
  say(t("new_slate", { number: page.teams[0].slates.length }));
}

async function tell(team, slate, item, type) {
  await api.tell(team.session, slate.request, item, type);
  if (type === "click") {
    const kept = team.clicked.get(slate.request) ?? new Set();
    team.clicked.set(slate.request, kept.add(item));
  } else {
    team.passed.add(`${slate.request}/${item}`);
  }
  team.state = await api.state(team.session);
  draw();
}

async function forget() {
  const counts = { requests: 0, events: 0 };
  for (const team of page.teams) {
    const { deleted } = await api.forget(team.session);
    counts.requests += deleted.requests;
    counts.events += deleted.events;
  }
  page.teams = [];
  show(false);
  say(t("deleted", counts));
}

// ---------------------------------------------------------------- a session that is watched

async function watch() {
  const kept = byId("kept").value.trim();
  const simulated = page.simulated[Number(byId("simulated").value)];
  if (!kept && !simulated) return;
  const replay = kept ? await keptSession(kept) : { ...simulated.session, policy: simulated.name };
  if (!replay.requests.length) return;
  const taken = replay.requests.map((one) => [one.request, new Set(one.clicks)]);
  page.teams = [
    { policy: replay.policy, replay, slates: [], clicked: new Map(taken), passed: new Set() },
  ];
  page.looked = 0;
  turnTo(0);
  show(true);
}

/** Return a session of the service's own as far as it is kept: what was shown and taken. */
async function keptSession(name) {
  const { policy, history, slates, memory } = await api.state(name);
  const requests = slates.map((slate) => ({
    ...slate, clicks: slate.items.filter((item) => item.clicked).map(({ item }) => item),
  }));
  if (requests.length) requests.at(-1).memory = memory;
  return { policy, history, requests };
}

/** Look at one slate of the session that is watched. */
function turnTo(place) {
  const [team] = page.teams;
  const { requests } = team.replay;
  team.replay.place = Math.min(Math.max(0, place), requests.length - 1);
  team.slates = requests.slice(0, team.replay.place + 1);
  team.state = team.slates.at(-1).memory ? { memory: team.slates.at(-1).memory } : null;
  draw();
  say(t("new_slate", { number: team.replay.place + 1 }));
}

function stopWatching() {
  page.teams = [];
  show(false);
}

/** Draw all, and leave the keyboard where it is. */
function draw() {
  const focused = document.activeElement?.id;
  const replay = page.teams[0]?.replay;
  byId("how-to").textContent = replay ? t("watching") : t("how_to");
  byId("past").textContent = replay ? pastOf(replay) : "";
  for (const id of ["back", "stop"]) byId(id).hidden = !replay;
  byId("forget").hidden = Boolean(replay);
  byId("back").setAttribute("aria-disabled", String(replay?.place === 0));
  const atEnd = replay && replay.place === replay.requests.length - 1;
  byId("next").setAttribute("aria-disabled", String(Boolean(atEnd)));
  byId("slates").replaceChildren(...page.teams.map(drawSlate));
  byId("choice").replaceChildren(...page.teams.map(drawChoice));
  if (page.teams.length) drawInside(page.teams, page.looked, page.topics);
  if (focused) byId(focused)?.focus();
}

function pastOf({ history }) {
  const liked = history.filter((one) => one.liked).map((one) => one.title);
  return liked.length ? t("liked_before", { titles: liked.join(", ") }) : t("nobody_known");
}

function drawChoice(team, place) {
  const look = () => {
    page.looked = place;
    draw();
  };
  return el(
    "button",
    { type: "button", id: `look-${place}`, "aria-pressed": place === page.looked, onclick: look },
    nameOf(team.policy),
  );
}

function drawSlate(team, place) {
  const slate = team.slates.at(-1);
  const who = team.replay && slate.objectives ? `${t("simulated_user")} · ` : "";
  const title = `${who}${nameOf(team.policy)} · ${t("slate_number", { number: slate.number + 1 })}`;
  const heading = `slate-title-${place}`;
  return el(
    "section",
    { "aria-labelledby": heading, class: `slate team-${place}` },
    el("h3", { id: heading }, title),
    el("ol", {}, ...slate.items.map((item, at) => drawItem(team, place, slate, item, at))),
  );
}

function drawItem(team, place, slate, item, at) {
  const taken = team.clicked.get(slate.request)?.has(item.item) ?? false;
  const passed = team.passed.has(`${slate.request}/${item.item}`);
  const button = (type, done, before, after) =>
    el(
      "button",
      {
        type: "button",
        id: `${type}-${place}-${at}`,
        class: type,
        "aria-pressed": done,
        "aria-label": `${done ? after : before}: ${item.title}`,
        // A disabled button would let go of the keyboard.
        "aria-disabled": taken || passed,
        onclick: () => {
          if (!taken && !passed) attempt(() => tell(team, slate, item.item, type));
        },
      },
      done ? after : before,
    );
  const why = sentence(slate, at);
  return el(
    "li",
    { class: taken ? "item taken" : passed ? "item passed" : "item" },
    el("span", { class: "title" }, item.title),
    el("span", { class: "topic" }, item.topic),
    ...(why ? [el("span", { class: "told" }, why)] : []),
    ...(team.replay ? (taken ? [el("strong", {}, t("taken"))] : []) : [
      el(
        "span",
        { class: "buttons" },
        button("click", taken, t("take"), t("taken")),
        button("skip", passed, t("pass"), t("passed")),
      ),
    ]),
  );
}

// ---------------------------------------------------------------- what can be pressed

function listen() {
  let waiting;
  byId("search").addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => search().catch(complain), WAIT);
  });
  byId("search").addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault(); // Enter takes what was found first; it does not begin the session
    byId("found").querySelector("button")?.click();
  });
  byId("begin").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(begin);
  });
  byId("watch").addEventListener("submit", (event) => {
    event.preventDefault();
    attempt(watch);
  });
  byId("next").addEventListener("click", () => attempt(nextSlate));
  byId("back").addEventListener("click", () => turnTo(page.teams[0].replay.place - 1));
  byId("stop").addEventListener("click", stopWatching);
  byId("forget").addEventListener("click", () => attempt(forget));
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    useKey(byId("key").value);
    attempt(connect);
  });
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => {
      setLanguage(button.dataset.language);
      drawTeamChoice();
      drawHistory();
      draw();
      search().catch(complain);
    });
  }
}

await loadWords();
listen();
drawHistory();
await attempt(connect);
document.body.dataset.ready = "true";
