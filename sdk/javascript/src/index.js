// Write Tipstaff policies in JavaScript.
//
//     import { Counters, Policy } from "tipstaff";
//
//     export default class Shells extends Policy {
//       static events = {
//         exec: { fields: { path: "text", uid: "u32" }, on: "count" },
//       };
//       configure() {
//         this.shells = new Counters("shells_total", ["uid"]);
//       }
//       count(exec) {
//         if (exec.path.endsWith("sh")) this.shells.add([exec.uid]);
//       }
//     }
//
// `npx tipstaff build` makes a component of it. The module's top level runs then, not in the agent:
// call nothing of the agent there.

export * as log from "./log.js";
export * as state from "./state.js";
export { alert } from "./alert.js";
export { Counter, Counters, Gauge, Histogram, describe } from "./metrics.js";
export { Policy, Refused } from "./policy.js";
export { Window } from "./window.js";
