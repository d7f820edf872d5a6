// Controls from a strategy's JSON schema: a strategy of a user's own gets them without a line of code.

import { h } from "./dom.js";

// Returns the controls and a function that reads them: only what differs from the default is sent.
export function schemaForm(schema) {
  const fields = Object.entries(schema.properties ?? {}).map(([name, field]) => control(name, field, schema));
  return {
    element: h("div", { class: "ssd-form" }, fields.map((field) => field.element)),
    values() {
      const entries = fields.map((field) => [field.name, field.read()]).filter(([, value]) => value !== undefined);
      return Object.fromEntries(entries);
    },
  };
}

function control(name, field, schema) {
  const kind = simplest(field, schema);
  const described = field.description ?? kind.description ?? "";
  const label = (input) => h("label", { title: described }, h("span", {}, name), input, described ? h("small", {}, described) : null);
  if (kind.enum || kind.const !== undefined) {
    const values = kind.enum ?? [kind.const];
    const select = h("select", { name, "aria-label": name }, values.map((value) => h("option", { value: String(value) }, String(value))));
    select.value = String(field.default ?? values[0]);
    return { name, element: label(select), read: () => changed(values.find((value) => String(value) === select.value), field.default) };
  }
  if (kind.type === "boolean") {
    const box = h("input", { type: "checkbox", name, "aria-label": name, checked: field.default === true });
    return { name, element: label(box), read: () => changed(box.checked, field.default) };
  }
  if (kind.type === "integer" || kind.type === "number") {
    const box = h("input", {
      type: "number", name, "aria-label": name, min: kind.minimum ?? kind.exclusiveMinimum, max: kind.maximum ?? kind.exclusiveMaximum,
      step: kind.type === "integer" ? 1 : "any", placeholder: field.default === null ? "default" : "", value: field.default ?? "",
    });
    return { name, element: label(box), read: () => changed(box.value === "" ? undefined : Number(box.value), field.default) };
  }
  // text, or anything nested: written as JSON
  const box = h("input", { type: "text", name, "aria-label": name, placeholder: kind.type === "string" ? "" : "JSON", value: plain(field.default) });
  return { name, element: label(box), read: () => changed(parsed(box.value, kind.type === "string"), field.default) };
}

// The first alternative of a field that can also be absent, with references followed.
function simplest(field, schema) {
  if (field.$ref) return simplest(schema.$defs?.[field.$ref.split("/").at(-1)] ?? {}, schema);
  const options = field.anyOf ?? field.oneOf ?? field.allOf;
  if (!options) return field;
  const real = options.filter((option) => option.type !== "null");
  return real.length === 1 ? simplest(real[0], schema) : {};
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
