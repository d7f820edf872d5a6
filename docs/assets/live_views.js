// Draws the views of recorded rounds; their front end is loaded only where there is one. What a kernel would keep in
// step is kept by the page: views that share a link move together.
(() => {
  const here = document.currentScript.src;
  const places = [...document.querySelectorAll(".live-view")];
  if (!places.length) return;

  const modelOf = (state) => ({
    get: (name) => state[name],
    set: (name, value) => { state[name] = value; },
    save_changes: () => {},
    on: () => {},
    off: () => {},
  });

  // On a fresh page nothing has the focus: the arrows are the first view's, as its page says.
  const arrows = (event) => {
    const { key, target, altKey, ctrlKey, metaKey, defaultPrevented } = event;
    if (target !== document.body || altKey || ctrlKey || metaKey || defaultPrevented || !["ArrowLeft", "ArrowRight"].includes(key)) return;
    (places[0].querySelector(".ssd-story") ?? places[0].querySelector(".ssd-lab"))?.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
    event.preventDefault();
  };

  const draw = () => {
    for (const place of places) {
      const state = JSON.parse(place.querySelector("script").textContent);
      place.replaceChildren();
      const el = place.appendChild(document.createElement("div"));
      window.ssdLabWidgets.render({ model: modelOf(state), el });
    }
    document.addEventListener("keydown", arrows);
  };

  const asked = (element) => new Promise((resolve) => {
    element.onload = resolve;
    document.head.append(element);
  });
  const script = document.createElement("script");
  script.src = new URL("front_end.js", here).href;
  const sheet = document.createElement("link");
  sheet.rel = "stylesheet";
  sheet.href = new URL("front_end.css", here).href;
  Promise.all([asked(script), asked(sheet)]).then(draw);
})();
