// Controls from a strategy's JSON schema: a strategy of a user's own gets them without a line of code.

import { h, replace } from "./dom.js";

// `first`: names of the fields that stand outside "more settings". Returns the controls and a function that reads them:
// only what differs from the default is sent. `given`: values to begin with, where the schema has such fields.
export function schemaForm(schema, { first = null, given = {} } = {}) {
  const fields = Object.entries(schema.properties ?? {}).filter(([name]) => name !== "kind").map(([name, field]) => control(name, field, schema, given[name]));
  const [shown, more] = [fields.filter(({ name }) => first === null || first.includes(name)), fields.filter(({ name }) => first !== null && !first.includes(name))];
  const grid = (some) => h("div", { class: "ssd-form" }, some.map((field) => field.element));
  return {
    element: h("div", {}, grid(shown), more.length ? h("details", { class: "ssd-more-settings" }, h("summary", {}, "More settings"), grid(more)) : null),
    values() {
      const entries = fields.map((field) => [field.name, field.read()]).filter(([, value]) => value !== undefined);
      return Object.fromEntries(entries);
    },
  };
}

function control(name, field, schema, given) {
  const kind = simplest(field, schema);
  const described = field.description ?? kind.description ?? "";
  const label = (input) => h("label", { title: described }, h("span", {}, name), input, described ? h("small", {}, described) : null);
  if (kind.enum || kind.const !== undefined) {
    const values = kind.enum ?? [kind.const];
    const select = h("select", { name, "aria-label": name }, values.map((value) => h("option", { value: String(value) }, String(value))));
    select.value = String(given ?? field.default ?? values[0]);
    return { name, element: label(select), read: () => changed(values.find((value) => String(value) === select.value), field.default) };
  }
  if (kind.type === "boolean") {
    const box = h("input", { type: "checkbox", name, "aria-label": name, checked: (given ?? field.default) === true });
    return { name, element: label(box), read: () => changed(box.checked, field.default) };
  }
  if (kind.type === "integer" || kind.type === "number") {
    const box = h("input", {
      type: "number", name, "aria-label": name, min: kind.minimum ?? kind.exclusiveMinimum, max: kind.maximum ?? kind.exclusiveMaximum,
      step: kind.type === "integer" ? 1 : "any", placeholder: field.default === null ? "default" : "", value: given ?? field.default ?? "",
    });
    return { name, element: label(box), read: () => changed(box.value === "" ? undefined : Number(box.value), field.default) };
  }
  if (kind.kinds) return oneOfSeveral(name, field, kind.kinds, schema, described);
  // text, or anything nested: written as JSON
  const box = h("input", { type: "text", name, "aria-label": name, placeholder: kind.type === "string" ? "" : "JSON", value: plain(field.default) });
  return { name, element: label(box), read: () => changed(parsed(box.value, kind.type === "string"), field.default) };
}

// A field that is of one of several kinds, each with fields of its own: which kind, and then its fields.
function oneOfSeveral(name, field, kinds, schema, described) {
  let inner = null;
  const holder = h("div", { class: "ssd-nested" });
  const select = h("select", { name, "aria-label": name, onchange: () => choose() },
    h("option", { value: "" }, "default"), Object.keys(kinds).map((kind) => h("option", { value: kind }, kind)));
  function choose() {
    inner = select.value ? schemaForm({ ...kinds[select.value], $defs: schema.$defs }) : null;
    replace(holder, inner?.element ?? null);
  }
  return {
    name,
    element: h("div", { class: "ssd-field" }, h("label", { title: described }, h("span", {}, name), select, described ? h("small", {}, described) : null), holder),
    read: () => (select.value ? { kind: select.value, ...inner.values() } : undefined),
  };
}

// The first alternative of a field that can also be absent, with references followed; `kinds` where there are several that
// are told apart by their constant `kind`.
function simplest(field, schema) {
  if (field.$ref) return simplest(referred(field, schema), schema);
  const options = field.anyOf ?? field.oneOf ?? field.allOf;
  if (!options) return field;
  const real = options.filter((option) => option.type !== "null");
  if (real.length === 1) return simplest(real[0], schema);
  const named = real.map((option) => referred(option, schema)).map((option) => [option.properties?.kind?.const, option]);
  return named.every(([kind]) => kind !== undefined) ? { kinds: Object.fromEntries(named) } : {};
}

function referred(option, schema) {
  return option.$ref ? schema.$defs?.[option.$ref.split("/").at(-1)] ?? {} : option;
}

function changed(value, usual) {
  return JSON.stringify(value) === JSON.stringify(usual ?? undefined) ? undefined : value;
}

function plain(value) {
  return value === null || value === undefined ? "" : typeof value === "string" ? value : JSON.stringify(value);
}

function parsed(text, isText) {
  if (text.trim() === "") return undefined;
  if (isText) return text;
  try {
    return JSON.parse(text);
  } catch {
    return text; // the strategy's own check says what is wrong with it
  }
}
