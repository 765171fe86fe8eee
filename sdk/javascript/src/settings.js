// Settings: declared by the author, checked by the agent, read from the plain TOML that it passes.

/** Types of settings in the manifest. */
export const TYPES = ["text", "integer", "number", "boolean", "texts", "integers"];

/** A value as TOML. */
export function toml(value, type = undefined) {
  if (Array.isArray(value)) return `[${value.map((item) => toml(item)).join(", ")}]`;
  if (typeof value === "string") {
    // As JSON, but for DEL.
    return JSON.stringify(value).replaceAll("\x7f", "\\u007f");
  }
  if (type === "number" && Number.isInteger(value)) return `${value}.0`;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  throw new Error(`${value} cannot be written as a setting`);
}

/** The value of what the agent wrote. */
export function read(text) {
  let at = 0;
  const space = () => {
    while (text[at] === " " || text[at] === "\n" || text[at] === "\t") at += 1;
  };
  const fail = () => {
    throw new Error(`${text} is not the TOML of a setting`);
  };
  const value = () => {
    space();
    if (text[at] === '"') {
      const start = at;
      for (at += 1; text[at] !== '"'; at += text[at] === "\\" ? 2 : 1) if (at >= text.length) fail();
      at += 1;
      const escapes = text.slice(start, at).replace(/\\U([0-9A-Fa-f]{8})/g, (_, code) =>
        JSON.stringify(String.fromCodePoint(parseInt(code, 16))).slice(1, -1));
      return JSON.parse(escapes);
    }
    if (text[at] === "[") {
      const items = [];
      at += 1;
      for (space(); text[at] !== "]"; space()) {
        items.push(value());
        space();
        if (text[at] === ",") at += 1;
        else if (text[at] !== "]") fail();
      }
      at += 1;
      return items;
    }
    const word = /^[^,\]\s]+/.exec(text.slice(at))?.[0] ?? fail();
    at += word.length;
    if (word === "true" || word === "false") return word === "true";
    const number = Number(word.replaceAll("_", "").replace("inf", "Infinity"));
    return Number.isNaN(number) && word !== "nan" ? fail() : number;
  };
  const result = value();
  space();
  return at === text.length ? result : fail();
}
