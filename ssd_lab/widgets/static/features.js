// What an EAGLE3 head reads in a round, guess by guess: features of three of the target's layers, then its own states.

import { h, plural, prob, replace, s, section, slider, token } from "./dom.js";
import { SIGNS, verdict } from "./state.js";

const HEAD = 108; // width of a head's box with the room behind it
const LAYER = 18;
let pictures = 0;
const X = { target: 12, join: 160, heads: 250 }; // the first guess fits a phone

export function featuresView(app) {
  let at = 1; // the guess that is told
  const lead = h("p", { class: "ssd-lead", "aria-live": "polite" });
  const picture = h("div", { class: "ssd-scroll", tabindex: 0, role: "group", "aria-label": "From features to guesses" });
  const note = h("p", { class: "ssd-help" });
  const control = slider("guess", { min: 1, max: 1, value: 1, show: (value) => `${value}.`, change: (value) => { at = value; draw(); } });
  const element = section("features", "What flows into a guess", null, h("div", { class: "ssd-sliders" }, control.element), lead, picture, note);

  function draw() {
    const { run, step, steps, selected } = app;
    const count = step?.draft_tokens.length ?? 0;
    element.dataset.guesses = count;
    if (!count) {
      lead.textContent = "Nothing was guessed in this round.";
      replace(picture);
      return;
    }
    at = Math.min(at, count);
    control.limits(1, count);
    control.set(at);
    const name = token(run, step.draft_tokens[at - 1]);
    const before = at > 1 ? token(run, step.draft_tokens[at - 2]) : lastToken(app);
    lead.textContent = readsFeatures(step, at)
      ? `Guess 1, “${name}”, is made from the target's features of the token before “${before}”, joined into g, and from the embedding of “${before}” itself.`
      : `Guess ${at}, “${name}”: the target has not read “${before}” yet, so the head's own state takes the place of g. Beside it stands the embedding of “${before}”.`;
    replace(picture, drawing(run, step, at, before));
    // where it is too wide
    picture.scrollLeft = readsFeatures(step, at) ? 0 : Math.max(0, X.heads + (at - 0.5) * HEAD - picture.clientWidth / 2);
    const earlier = steps[selected.step - 1];
    const fresh = earlier ? `The last round gave ${plural(earlier.num_accepted + 1, "more token")} features of the target. ` : "The prompt's tokens got their features when the prompt was read. ";
    note.textContent = step.origin === "hit"
      ? `${fresh}These guesses were prepared while the target was still checking the previous round, so they began from older features and the head's own states.`
      : `${fresh}They take the place of the states that the head had guessed with.`;
  }

  return {
    element,
    get empty() {
      return !app.run?.features;
    },
    render(reason) {
      if (reason === "hover" || !app.run) return;
      if (!app.run.features) {
        lead.textContent = "Only runs of eagle3 read features of the target.";
        replace(picture);
        return;
      }
      const [kind, place] = (app.selected.place ?? "").split(":");
      if (kind === "draft") at = Number(place) + 1;
      draw();
    },
  };
}

// The first guess of a round does, but where it was prepared before the target had read what precedes it.
function readsFeatures(step, at) {
  return at === 1 && step.origin !== "hit";
}

// The text's last token before the round.
function lastToken({ run, request, step }) {
  const generated = request.tokens[step.position - request.steps[0].position - 1];
  return generated ? token(run, generated[0]) : "the prompt's last token";
}

