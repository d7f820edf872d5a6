// Elements in one call, and the few ways in which numbers and tokens are written.

const SVG = "http://www.w3.org/2000/svg";

export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export function replace(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
}

// Children told apart by keys: those at the front whose keys are as before stay, the others are made anew. A run that
// grows is drawn again many times, and only its end changes.
export function keyedChildren(container, make) {
  let before = [];
  return (keys) => {
    let same = 0;
    while (same < keys.length && before[same] === keys[same]) same += 1;
    for (let i = before.length; i > same; i -= 1) container.lastChild.remove();
    container.append(...keys.slice(same).map((_, i) => make(same + i)));
    before = keys;
  };
}

// Spaces and line breaks are tokens' most frequent parts, so they are made visible.
export function visible(text) {
  if (text === "") return "∅";
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥");
}

export function tokenText(run, id) {
  return run.texts[id] ?? `#${id}`;
}

export function token(run, id) {
  return visible(tokenText(run, id));
}

// The same for whoever listens: no signs for spaces, which would be read out one by one.
export function spoken(run, id) {
  const text = tokenText(run, id);
  return text.trim() || (text.includes("\n") ? "line break" : text === "" ? "part of a character" : "space");
}

export function prob(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  if (value < 0.001) return value.toExponential(1);
  return value.toFixed(3);
}

export function percent(value, digits = 0) {
  return value === null || value === undefined ? "–" : `${(100 * value).toFixed(digits)} %`;
}

export function milliseconds(seconds) {
  const ms = seconds * 1e3;
  return `${ms >= 100 ? ms.toFixed(0) : ms >= 1 ? ms.toFixed(2) : ms.toFixed(3)} ms`;
}

export function decimal(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

export function plural(count, one, many = `${one}s`) {
  return `${count} ${count === 1 ? one : many}`;
}

// A labelled slider with its value beside it; `show` writes the value, `say` is what is read out.
export function slider(label, { min, max, step = 1, value, show = String, say = show, change }) {
  const note = h("small", {});
  const output = h("span", { class: "ssd-value", "aria-hidden": "true" }, show(value)); // the input says it itself
  const input = h("input", {
    type: "range", min, max, step, "aria-label": label, "aria-valuetext": say(value),
    oninput: () => {
      const now = Number(input.value);
      output.textContent = show(now);
      input.setAttribute("aria-valuetext", say(now));
      change(now);
    },
  });
  input.value = value;
  const element = h("label", { class: "ssd-slider" }, h("span", {}, label), output, input, note);
  return {
    element,
    set(now) {
      input.value = now;
      output.textContent = show(now);
      input.setAttribute("aria-valuetext", say(now));
    },
    limits(low, high, why = "") {
      input.min = low;
      input.max = high;
      note.textContent = why;
      input.setAttribute("aria-description", why);
    },
  };
}

// What the marks of a view mean: pairs of a sign (an element, or text) and words.
export function legend(label, pairs) {
  return h("ul", { class: "ssd-legend", "aria-label": label }, pairs.map(([sign, words]) => h("li", {}, h("span", { class: "ssd-legend-sign", "aria-hidden": "true" }, sign), ` ${words}`)));
}

// Drawn, because not every machine has a font with the signs for these.
const ICONS = {
  first: "M3 3v10M13 3L6 8l7 5z", back: "M11 3L4 8l7 5z", play: "M4 2l10 6-10 6z", pause: "M4 3h3v10H4zM9 3h3v10H9z",
  next: "M5 3l7 5-7 5z", last: "M13 3v10M3 3l7 5-7 5z",
};

export function icon(name) {
  return s("svg", { viewBox: "0 0 16 16", class: "ssd-icon", "aria-hidden": "true" }, s("path", { d: ICONS[name] }));
}

export function section(name, title, help, ...children) {
  return h(
    "section", { class: `ssd-view ssd-${name}`, role: "group", "aria-label": title }, // no landmark: a notebook may show several of them
    h("h2", {}, title), help ? h("p", { class: "ssd-help" }, help) : null, children,
  );
}

// Arrow up and down move between the elements that `query` finds in `container`; only one of them is a tab stop.
export function roving(container, query) {
  container.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const items = [...container.querySelectorAll(query)].filter((item) => item.offsetParent !== null);
    const at = items.indexOf(document.activeElement);
    if (at < 0) return;
    event.preventDefault();
    event.stopPropagation();
    const next = items[Math.min(items.length - 1, Math.max(0, at + (event.key === "ArrowDown" ? 1 : -1)))];
    for (const item of items) item.tabIndex = item === next ? 0 : -1;
    next.focus();
  });
}
