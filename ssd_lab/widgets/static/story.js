// The narrator: a round of the trace in eight beats, each one sentence and one picture. Forward by scrolling over the picture,
// by button, key or tap on a dot, or by itself; beats for which a trace has nothing (no cache, no distributions) are left out.

import { h, icon, milliseconds, percent, plural, replace, section, token } from "./dom.js";
import { clockOf, roundStage } from "./stage.js";
import { isBonus } from "./state.js";

const BEAT_MS = 4200;
const SLOWLY = 2.5;
const SCROLL_PX = 120; // from beat to beat: about one notch of a wheel

export function storyView(app) {
  const stage = roundStage();
  let beats = [];
  let at = 0;
  let told = null;
  let timer = null;
  let slow = false;
  const title = h("h3", { class: "ssd-beat-title" });
  const words = h("p", { class: "ssd-beat", "aria-live": "polite" });
  const dots = h("div", { class: "ssd-dots", role: "group", "aria-label": "Beats of the story" });
  const button = (name, label, click, shown) => h("button", { type: "button", "data-story": name, "aria-label": label, title: label, onclick: click }, shown);
  const back = button("back", "Previous beat (left arrow)", () => go(at - 1), icon("back"));
  const playing = button("play", "Play the story", () => play(timer === null), icon("play"));
  const forth = button("next", "Next beat (right arrow)", () => go(at + 1), icon("next"));
  const slower = h("button", { type: "button", "data-story": "slow", "aria-pressed": "false", onclick: () => { slow = !slow; slower.setAttribute("aria-pressed", String(slow)); element.classList.toggle("slow", slow); if (timer !== null) play(true); } }, "slow motion");
  // the picture stays where it is while the rail below it scrolls; behind the last beat the page goes on
  const rail = h("div", { class: "ssd-beat-rail" });
  const scroller = h("div", { class: "ssd-beats", tabindex: 0, role: "group", "aria-label": "The beat: scroll for the next one", onscroll: () => go(scrolledTo()) }, h("div", { class: "ssd-beat-shown" }, title, words, stage.element), rail);
  const scrolledTo = () => Math.round(scroller.scrollTop / SCROLL_PX);
  const element = section("story", "One round, told", null, h("div", { class: "ssd-buttons" }, back, playing, forth, dots, slower), scroller);
  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || !["ArrowLeft", "ArrowRight"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation(); // elsewhere the arrows step through the rounds
    go(at + (event.key === "ArrowRight" ? 1 : -1));
  });

  function play(now) {
    clearInterval(timer);
    timer = null;
    if (now) {
      if (at >= beats.length - 1) go(0);
      timer = setInterval(() => (at < beats.length - 1 ? go(at + 1) : play(false)), BEAT_MS * (slow ? SLOWLY : 1));
    }
    const word = now ? "Pause" : "Play";
    playing.setAttribute("aria-label", `${word} the story`);
    replace(playing, icon(word.toLowerCase()));
  }

  function go(wanted) {
    const now = Math.max(0, Math.min(beats.length - 1, wanted));
    if (now === at && beats[now] === told) return;
    at = now;
    const beat = (told = beats[at]);
    if (!beat) return;
    if (scrolledTo() !== at) scroller.scrollTop = at * SCROLL_PX;
    title.textContent = `${at + 1}. ${beat.title}`;
    words.textContent = beat.words;
    stage.show(beat.layers);
    if (beat.layers.includes("lookup")) stage.slide();
    back.disabled = at === 0;
    forth.disabled = at === beats.length - 1;
    [...dots.children].forEach((dot, i) => dot.setAttribute("aria-current", i === at ? "step" : "false"));
  }

  let shown = null;
  return {
    element,
    go,
    render(reason) {
      const { run, request, step, selected } = app;
      const key = `${selected.run}/${selected.request}/${selected.step}`;
      if (!step || reason === "hover" || (key === shown && reason !== "data")) return;
      const first = shown === null;
      shown = key;
      stage.draw({ run, request, step, number: selected.step });
      beats = beatsOf(app);
      replace(dots, beats.map((beat, i) => h("button", { type: "button", class: "ssd-dot-button", "aria-label": `${i + 1}. ${beat.title}`, title: beat.title, onclick: () => go(i) }, i + 1)));
      rail.style.height = `${(beats.length - 1) * SCROLL_PX}px`;
      go(first ? 0 : at);
    },
    destroy: () => clearInterval(timer),
  };
}

