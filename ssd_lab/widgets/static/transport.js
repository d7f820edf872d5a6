// Which round is shown: buttons, slider, keys and play; and which run, request or telling round.

import { h, icon, replace, slider } from "./dom.js";

const PLAY_MS = 900;

export function transport(app) {
  let timer = null;
  const move = (by) => app.select({ step: app.selected.step + by });
  const play = () => {
    if (timer === null) {
      if (app.selected.step >= app.steps.length - 1) app.select({ step: 0 });
      timer = setInterval(() => {
        if (app.selected.step >= app.steps.length - 1) play();
        else move(1);
      }, PLAY_MS);
    } else {
      clearInterval(timer);
      timer = null;
    }
    update();
  };
  const button = (name, label, click) =>
    h("button", { type: "button", "data-do": name, "aria-label": label, title: label, onclick: click }, icon(name));
  const playing = button("play", "Play (space)", play);
  const position = slider("Round", { min: 0, max: 0, value: 0, show: () => "", say: (step) => `round ${step + 1} of ${app.steps.length}`, change: (step) => app.select({ step }) });
  const where = h("span", { class: "ssd-where", role: "status", "aria-live": "polite" });
  const chooser = h("div", { class: "ssd-chooser" });
  const presets = h("div", { class: "ssd-presets", role: "group", "aria-label": "Rounds to look at first" });
  const element = h(
    "div", { class: "ssd-transport" },
    h("div", { class: "ssd-choices" }, chooser, presets),
    h(
      "div", { class: "ssd-buttons", role: "group", "aria-label": "Step through the rounds" },
      button("first", "First round (Home)", () => app.select({ step: 0 })),
      button("back", "Previous round (left arrow)", () => move(-1)),
      playing,
      button("next", "Next round (right arrow)", () => move(1)),
      button("last", "Last round (End)", () => app.select({ step: app.steps.length - 1 })),
      position.element,
      where,
    ),
  );

  function choose() {
    const runs = app.data.runs;
    const options = (values) => values.map(([value, text]) => h("option", { value }, text));
    const pick = (label, values, value, change) => {
      const select = h("select", { "aria-label": label, onchange: () => change(Number(select.value)) }, options(values));
      select.value = value;
      return h("label", {}, h("span", {}, label), select);
    };
    const requests = app.run?.requests ?? [];
    replace(
      chooser,
      runs.length > 1 ? pick("Run", runs.map((run, i) => [i, run.name]), app.selected.run, (run) => app.select({ run, step: 0 })) : null,
      requests.length > 1
        ? pick("Request", requests.map((r) => [r.id, `${r.id}: ${shorten(r.prompt ?? "", 40)}`]), app.selected.request,
            (request) => app.select({ request, step: 0 }))
        : null,
    );
    replace(
      presets,
      (app.run?.presets ?? []).map((preset) =>
        h("button", { type: "button", class: "ssd-preset", onclick: () => app.select(preset) }, preset.label)),
    );
  }

  function update() {
    const count = app.steps.length;
    position.limits(0, Math.max(0, count - 1));
    position.set(app.selected.step);
    const step = app.step;
    where.textContent = step ? `round ${app.selected.step + 1} of ${count}` : "no rounds";
    const word = timer === null ? "Play" : "Pause";
    if (playing.getAttribute("aria-label") !== `${word} (space)`) {
      playing.setAttribute("aria-label", `${word} (space)`);
      playing.title = `${word} (space)`;
      replace(playing, icon(word.toLowerCase()));
    }
  }

  function keys(event) {
    const tag = event.target.tagName;
    if (event.altKey || event.ctrlKey || event.metaKey || ["TEXTAREA", "SELECT"].includes(tag)) return;
    if (tag === "INPUT" && event.target.type !== "checkbox") return;
    const act = {
      ArrowLeft: () => move(-1),
      ArrowRight: () => move(1),
      Home: () => app.select({ step: 0 }),
      End: () => app.select({ step: app.steps.length - 1 }),
      " ": ["BUTTON", "INPUT", "SUMMARY"].includes(tag) || event.target.getAttribute("role") ? null : play,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }

  let shown = null;
  return {
    element,
    keys,
    render(reason) {
      if (reason === "hover") return;
      const now = `${app.selected.run}/${app.selected.request}`;
      if (reason === "data" || shown !== now) choose();
      shown = now;
      update();
    },
    destroy() {
      if (timer !== null) clearInterval(timer);
    },
  };
}

function shorten(text, length) {
  const line = text.replaceAll("\n", " ");
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}
