// Puts a part of a run that goes on (view_model/live.py) where it belongs in what is known of the run.

// False: rounds between them are missing, as where a view was opened in mid-run; then the end of the run brings all.
export function extend(run, part) {
  const known = run.first_round + run.clocks[0].rounds.length;
  if (part.name !== run.name || part.from_round > known) return false;
  for (const fresh of part.requests) {
    const own = run.requests.find((request) => request.id === fresh.id);
    if (!own) {
      run.requests.push(fresh);
      continue;
    }
    const { from_step: from, steps, tokens, ...rest } = fresh;
    const at = own.tokens.findIndex(([, step]) => step >= from);
    own.tokens.splice(at < 0 ? own.tokens.length : at, Infinity, ...tokens);
    own.steps.splice(from, Infinity, ...steps);
    Object.assign(own, rest);
  }
  Object.assign(run.texts, part.texts);
  const [clock, { rounds, spans }] = [run.clocks[0], part.clocks[0]];
  clock.rounds.splice(part.from_round - run.first_round, Infinity, ...rounds);
  const isPrompt = ([, , , , round]) => round < 0;
  clock.spans = [...spans.filter(isPrompt), ...clock.spans.filter((span) => !isPrompt(span) && span[4] < part.from_round), ...spans.filter((span) => !isPrompt(span))];
  for (const name of ["presets", "acceptance", "cache"]) run[name] = part[name];
  return true;
}
