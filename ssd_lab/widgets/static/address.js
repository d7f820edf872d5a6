// Links to a place: rounds.html#run=2&round=5&token=3 opens there. Runs, rounds and tokens count from 1, as on the screen;
// `request` is the number that the view shows, token=own is the target's own token of the round.

export function selectionOf(hash) {
  const named = new URLSearchParams(hash.replace(/^#/, ""));
  const number = (name) => (/^\d+$/.test(named.get(name) ?? "") ? Number(named.get(name)) : null);
  const found = {};
  if (number("run") !== null) found.run = number("run") - 1;
  if (number("request") !== null) found.request = number("request");
  if (number("round") !== null) found.step = number("round") - 1;
  if (Object.keys(found).length) found.place = null; // what the views open on belongs to another round
  if (number("token") !== null) found.place = `draft:${number("token") - 1}`;
  if (named.get("token") === "own") found.place = "recovery";
  return found;
}

export function hashOf({ run, request, step, place }) {
  const [kind, at] = (place ?? "").split(":");
  const token = kind === "draft" ? `&token=${Number(at) + 1}` : kind === "recovery" ? "&token=own" : "";
  return `#run=${run + 1}&request=${request}&round=${step + 1}${token}`;
}

// Keeps a view and the page's address in step; returns what ends that.
export function followAddress(view) {
  const go = () => view.select({ place: null, ...selectionOf(location.hash) });
  addEventListener("hashchange", go);
  const off = view.app.on((reason) => {
    if (reason === "selection") history.replaceState(null, "", hashOf(view.app.selected));
  });
  return () => {
    removeEventListener("hashchange", go);
    off();
  };
}
