// What JupyterLab calls: one front end for every widget, told apart by the model's `kind`.

import { mount } from "./main.js";
import { mountMap } from "./map.js";
import { mountOverlap } from "./overlap_view.js";
import { mountPlayground } from "./playground.js";
import { mountShape } from "./shape.js";
import { mountSpeed } from "./speed.js";

export function render({ model, el }) {
  const kind = model.get("kind");
  return (OTHERS[kind] ?? views)(model, el);
}

const OTHERS = { playground, speed, map, overlap, shape };

// Widgets of one page that share a selection move together even where no kernel passes it on.
function linksOfPage() {
  return (globalThis[Symbol.for("ssd_lab.links")] ??= new EventTarget());
}

function views(model, el) {
  const links = linksOfPage();
  const link = model.get("link");
  let quiet = false;
  let latest = 0; // when what is shown was chosen: the kernel's echo of an older choice comes late and is left out
  const view = mount(el, {
    data: model.get("data"),
    views: model.get("views"),
    summary: model.get("summary"),
    fold: Boolean(model.get("summary")), // a result as a cell's value
    clock: model.get("clock"),
    selection: model.get("selection"),
    onSelect(selected) {
      if (quiet) return;
      latest = performance.timeOrigin + performance.now();
      const stamped = { ...selected, chosen_ms: latest };
      links.dispatchEvent(new CustomEvent(link, { detail: { selected: stamped, from: model } }));
      model.set("selection", stamped);
      model.save_changes();
    },
  });
  const follow = (selected) => {
    if (selected.chosen_ms < latest) return;
    latest = selected.chosen_ms ?? latest;
    quiet = true; // what came from elsewhere is not sent back
    view.select(selected);
    quiet = false;
  };
  const onLink = ({ detail }) => {
    if (detail.from !== model) follow(detail.selected);
  };
  const onSelection = () => follow(model.get("selection"));
  const onData = () => view.replaceData(model.get("data"));
  links.addEventListener(link, onLink);
  model.on("change:selection", onSelection);
  model.on("change:data", onData);
  return () => {
    links.removeEventListener(link, onLink);
    model.off("change:selection", onSelection);
    model.off("change:data", onData);
    view.destroy();
  };
}

function speed(model, el) {
  const view = mountSpeed(el, {
    settings: model.get("settings"),
    simulated: model.get("simulated"),
    onChange(settings) {
      model.set("settings", settings);
      model.save_changes();
    },
  });
  const onSimulated = () => view.set(model.get("settings"), model.get("simulated"));
  model.on("change:simulated", onSimulated);
  return () => {
    model.off("change:simulated", onSimulated);
    view.destroy();
  };
}

function map(model, el) {
  const view = mountMap(el, {
    picture: model.get("picture"),
    frame: model.get("frame"),
    points: model.get("points"),
    place: model.get("place"),
    onChange(place) {
      model.set("place", place);
      model.save_changes();
    },
  });
  return () => view.destroy();
}

function overlap(model, el) {
  const given = ["words", "target", "draft", "fan_out", "factor"].map((name) => [name, model.get(name)]);
  const view = mountOverlap(el, { ...Object.fromEntries(given), onChange: (changed) => told(model, changed) });
  return () => view.destroy();
}

function shape(model, el) {
  const view = mountShape(el, { parents: model.get("parents"), words: model.get("words"), chosen: model.get("chosen"), onChange: (chosen) => told(model, { chosen }) });
  const onChosen = () => view.choose(model.get("chosen"));
  model.on("change:chosen", onChosen);
  return () => {
    model.off("change:chosen", onChosen);
    view.destroy();
  };
}

function told(model, changed) {
  for (const [name, value] of Object.entries(changed)) model.set(name, value);
  model.save_changes();
}

function playground(model, el) {
  const view = mountPlayground(el, {
    strategies: model.get("strategies"),
    defaults: model.get("defaults"),
    run: (order) => model.send({ do: "run", ...order }),
    stop: () => model.send({ do: "stop" }),
    ping: () => model.send({ do: "ping" }),
  });
  const onMessage = (message) => view.show(message);
  model.on("msg:custom", onMessage);
  return () => {
    model.off("msg:custom", onMessage);
    view.destroy();
  };
}
