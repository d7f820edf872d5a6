// Draws the tutorials' plots in the colours of the page; plotly's script is loaded only where there is a plot.
(() => {
  const here = document.currentScript.src;
  const plots = [...document.querySelectorAll(".plot")];
  if (!plots.length) return;

  const figures = plots.map((plot) => JSON.parse(plot.querySelector("script").textContent));

  const coloured = (layout) => {
    const style = getComputedStyle(document.body);
    const ink = style.getPropertyValue("--md-default-fg-color").trim() || "#222";
    const grid = style.getPropertyValue("--md-default-fg-color--lightest").trim() || "#ddd";
    const drawn = structuredClone(layout);
    Object.assign(drawn, { paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", autosize: true });
    delete drawn.width;
    delete drawn.title; // stands above the plot, where it can wrap
    drawn.margin = { ...drawn.margin, t: 10 };
    drawn.font = { ...drawn.font, color: ink };
    for (const name of Object.keys(drawn).filter((key) => /^[xy]axis/.test(key))) {
      drawn[name] = { ...drawn[name], gridcolor: grid, zerolinecolor: grid, linecolor: grid, automargin: true };
    }
    return drawn;
  };

  const draw = () =>
    plots.forEach((plot, index) =>
      window.Plotly.react(plot, figures[index].data, coloured(figures[index].layout), {
        responsive: true,
        displaylogo: false,
        displayModeBar: false,
      }),
    );

  const script = document.createElement("script");
  script.src = new URL("plotly.min.js", here).href;
  script.onload = () => {
    draw();
    new MutationObserver(draw).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
  };
  document.head.append(script);
})();
