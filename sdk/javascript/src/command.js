#!/usr/bin/env node
// npx tipstaff build [FOLDER]
import { build } from "./build.js";

const [command, folder = ".", ...rest] = process.argv.slice(2);
if (command !== "build" || rest.length > 0) {
  console.error("usage: npx tipstaff build [FOLDER]    makes FOLDER/build/NAME.wasm of FOLDER/policy.js");
  process.exit(2);
}
try {
  console.log(await build(folder));
} catch (error) {
  console.error(`tipstaff: ${error.message ?? error}`);
  process.exit(1);
}
