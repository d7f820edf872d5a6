// Moving along a line of time: by dragging, by the wheel, by keys.

const STILL_PX = 4; // less than this is a click
const WHEEL_LINE_PX = 16;

// move(share) of what is in sight, to the right; zoom(steps, at) in or out around the place `at` (0 left, 1 right);
// toEnd(-1 or 1); follow() goes back to what is selected. `left` pixels of the element show no time.
export function panning(element, left, { move, zoom, toEnd, follow }) {
  let from = null;
  const width = () => Math.max(1, element.clientWidth - left);

  element.tabIndex = 0;
  element.addEventListener("pointerdown", (event) => {
    if (event.button === 0) from = { x: event.clientX, moved: false };
  });
  element.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const by = event.clientX - from.x;
    if (!from.moved && Math.abs(by) < STILL_PX) return;
    if (!from.moved) element.setPointerCapture(event.pointerId); // else a drag that leaves the lanes would stick
    from = { x: event.clientX, moved: true };
    move(-by / width());
  });
  for (const end of ["pointerup", "pointercancel"]) {
    element.addEventListener(end, () => {
      if (from?.moved) element.addEventListener("click", swallow, { capture: true, once: true });
      setTimeout(() => element.removeEventListener("click", swallow, { capture: true }));
      from = null;
    });
  }
  element.addEventListener("wheel", (event) => {
    const unit = event.deltaMode === 1 ? WHEEL_LINE_PX : 1;
    const sideways = event.shiftKey ? event.deltaY || event.deltaX : event.deltaX;
    if (event.ctrlKey) zoom(-Math.sign(event.deltaY), (event.clientX - element.getBoundingClientRect().left - left) / width());
    else if (Math.abs(sideways) > 0 && (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY))) move((sideways * unit) / width());
    else return; // up and down scroll the page
    event.preventDefault();
  }, { passive: false });
  element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    const act = {
      ArrowLeft: () => move(-0.25), ArrowRight: () => move(0.25), Home: () => toEnd(-1), End: () => toEnd(1),
      "+": () => zoom(1, 0.5), "=": () => zoom(1, 0.5), "-": () => zoom(-1, 0.5), Escape: follow,
    }[event.key];
    if (!act) return;
    event.preventDefault();
    event.stopPropagation(); // the arrows step through the rounds elsewhere
    act();
  });
}

function swallow(event) {
  event.stopPropagation();
  event.preventDefault();
}
