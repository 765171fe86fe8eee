// From an author's module to a component: `npx tipstaff build`.
//
// The manifest is made here, by importing the module without an agent, and appended to the component
// as a custom section, so that `tipstaff inspect` reads it without running anything.
import fs from "node:fs";
import { createRequire, register } from "node:module";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const SECTION = "tipstaff:manifest";
const WORLD = "tipstaff-javascript";
const HERE = path.dirname(fileURLToPath(import.meta.url));
const WIT = path.join(HERE, "../wit");

// In Node there is no agent, and `tipstaff` is this SDK wherever the policy lies.
const NOWHERE = `
  const nowhere = (name) => () => {
    throw new Error(name + ": there is no agent here; call this in configure() or later, not at the module's top level");
  };`;
const NAMES = ["line", "raise", "describe", "get", "set", "remove", "add"];
const STUBS = NAMES.map((name) => `export const ${name} = nowhere("${name}");`).join("")
  + ["Counter", "Gauge", "Histogram"].map((name) => `export class ${name} { constructor() { nowhere("${name}")(); } }`).join("");
const HOOKS = `
  export async function resolve(name, context, next) {
    if (name.startsWith("tipstaff:policy/")) return { url: "data:text/javascript," + ${JSON.stringify(encodeURIComponent(NOWHERE + STUBS))}, shortCircuit: true };
    if (name === "tipstaff") return { url: ${JSON.stringify(pathToFileURL(path.join(HERE, "index.js")).href)}, shortCircuit: true };
    return next(name, context);
  }`;

/** Builds the policy in a folder with a package.json. Returns the path of the component. */
export async function build(folder) {
  const root = fs.realpathSync(folder);
  const { name, version, main } = project(root);
  const entry = path.join(root, main);
  if (!fs.existsSync(entry)) throw new Error(`${entry} is missing: expected the policy there, or \`main\` in package.json`);
  register("data:text/javascript," + encodeURIComponent(HOOKS));
  const { default: Author } = await import(pathToFileURL(entry).href);
  const { Policy, manifest, worlds } = await import("./policy.js");
  if (typeof Author !== "function" || !(Author.prototype instanceof Policy)) {
    throw new Error(`${entry}: expected \`export default class ... extends Policy\``);
  }
  const text = manifest(Author, name, version);
  const output = path.join(root, "build", `${name}.wasm`);
  fs.mkdirSync(path.dirname(output), { recursive: true });
  const work = fs.mkdtempSync(path.join(path.dirname(output), ".tipstaff-"));
  try {
    const made = await componentize(work, root, entry, worlds(Author), text);
    const file = path.join(work, "component.wasm");
    fs.writeFileSync(file, Buffer.concat([made, section(SECTION, text)]));
    fs.renameSync(file, output);
  } finally {
    fs.rmSync(work, { recursive: true });
  }
  return output;
}

function project(root) {
  const file = path.join(root, "package.json");
  if (!fs.existsSync(file)) throw new Error(`${file} is missing: expected name and version of the policy in it`);
  const { name, version, main = "policy.js" } = JSON.parse(fs.readFileSync(file, "utf8"));
  for (const [key, value] of Object.entries({ name, version })) {
    if (typeof value !== "string") throw new Error(`${file}: \`${key}\` is missing`);
  }
  return { name, version, main };
}

async function componentize(work, root, entry, worlds, text) {
  // The contract with a world of exactly what this policy exports.
  const wit = path.join(work, "wit");
  fs.mkdirSync(wit);
  for (const name of fs.readdirSync(WIT)) fs.copyFileSync(path.join(WIT, name), path.join(wit, name));
  const includes = worlds.map((world) => `include ${world};`).join(" ");
  fs.appendFileSync(path.join(wit, "worlds.wit"), `world ${WORLD} { ${includes} }\n`);
  // The engine finds modules below one folder only, and by relative paths: the SDK is copied beside
  // the author's modules, and `tipstaff` becomes a path.
  const modules = path.join(work, "modules");
  copy(HERE, path.join(modules, "tipstaff"), modules);
  copy(root, path.join(modules, "author"), modules);
  const exported = { author: "policy", "author-ticks": "ticks", "author-hand-over": "handOver" };
  const names = worlds.map((world) => exported[world]).join(", ");
  const app = `
    import Author from "./author/${path.relative(root, entry)}";
    import { component } from "./tipstaff/policy.js";
    export const { ${names} } = component(Author, ${JSON.stringify(text)});`;
  const jsPath = path.join(modules, "app.js");
  fs.writeFileSync(jsPath, app);
  const { componentize } = load(root);
  const options = { witPath: wit, world: WORLD, jsSource: app, jsPath, moduleRoot: modules };
  return (await componentize({ ...options, sync: true, stubWasi: true })).component;
}

/** Copies JavaScript files, but for what was installed or built. */
function copy(from, to, modules) {
  fs.mkdirSync(to, { recursive: true });
  for (const entry of fs.readdirSync(from, { withFileTypes: true })) {
    const [source, target] = [path.join(from, entry.name), path.join(to, entry.name)];
    if (entry.isDirectory() && !["node_modules", "build"].includes(entry.name) && !entry.name.startsWith(".")) {
      copy(source, target, modules);
    } else if (entry.isFile() && entry.name.endsWith(".js")) {
      const sdk = path.relative(path.dirname(target), path.join(modules, "tipstaff/index.js"));
      const text = fs.readFileSync(source, "utf8");
      fs.writeFileSync(target, text.replace(/(from\s*)(["'])tipstaff\2/g, `$1"${sdk.startsWith(".") ? sdk : `./${sdk}`}"`));
    }
  }
}

/** The tool chain, as it is installed for the policy or for the SDK. */
function load(root) {
  for (const from of [root, HERE]) {
    try {
      return createRequire(path.join(from, "x.js"))("componentize-qjs");
    } catch (error) {
      if (error.code !== "MODULE_NOT_FOUND") throw error;
    }
  }
  throw new Error(`componentize-qjs is not installed: cd ${root} && npm install`);
}

/** A custom section of WebAssembly. */
function section(name, text) {
  const payload = Buffer.concat([leb128(Buffer.byteLength(name)), Buffer.from(name), Buffer.from(text)]);
  return Buffer.concat([Buffer.from([0]), leb128(payload.length), payload]);
}

function leb128(number) {
  const bytes = [];
  for (; number >= 128; number >>>= 7) bytes.push((number & 127) | 128);
  return Buffer.from([...bytes, number]);
}
