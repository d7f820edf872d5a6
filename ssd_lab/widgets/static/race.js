// The race: the runs write the same request side by side, each token when its round ends on the chosen clock.

import { h, icon, milliseconds, plural, replace, section, slider } from "./dom.js";

const WATCHED_S = 9; // the slowest run takes so long, whatever the clock says

export function raceView(app) {
  let clock = "simulated";
  let lanes = [];
  let longest = 1e-9;
  let at = 0; // seconds of the clock
  let frame = null;
  const lines = h("div", { class: "ssd-race-lanes" });
  const note = h("p", { class: "ssd-help" });
  const clocks = h("select", { "aria-label": "clock of the race", onchange: () => { clock = clocks.value; build(); } });
  const playing = h("button", { type: "button", "data-race": "play", class: "ssd-primary", onclick: () => play(frame === null) });
  const time = slider("time", { min: 0, max: 1000, value: 0, show: () => milliseconds(at), say: () => milliseconds(at), change: (share) => { play(false); show((share / 1000) * longest); } });
  const element = section("race", "The race", null, h("div", { class: "ssd-buttons" }, playing, h("label", { class: "ssd-slider" }, h("span", {}, "clock"), clocks), time.element), lines, note);

  function build() {
    play(false);
    const number = Math.max(0, app.run?.requests.indexOf(app.request) ?? 0);
    lanes = app.data.runs.map((run) => laneOf(run, run.requests[number] ?? run.requests[0], clock)).filter(Boolean);
    longest = Math.max(1e-9, ...lanes.map((lane) => lane.ends.at(-1) ?? 0));
    replace(lines, lanes.map((lane) => lane.element));
    const slow = WATCHED_S / longest;
    note.textContent = `${lanes[0]?.note ?? ""}. Played ${slow >= 1 ? `${slow.toFixed(slow < 10 ? 1 : 0)} times slower` : `${(1 / slow).toFixed(1)} times faster`} than that clock. All write the same text where the strategies are exact and the temperature is 0.`;
    show(longest); // a still of the end, until it is played
  }

  function show(seconds) {
    at = Math.min(longest, seconds);
    for (const lane of lanes) lane.show(at);
    time.set(Math.round((1000 * at) / longest));
  }

  function play(now) {
    if (frame !== null) cancelAnimationFrame(frame);
    frame = null;
    replace(playing, icon(now ? "pause" : "play"), now ? " Pause" : " Start");
    if (!now) return;
    const from = at >= longest ? 0 : at;
    const begun = performance.now();
    const next = () => {
      show(from + ((performance.now() - begun) / 1000) * (longest / WATCHED_S));
      if (at < longest) frame = requestAnimationFrame(next);
      else play(false);
    };
    frame = requestAnimationFrame(next);
  }

  return {
    element,
    get empty() {
      return app.data.runs.length < 2;
    },
    render(reason) {
      if (reason !== "data") return;
      const names = [...new Set(app.data.runs.flatMap((run) => run.clocks.map((one) => one.name)))];
      replace(clocks, names.map((name) => h("option", { value: name }, name)));
      if (!names.includes(clock)) clock = names[0];
      clocks.value = clock;
      build();
    },
    destroy: () => play(false),
  };
}

// A run's line: which of its tokens are there at a time, counted from the start of its first round.
function laneOf(run, request, name) {
  const clock = run.clocks.find((one) => one.name === name);
  if (!clock || !request) return null;
  const start = clock.rounds[0]?.[0] ?? 0;
  const ends = request.steps.map((step) => (clock.rounds[step.round - run.first_round]?.[1] ?? start) - start);
  const words = request.tokens.map(([id, step], i) => h("span", { class: step % 2 ? "odd" : "even", "data-i": i }, run.texts[id] ?? ""));
  const count = h("span", { class: "ssd-race-count" });
  const text = h("div", { class: "ssd-race-text" }, words);
  let there = -1;
  return {
    ends,
    note: clock.note,
    element: h("div", { class: "ssd-race-lane", "data-run": run.name }, h("div", { class: "ssd-race-head" }, h("strong", {}, run.name), count), text),
    show(seconds) {
      const rounds = ends.filter((end) => end <= seconds + 1e-12).length;
      const tokens = request.tokens.filter(([, step]) => step < rounds).length;
      if (tokens === there) return;
      there = tokens;
      words.forEach((word, i) => word.classList.toggle("there", i < tokens));
      const took = ends[rounds - 1];
      count.textContent = took ? `${plural(tokens, "token")} in ${plural(rounds, "pass", "passes")}, ${milliseconds(took)}: ${(tokens / took).toFixed(0)} tokens/s` : "0 tokens";
    },
  };
}
