// Makes "Try it in this page" alive. The views' front end is loaded with the models, on the click.
(() => {
  const here = document.currentScript.src;
  const place = document.querySelector(".try-it");

  const loaded = (element) => new Promise((done, failed) => {
    element.onload = done;
    element.onerror = () => failed(new Error("the views' front end could not be loaded: load the page again"));
    document.head.append(element);
  });

  const front = async () => {
    const sheet = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL("front_end.css", here).href });
    const script = Object.assign(document.createElement("script"), { src: new URL("front_end.js", here).href });
    await Promise.all([loaded(sheet), loaded(script)]);
    return globalThis.ssdLabWidgets;
  };

  globalThis.ssdLabTryIt = globalThis.ssdLabInPage.mount(place, front);
})();
