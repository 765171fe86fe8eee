//! The engine and its clock: while a call runs, the epoch is raised every millisecond, so that a
//! guest cannot run on for ever.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use wasmtime::{Config, Engine, OptLevel};

/// Time between two epochs: how late a deadline may be noticed.
const EPOCH: Duration = Duration::from_millis(1);

/// A Wasmtime engine whose epoch goes on while calls run. Cheap to clone.
#[derive(Clone)]
pub struct Clocked {
    engine: Engine,
    clock: Arc<Clock>,
}

struct Clock {
    /// Calls that run now.
    calls: AtomicU32,
    /// The thread waits for a call.
    asleep: AtomicBool,
    thread: thread::Thread,
}

impl Clocked {
    /// An engine.
    ///
    /// The agent and its compiler child must use the same configuration, or the agent cannot use what
    /// the child makes: hence one place for both.
    pub fn new() -> wasmtime::Result<Self> {
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::Speed)
            .epoch_interruption(true)
            // Only debuggers of the agent want it; to register it reads all of it into memory.
            .native_unwind_info(false)
            .wasm_memory64(false);
        let engine = Engine::new(&config)?;
        let (hand_over, taken) = std::sync::mpsc::channel::<Weak<Clock>>();
        let thread = thread::Builder::new().name("epoch".to_owned()).spawn({
            let engine = engine.weak();
            move || {
                let Ok(clock) = taken.recv() else { return };
                loop {
                    let Some(running) = clock.upgrade() else { return };
                    let wait = running.calls.load(Ordering::SeqCst) == 0;
                    running.asleep.store(wait, Ordering::SeqCst);
                    // A call that began before the store did not see it, so look again after it.
                    let wait = wait && running.calls.load(Ordering::SeqCst) == 0;
                    drop(running);
                    if wait {
                        thread::park();
                    } else {
                        thread::sleep(EPOCH);
                        let Some(engine) = engine.upgrade() else { return };
                        engine.increment_epoch();
                    }
                }
            }
        })?;
        let clock = Arc::new(Clock {
            calls: AtomicU32::new(0),
            asleep: AtomicBool::new(false),
            thread: thread.thread().clone(),
        });
        let _ = hand_over.send(Arc::downgrade(&clock));
        Ok(Self { engine, clock })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Keeps the clock going until the result is dropped. To be held during every call of a guest.
    pub fn ticking(&self) -> Ticking<'_> {
        self.clock.calls.fetch_add(1, Ordering::SeqCst);
        if self.clock.asleep.swap(false, Ordering::SeqCst) {
            self.clock.thread.unpark();
        }
        Ticking(&self.clock)
    }
}

/// See [`Clocked::ticking`].
pub struct Ticking<'a>(&'a Clock);

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}