function beatsOf({ run, request, step }) {
  const k = step.draft_tokens.length;
  const own = token(run, step.recovery_token);
  const sampled = request.temperature > 0;
  const rejected = k && !isBonus(step) ? token(run, step.draft_tokens[step.num_accepted]) : null;
  const ahead = step.tree && !step.tree.verified;
  const place = step.alternatives?.[Math.min(step.num_accepted, k - 1)];
  const passS = meanPass(run);
  const beats = [
    { title: "One slow token", words: `A language model writes one token at a time: a word, or part of one. For each token it reads all of its weights once, in a pass${passS ? ` that takes ${milliseconds(passS)} on this clock` : ""}.`, layers: ["slow", "pass"] },
  ];
  if (!k) return [...beats, { title: "No guesses here", words: `In this round the target wrote ${own} without any guesses. Choose a round with draft tokens, or another run.`, layers: ["own"] }];
  beats.push(
    { title: `${k + 1} rows cost as one`, words: `A pass is mostly spent reading weights, so checking ${k + 1} rows takes hardly longer than writing one token. If only somebody could say which tokens to check…`, layers: ["mask"] },
    { title: "The draft guesses", words: `A small draft model, many times faster, guesses the next ${plural(k, "token")}.`, layers: ["guess"] },
    { title: "The target checks", words: "One pass of the target gives p, its own probability for each guess. The draft has already given q, how sure it was.", layers: ["guess", "p-and-q"] },
    { title: "Keep, and repair", words: `${sampled ? "A guess is accepted if its coin, a random number, falls below min(1, p/q)." : "A guess is accepted if it is the target's likeliest token."} ${rejected ? `Accepted: ${step.num_accepted}. Rejected: ${rejected}; what came after it is discarded, and the target wrote ${own} in its place.` : `All ${k} were accepted, and the target added ${own}, its own next token.`} ${plural(step.num_accepted + 1, "token")} from one pass.`, layers: ["guess", "p-and-q", "coin", "verdict", "own"] },
  );
  if (sampled && place?.draft_probs) beats.push({ title: "Why it is exact", words: "Where p and q agree, guesses are accepted. A token that the draft favours too much is rejected just often enough, and the target then draws from what the draft favours too little. Altogether each token comes out with probability p, as if there were no draft.", layers: ["overlap"] });
  else beats.push({ title: "Why it is exact", words: "Each accepted token is the very one that the target would have written, and so is the one that it adds. The text is the target's, token for token, however bad the guesses are; only the time depends on them.", layers: ["guess", "verdict", "own"] });
  if (ahead) {
    beats.push(
      { title: "Prepare while waiting", words: `The draft need not wait for the verdict. While the target checks, the draft prepares for ${plural(step.tree.branches.length, "possible outcome")}, each a number of accepted tokens and the token that follows them.`, layers: ["guess", "prepared", "lanes"] },
      step.branch !== null
        ? { title: "A hit, and when it pays", words: `The outcome, ${step.num_accepted} accepted and then ${own}, was prepared: the next guesses are there at once, and the target starts again without waiting. ${share(run)}`, layers: ["guess", "verdict", "own", "prepared", "lookup", "lanes"] }
        : { title: "A miss, and when it pays", words: `The outcome, ${step.num_accepted} accepted and then ${own}, was not prepared: the target waits while the draft guesses anew. ${share(run)}`, layers: ["guess", "verdict", "own", "prepared", "lanes"] },
    );
  } else beats.push({ title: "Who waits", words: "While the draft guesses, the target waits; while the target checks, the draft waits. Asynchronous speculation lets both work at once.", layers: ["guess", "lanes"] });
  return beats;
}

function share(run) {
  const { hits, lookups } = run.cache;
  return `In this run ${percent(hits / lookups)} of the lookups hit. Preparing pays where target and draft each have hardware of their own.`;
}

function meanPass(run) {
  const passes = clockOf(run).spans.filter(([, kind]) => kind === "verify").map(([, , start, end]) => end - start);
  return passes.length ? passes.reduce((sum, pass) => sum + pass, 0) / passes.length : null;
}
