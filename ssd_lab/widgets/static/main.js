// Puts views on a page: `mount` draws into an element and answers with what its caller may do later.

import { acceptanceView } from "./acceptance.js";
import { cacheView } from "./cache.js";
import { detailsView } from "./details.js";
import { h, replace } from "./dom.js";
import { featuresView } from "./features.js";
import { keepKeys } from "./keys.js";
import { extend } from "./live.js";
import { ownView } from "./own.js";
import { raceView } from "./race.js";
import { slotsView } from "./slots.js";
import { createApp, stepAt } from "./state.js";
import { storyView } from "./story.js";
import { textView } from "./text.js";
import { followTheme } from "./theme.js";
import { timelineView } from "./timeline.js";
import { transport } from "./transport.js";
import { treeView } from "./tree.js";

const VIEWS = {
  story: (app) => [leading(storyView(app))],
  told: (app) => [leading(folded(app, storyView(app), "Tell this round"))],
  race: (app) => [leading(raceView(app))],
  stepper: (app) => [treeView(app), detailsView(app), otherTree(app)],
  text: (app) => [textView(app)],
  cache: (app) => [cacheView(app)],
  acceptance: (app) => [acceptanceView(app)],
  slots: (app) => [slotsView(app)],
  features: (app) => [featuresView(app)],
  timeline: (app, { clock }) => [timelineView(app, clock)],
  own: (app, { only }) => [ownView(app, only)], // `own:name` is one of them
};

// Stands before the buttons that choose a round.
function leading(view) {
  return Object.assign(view, { leads: true });
}

// Closed at first, and drawn while it is open: a live run is not held up by what nobody looks at, and what moves is not
// begun again by each new round.
function folded(app, view, title) {
  const element = h("details", { class: "ssd-folded", ontoggle: () => render() }, h("summary", {}, title), view.element);
  let run = null;
  function render(reason) {
    if (!element.open || reason === "hover") return;
    view.render(app.run === run ? "selection" : "data");
    run = app.run;
  }
  return { element, render, destroy: view.destroy };
}

const AT_ONCE = ["stepper", "text", "own"]; // below a result's numbers: the others are a click away
const LATER = {
  run: "More pictures of this run: acceptance, caches, timeline",
  compared: "The rounds of these runs: trees, texts, acceptance, caches, timeline",
  toured: "The same round to explore: its tree and each of its tokens",
};

export const ALL = ["stepper", "text", "cache", "acceptance", "features", "slots", "timeline", "own"];

export function mount(root, { data, views = ALL, selection = {}, summary = "", fold = false, clock, onSelect = () => {} }) {
  const app = createApp(data, selection);
  const bar = transport(app);
  const parts = views.flatMap((name) => {
    const [kind, only] = name.split(":");
    return VIEWS[kind](app, { clock, only }).map((part) => Object.assign(part, { kind }));
  });
  root.classList.add("ssd-lab");
  const unfollow = followTheme(root);
  const notes = h("div", { class: "ssd-notes" });
  const compared = data.runs.length > 1; // then the table of numbers is what was asked for
  const head = h("div", { class: `ssd-scroll ssd-summary${compared ? "" : " ssd-of-one"}` });
  head.innerHTML = summary; // made by Python, where everything in it was escaped
  const [leads, others] = [parts.filter((part) => part.leads), parts.filter((part) => !part.leads)];
  const toured = views.join() === "story,stepper"; // the story is what was asked for
  const kind = toured ? "toured" : compared ? "compared" : "run";
  const later = toured ? others : fold ? others.filter((part) => compared || !AT_ONCE.includes(part.kind)) : [];
  const grid = (some) => h("div", { class: `ssd-grid ssd-views-${views.length}` }, some.map((part) => part.element));
  const barInside = kind === "compared";
  const more = later.length > 0 && h("details", { class: "ssd-later", ontoggle: () => later.forEach((part) => part.render("data")) },
    h("summary", {}, LATER[kind]), barInside ? bar.element : null, grid(later));
  const shown = others.filter((part) => !later.includes(part));
  replace(root, head, notes, leads.map((part) => part.element), more && barInside ? null : bar.element, shown.length ? grid(shown) : null, more || null);
  const release = keepKeys(root, bar.keys);
  bar.element.hidden = views.every((name) => name === "race"); // it shows whole texts
  const off = app.on((reason) => {
    if (reason === "data") tellNotes();
    for (const part of [bar, ...parts]) {
      if (views.length > 1) part.element.hidden = part.empty === true; // alone, a view says why it is empty
      part.render(reason);
    }
    if (reason === "selection") onSelect(app.selected);
  });

  function tellNotes() {
    replace(notes, app.data.runs.flatMap((run) => [
      run.exact ? null : h("p", { class: "ssd-warning" }, `⚠ ${run.name}: not exact: ${run.lossy_reason ?? "the trace does not say that it is"}`),
      run.left_out ? h("p", { class: "ssd-help" }, `${run.name}: ${run.left_out} later rounds are not shown here`) : null,
    ]));
  }

  app.tell("data");
  performance.mark("ssd-lab first view");
  return {
    app,
    select: (patch) => app.select(patch),
    replaceData: (fresh, selection) => app.replace(fresh, selection),
    extend: (part) => extend(app.run, part), // not drawn before `redraw`
    redraw: (selection) => app.replace(app.data, selection),
    destroy() {
      off();
      unfollow();
      release();
      for (const part of [bar, ...parts]) part.destroy?.();
      root.replaceChildren();
    },
  };
}

// The tree of another run at the same place of the same prompt, beside the selected one.
function otherTree(app) {
  let other = null;
  const find = () => {
    const run = app.data.runs[other];
    const number = app.run.requests.indexOf(app.request);
    const request = run.requests[number] ?? run.requests[0];
    const step = request ? stepAt(request, app.step?.position ?? 0) : 0;
    return { run, request, step: request?.steps[step], selection: (place) => ({ run: other, request: request.id, step, place }) };
  };
  const element = h("div", { class: "ssd-other" });
  let view = null;

  function choose() {
    const others = app.data.runs.map((run, index) => [run, index]).filter(([, index]) => index !== app.selected.run);
    if (!others.length) {
      replace(element);
      return;
    }
    const select = h("select", { "aria-label": "Compare with", onchange: () => { other = select.value === "" ? null : Number(select.value); show(); } },
      h("option", { value: "" }, "nothing"), others.map(([run, index]) => h("option", { value: index }, run.name)));
    select.value = other ?? "";
    replace(element, h("label", { class: "ssd-slider" }, h("span", {}, "beside the tree of"), select));
    view = null;
    if (other !== null) {
      view = treeView(app, { title: `Draft tree: ${app.data.runs[other].name}`, follow: find });
      element.append(view.element);
    }
  }

  function show() {
    if (other === app.selected.run) other = null;
    choose();
    view?.render("data");
  }

  let shown = null;
  return {
    element,
    render(reason) {
      if (reason === "hover") return;
      if (reason === "data" || shown !== app.selected.run) show();
      else view?.render(reason);
      shown = app.selected.run;
    },
  };
}
