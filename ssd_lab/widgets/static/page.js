// What a page without a kernel calls.

import { followAddress, selectionOf } from "./address.js";
import { explorerSpeeds } from "./closed_form.js";
import { mount as mountViews } from "./main.js";
import { expectUnder, geometric, rescore } from "./rescore.js";
import { mountSpeed as mountExplorer } from "./speed.js";

// A page of its own has an address for each of its places.
export function mount(root, options) {
  const view = mountViews(root, { ...options, selection: selectionOf(location.hash) });
  followAddress(view);
  return view;
}


export const mountSpeed = mountExplorer;
export const formulas = { explorerSpeeds, expectUnder, geometric, rescore };
