// Metrics under the rules of Prometheus.
//
// A metric belongs to the policy and goes on counting when its instance is replaced. Names, label
// names and types must be the same wherever a metric is made: the agent ends an instance that breaks
// this.
import * as metrics from "tipstaff:policy/metrics@0.1.0";
import { texts } from "./text.js";

// Series that are kept at hand before all are let go. The agent keeps counting them.
const KEPT = 1024;

// Counters that something was added to since the last flush.
let touched = [];

/** Says what a metric means: a text for a reader, and its unit in Prometheus' words. */
export function describe(name, text, unit = "") {
  metrics.describe(name, text, unit);
}

/** Tells the agent what was added to counters. The calls of the agent end with it. */
export function flush() {
  if (touched.length === 0) return;
  for (const counter of touched) {
    counter.handle.add(counter.added);
    counter.added = 0;
  }
  touched = [];
}

/**
 * A number that only grows. Its name ends in `_total`.
 *
 * What is added reaches the agent when the call ends. What was added in a call that fails is lost
 * with the instance, as are the events that the agent then reports as lost.
 */
export class Counter {
  constructor(name, labels = {}) {
    this.handle = new metrics.Counter(name, texts(labels));
    this.added = 0;
  }

  /** Adds `n`, below 2^53. */
  add(n = 1) {
    if (this.added === 0) touched.push(this);
    this.added += n;
  }
}

/**
 * A counter with labels whose values are only known when an event comes.
 *
 *     new Counters("exec_total", ["exe", "uid"]).add(["/bin/true", 0])
 */
export class Counters {
  constructor(name, labels) {
    this.name = name;
    this.labels = labels;
    this.forget();
  }

  /** Adds `n` to the series with these values of the labels. */
  add(values, n = 1) {
    // A plain object: the engine's Map is much slower.
    const key = values.length === 1 ? "=" + values[0] : JSON.stringify(values.map(String));
    let counter = this.kept[key];
    if (counter === undefined) {
      if (values.length !== this.labels.length) {
        throw new Error(`${this.name} has ${this.labels.length} labels, given ${values.length} values`);
      }
      if (this.count >= KEPT) this.forget();
      const labels = {};
      this.labels.forEach((label, index) => (labels[label] = values[index]));
      counter = this.kept[key] = new Counter(this.name, labels);
      this.count += 1;
    }
    counter.add(n);
  }

  forget() {
    this.kept = Object.create(null);
    this.count = 0;
  }
}

/** A number that goes up and down. */
export class Gauge {
  constructor(name, labels = {}) {
    this.handle = new metrics.Gauge(name, texts(labels));
  }

  /** Sets the value. */
  set(value) {
    this.handle.set(value);
  }

  /** Adds `delta`, which may be negative. */
  add(delta) {
    this.handle.add(delta);
  }
}

/** How values are distributed. `upperBounds` ascend. */
export class Histogram {
  constructor(name, upperBounds, labels = {}) {
    this.handle = new metrics.Histogram(name, texts(labels), upperBounds);
  }

  /** Counts `value`. */
  observe(value) {
    this.handle.observe(value);
  }
}
