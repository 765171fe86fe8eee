// Lines for the agent's log.
import { line } from "tipstaff:policy/log@0.1.0";

/** Something is wrong. */
export const error = (text) => line(0, String(text));
/** Something may be wrong. */
export const warning = (text) => line(1, String(text));
/** Something that an operator may want to know. */
export const info = (text) => line(2, String(text));
/** Something that helps to find a fault in the policy. */
export const debug = (text) => line(3, String(text));
