// The page's words, in the language chosen; what the service says is passed through as it is.

const DEFAULT = "en";
let all = {};
let chosen = DEFAULT;

/** Read the words, and choose the language that was chosen before or that the browser asks for. */
export async function loadWords() {
  const answer = await fetch("words.json");
  all = await answer.json();
  const kept = remembered();
  const wanted = kept ?? navigator.language.slice(0, 2).toLowerCase();
  setLanguage(wanted in all ? wanted : DEFAULT);
}

export function setLanguage(language) {
  chosen = language;
  document.documentElement.lang = language === "zh" ? "zh-Hans" : language;
  try {
    localStorage.setItem("marec.language", language);
  } catch {
    // A browser that keeps nothing asks again next time.
  }
  for (const node of document.querySelectorAll("[data-t]")) {
    node.textContent = t(node.dataset.t);
  }
  for (const node of document.querySelectorAll("[data-t-label]")) {
    node.setAttribute("aria-label", t(node.dataset.tLabel));
  }
  for (const node of document.querySelectorAll("[data-t-placeholder]")) {
    node.setAttribute("placeholder", t(node.dataset.tPlaceholder));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}

function remembered() {
  try {
    return localStorage.getItem("marec.language");
  } catch {
    return null;
  }
}

/** Return a phrase with {names} filled in. */
export function t(key, values = {}) {
  const phrase = all[chosen]?.[key] ?? key;
  return phrase.replace(/\{(\w+)\}/g, (whole, name) => String(values[name] ?? whole));
}

/** Return what a component, channel, block or team is called; names of one's own stay. */
export function nameOf(name) {
  const plain = String(name).replace(/_\d+$/, "");
  return all[chosen]?.[`name.${plain}`] ?? String(name);
}

/** Return what a number of a component's action is called: "quota of cf" and the like. */
export function decisionName(name) {
  const match = /^(quota of|weight of|block|half-life) (.+)$/.exec(name);
  return match ? t(`decision.${match[1]}`, { name: nameOf(match[2]) }) : nameOf(name);
}

/** Return a number as people read it. */
export function shown(value, digits = 2) {
  return new Intl.NumberFormat(chosen, { maximumFractionDigits: digits }).format(value);
}

/** Return the one of several texts that is in the language chosen. */
export function inLanguage(texts) {
  return texts?.[chosen] ?? "";
}

export function percent(value) {
  return new Intl.NumberFormat(chosen, { style: "percent" }).format(value);
}
