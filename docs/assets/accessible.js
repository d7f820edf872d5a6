// What the theme leaves open for readers without a mouse or a screen: names, and boxes that scroll.
(() => {
  document.querySelector(".md-search[role=dialog]")?.setAttribute("aria-label", "Search");

  // The corner of a table, or a column without a name, is no heading.
  for (const head of document.querySelectorAll(".md-typeset th")) {
    if (!head.textContent.trim()) head.replaceWith(document.createElement("td"));
  }

  // Landmarks of the same kind are told apart by their names.
  const named = (element, name) => {
    element.removeAttribute("aria-labelledby");
    element.setAttribute("aria-label", name);
  };
  for (const nav of document.querySelectorAll('.md-nav[data-md-level="1"]')) {
    named(nav, `Pages of ${nav.querySelector(".md-nav__title")?.textContent.trim() ?? "this part"}`);
  }
  const nameCopiers = () => document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((nav) => named(nav, `Copy ${nav.parentElement.id || "this block"}`));

  // What scrolls sideways can be scrolled by keys.
  const reach = () => {
    for (const box of document.querySelectorAll(".md-typeset__scrollwrap, .jp-InputArea pre, .jp-OutputArea-output, .formula")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };

  // The theme makes buttons and boxes later.
  let due = false;
  const settle = () => {
    if (due) return;
    due = true;
    requestAnimationFrame(() => {
      due = false;
      nameCopiers();
      reach();
    });
  };
  settle();
  new MutationObserver(settle).observe(document.body, { childList: true, subtree: true });
  addEventListener("load", settle);
  addEventListener("resize", settle);
})();
