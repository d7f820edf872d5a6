// What the form asks for, with defaults in place of what is left empty; wrong numbers are told in words.

const TEXT = {
  max_tokens: { minimum: 1, maximum: 1024, whole: true, usual: 96 },
  temperature: { minimum: 0, maximum: 10, usual: 0 },
  seed: { minimum: -(2 ** 53), maximum: 2 ** 53, whole: true, usual: 0 },
};

// strategies: JSON schemas by name. Answers an order for PageEngine.run.
export function checked(message, strategies) {
  if (!message.prompt?.trim()) throw new Error("the prompt is empty: write something that the model is to answer");
  const { properties } = strategies[message.strategy];
  const fields = { k: 0, f: 1, saguaro_c: 1 };
  for (const [name, { minimum, maximum, type, default: usual }] of Object.entries(properties)) {
    fields[name] = within(name, message.fields?.[name], { minimum, maximum, whole: type === "integer", usual });
  }
  const numbers = Object.entries(TEXT).map(([name, limits]) => [name, within(name, message[name], limits)]);
  return { strategy: message.strategy, prompt: message.prompt, fields, ...Object.fromEntries(numbers) };
}

function within(name, given, { minimum, maximum, whole = false, usual }) {
  const value = given ?? usual;
  if (typeof value !== "number" || !(value >= minimum && value <= maximum) || (whole && !Number.isInteger(value))) {
    throw new Error(`${name} is ${value}: it must be ${whole ? "a whole number" : "a number"} from ${minimum} to ${maximum}`);
  }
  return value;
}
