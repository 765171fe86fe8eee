//! `tipstaff:policy/metrics`: handles to series in the registry, whose rules decide what is allowed.
//! A refusal is an error of the call, which ends the instance.

use wasmtime::component::Resource;

use super::State;
use crate::{
    outcome::{Counter, Describe, Gauge, Histogram},
    policy::bindings::tipstaff::policy::metrics,
};

impl State {
    /// Counts a series that there was no room for.
    fn note_overflow(&self, overflows: bool) {
        if overflows {
            self.outcome.series_limited.inc();
        }
    }
}

impl metrics::Host for State {
    fn describe(&mut self, name: String, text: String, unit: String) -> wasmtime::Result<()> {
        Ok(self.outcome.metrics.describe(Describe { name: &name, unit: &unit, help: &text })?)
    }
}

impl metrics::HostCounter for State {
    fn new(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
    ) -> wasmtime::Result<Resource<Counter>> {
        let counter = self.outcome.metrics.counter(name.as_str(), &labels)?;
        self.note_overflow(counter.overflows());
        Ok(self.handles.push(counter)?)
    }

    fn add(&mut self, counter: Resource<Counter>, n: u64) -> wasmtime::Result<()> {
        self.handles.get(&counter)?.add(n);
        Ok(())
    }

    fn drop(&mut self, counter: Resource<Counter>) -> wasmtime::Result<()> {
        self.handles.delete(counter)?;
        Ok(())
    }
}

impl metrics::HostGauge for State {
    fn new(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
    ) -> wasmtime::Result<Resource<Gauge>> {
        let gauge = self.outcome.metrics.gauge(name.as_str(), &labels)?;
        self.note_overflow(gauge.overflows());
        Ok(self.handles.push(gauge)?)
    }

    fn set(&mut self, gauge: Resource<Gauge>, value: f64) -> wasmtime::Result<()> {
        self.handles.get(&gauge)?.set(value);
        Ok(())
    }

    fn add(&mut self, gauge: Resource<Gauge>, delta: f64) -> wasmtime::Result<()> {
        self.handles.get(&gauge)?.add(delta);
        Ok(())
    }

    fn drop(&mut self, gauge: Resource<Gauge>) -> wasmtime::Result<()> {
        self.handles.delete(gauge)?;
        Ok(())
    }
}

impl metrics::HostHistogram for State {
    fn new(
        &mut self,
        name: String,
        labels: Vec<(String, String)>,
        upper_bounds: Vec<f64>,
    ) -> wasmtime::Result<Resource<Histogram>> {
        let histogram = self.outcome.metrics.histogram(name.as_str(), &labels, &upper_bounds)?;
        self.note_overflow(histogram.overflows());
        Ok(self.handles.push(histogram)?)
    }

    fn observe(&mut self, histogram: Resource<Histogram>, value: f64) -> wasmtime::Result<()> {
        self.handles.get(&histogram)?.observe(value);
        Ok(())
    }

    fn drop(&mut self, histogram: Resource<Histogram>) -> wasmtime::Result<()> {
        self.handles.delete(histogram)?;
        Ok(())
    }
}
