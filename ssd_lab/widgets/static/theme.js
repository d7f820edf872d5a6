// Light or dark: what the page around says (JupyterLab, the documentation), else what the system prefers.

export function followTheme(root) {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const { jpThemeLight, mdColorScheme } = document.body.dataset;
    let dark = system.matches;
    if (jpThemeLight !== undefined) dark = jpThemeLight === "false";
    else if (mdColorScheme !== undefined) dark = mdColorScheme === "slate";
    root.dataset.theme = dark ? "dark" : "light";
  };
  apply();
  system.addEventListener("change", apply);
  const observer = new MutationObserver(apply);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-md-color-scheme"] });
  return () => {
    observer.disconnect();
    system.removeEventListener("change", apply);
  };
}
