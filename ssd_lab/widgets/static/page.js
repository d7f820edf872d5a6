// What a page without a kernel calls.

import { explorerSpeeds } from "./closed_form.js";
import { mount as mountViews } from "./main.js";
import { expectUnder, geometric, rescore } from "./rescore.js";
import { mountSpeed as mountExplorer } from "./speed.js";

export const mount = mountViews;
export const mountSpeed = mountExplorer;
export const formulas = { explorerSpeeds, expectUnder, geometric, rescore };