function drawing(run, step, at, before) {
  const { layers, of } = run.features;
  const count = step.draft_tokens.length;
  const height = Math.max(246, of * LAYER + 82);
  const foot = height - 56; // the line of embeddings
  const layer = (number) => foot - 30 - number * LAYER; // layer 0 at the bottom
  const middle = (layer(layers[0]) + layer(layers.at(-1))) / 2;
  const text = (x, y, words, props = {}) => s("text", { x, y, "text-anchor": "middle", ...props }, words);
  const first = readsFeatures(step, at);
  const id = `ssd-arrow-${pictures++}`;
  const arrow = (d, on) => s("path", { d, class: `ssd-flow${on ? " on" : ""}`, "marker-end": `url(#${id}${on ? "-on" : ""})` });
  const head = (number) => X.heads + (number - 1) * HEAD;
  const short = (name) => (name.length > 12 ? `${name.slice(0, 11)}…` : name);
  const tip = (name, kind) => s("marker", { id: name, class: `ssd-tip ${kind}`, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 7, markerHeight: 7, orient: "auto-start-reverse" }, s("path", { d: "M0 0L8 4L0 8z" }));
  const guesses = step.draft_tokens.map((drafted, i) => {
    const number = i + 1;
    const on = number === at;
    const kind = verdict(step, i);
    const [x, mid] = [head(number), head(number) + 38];
    return [
      arrow(`M${mid} ${foot - 12}V${middle + 24}`, on),
      number > 1 ? arrow(`M${head(number - 1) + 76} ${middle}H${x - 2}`, on) : arrow(`M${X.join + 66} ${middle}H${x - 2}`, on && first),
      arrow(`M${mid} ${middle - 20}V58`, on),
      s("g", { class: `ssd-flow-box head${on ? " on" : ""}` }, s("rect", { x, y: middle - 20, width: 76, height: 40, rx: 8 }), text(mid, middle - 2, "head"), text(mid, middle + 12, readsFeatures(step, number) ? "from g" : "own state", { class: "soft" })),
      s("g", { class: `ssd-flow-box token ${kind}${on ? " on" : ""}` }, s("rect", { x: x - 12, y: 14, width: 100, height: 42, rx: 8 }), text(mid, 32, `${SIGNS[kind]} ${short(token(run, drafted))}`), text(mid, 48, `q ${prob(step.draft_probs[i])}`, { class: "soft" })),
      text(mid, foot + 4, short(number > 1 ? token(run, step.draft_tokens[i - 1]) : before), { class: on ? "on" : "" }),
    ];
  });
  return s("svg", { viewBox: `0 0 ${X.heads + count * HEAD} ${height}`, width: X.heads + count * HEAD, height, class: "ssd-features-picture", role: "img",
    "aria-label": `Features at the inputs of layers ${layers.join(", ")} of ${of}; guess ${at} of ${count}` },
  s("defs", {}, tip(id, ""), tip(`${id}-on`, "on")),
  text(X.target + 55, foot + 4, "the text so far"),
  text(X.target, foot + 46, `━ read: what enters layers ${layers.filter((one) => one < of).join(", ")}${layers.includes(of) ? " and leaves the last" : ""}`, { "text-anchor": "start", class: "soft" }),
  Array.from({ length: of }, (_, number) => s("g", { class: "ssd-flow-box layer" },
    s("rect", { x: X.target, y: layer(number) - LAYER + 3, width: 110, height: LAYER - 5, rx: 3 }), text(X.target + 55, layer(number) - 4.5, `layer ${number}`, { class: "small" }))),
  layers.map((number) => s("line", { class: "ssd-tap", x1: X.target, x2: X.target + 110, y1: layer(number) + 0.5, y2: layer(number) + 0.5 })),
  text(X.target + 55, layer(of - 1) - LAYER - 10, `target, ${of} layers`),
  layers.map((number) => arrow(`M${X.target + 112} ${layer(number) + 1}C${X.target + 134} ${layer(number) + 1} ${X.join - 24} ${middle} ${X.join - 2} ${middle}`, first)),
  s("g", { class: `ssd-flow-box join${first ? " on" : ""}` }, s("rect", { x: X.join, y: middle - 20, width: 66, height: 40, rx: 8 }), text(X.join + 33, middle - 2, "fc"), text(X.join + 33, middle + 12, `${layers.length} to 1: g`, { class: "soft" })),
  text(X.heads - 78, foot + 26, "embedding of the token before", { "text-anchor": "start", class: "soft" }),
  guesses);
}
