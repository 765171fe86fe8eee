// Alerts: what a human should hear of.
import { raise } from "tipstaff:policy/alerts@0.1.0";
import { texts } from "./text.js";

const SEVERITIES = ["info", "warning", "critical"];

/**
 * Raises an alert; `severity` is "info" (worth knowing), "warning" (someone should look) or
 * "critical" (someone should look now). `labels` tell alerts with the same message apart.
 */
export function alert(severity, message, labels = {}) {
  const number = SEVERITIES.indexOf(severity);
  if (number < 0) throw new Error(`severity ${severity}: expected one of ${SEVERITIES.join(", ")}`);
  raise(number, message, texts(labels));
}
