// Elements and pictures. Every text is a text node: nothing that the service says is read as HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element with attributes, listeners (onclick) and children; texts become text nodes. */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) {
      node.addEventListener(name.slice(2), value);
    } else {
      node.setAttribute(name, String(value));
    }
  }
  node.append(...children);
  return node;
}

function svg(tag, attributes, ...children) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, String(value));
  }
  node.append(...children);
  return node;
}

/** Return a labelled bar of a share in [0, 1]; what it says stands beside it. */
export function bar(label, share, text, kind = "") {
  const fill = el("span", { class: `fill ${kind}` });
  fill.style.width = `${(100 * Math.min(1, Math.max(0, share))).toFixed(1)}%`;
  return el(
    "div",
    { class: "bar" },
    el("span", { class: "bar-label" }, label),
    el("span", { class: "track", "aria-hidden": "true" }, fill),
    el("span", { class: "bar-text" }, text),
  );
}

/** Return a bar from the middle: to the right for numbers above 0, to the left below. */
export function signedBar(label, value, most, text) {
  const half = 50 * Math.min(1, Math.abs(value) / most);
  const fill = el("span", { class: value < 0 ? "fill below" : "fill above" });
  fill.style.width = `${half.toFixed(1)}%`;
  fill.style.left = `${(value < 0 ? 50 - half : 50).toFixed(1)}%`;
  return el(
    "div",
    { class: "bar" },
    el("span", { class: "bar-label" }, label),
    el("span", { class: "track signed", "aria-hidden": "true" }, fill),
    el("span", { class: "bar-text" }, text),
  );
}

/** Return a chart of numbers from 0 on, in percent, a line for each {name, values, kind}, told in
 * words too; `at` marks one place of the course. */
export function lines(series, description, at = -1) {
  const width = 480;
  const height = 160;
  const [left, right, top, bottom] = [52, 12, 10, 24];
  const longest = Math.max(...series.map((one) => one.values.length));
  const x = (k) => left + ((width - left - right) * k) / Math.max(1, longest - 1);
  const most = Math.max(1, ...series.flatMap((one) => one.values));
  const y = (value) => top + (height - top - bottom) * (1 - Math.max(0, value) / most);
  const parts = [];
  if (at >= 0) {
    parts.push(svg("line", { x1: x(at), x2: x(at), y1: top, y2: y(0), class: "now" }));
  }
  for (const share of [0, 0.5, 1]) {
    parts.push(
      svg("line", { x1: left, x2: width - right, y1: y(share), y2: y(share), class: "grid" }),
      svg("text", { x: left - 6, y: y(share) + 4, class: "axis end" }, `${100 * share} %`),
    );
  }
  const step = Math.max(1, Math.ceil(longest / 10));
  for (let k = 0; k < longest; k += step) {
    parts.push(svg("text", { x: x(k), y: height - 6, class: "axis middle" }, String(k + 1)));
  }
  for (const { values, kind } of series) {
    const points = values.map((value, k) => `${x(k).toFixed(1)},${y(value).toFixed(1)}`);
    parts.push(svg("polyline", { points: points.join(" "), class: `line ${kind}` }));
    for (const point of longest > 12 ? [] : points) {
      const [cx, cy] = point.split(",");
      parts.push(svg("circle", { cx, cy, r: 3.5, class: `dot ${kind}` }));
    }
  }
  const picture = svg(
    "svg",
    { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": description },
    ...parts,
  );
  const legend = el(
    "ul",
    { class: "legend" },
    ...series.map(({ name, kind }) =>
      el("li", {}, el("span", { class: `swatch ${kind}`, "aria-hidden": "true" }), name),
    ),
  );
  return el("div", { class: "chart" }, picture, legend);
}
