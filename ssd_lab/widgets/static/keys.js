// Keys that are pressed in a view stay in it. JupyterLab and the site have commands of one key (x cuts the cell, s opens
// the search), and they listen further out: what would reach them from a slider or a token would be lost work.

export function keepKeys(root, own = () => {}) {
  const keep = (event) => {
    own(event);
    if (!isForTheWholePage(event)) event.stopPropagation();
  };
  root.addEventListener("keydown", keep);
  return () => root.removeEventListener("keydown", keep);
}

// Saving and the list of commands mean the whole notebook wherever the focus is.
function isForTheWholePage(event) {
  return (event.ctrlKey || event.metaKey) && ["s", "S", "C"].includes(event.key);
}
