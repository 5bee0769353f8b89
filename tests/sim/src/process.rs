//! A process of the run: it dies or stands still at a step that was chosen before.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::scenario::Fault;
use crate::world::{World, lock};

/// Everything that one process does outside of itself goes through this.
pub struct Process {
    /// The world it lives in.
    pub world: Arc<World>,
    /// Its name in the trace.
    pub name: String,
    /// Its clock is wrong by so many milliseconds.
    pub skew_ms: i64,
    state: Mutex<State>,
    killed: CancellationToken,
}

struct State {
    steps: u64,
    dies_at: Option<u64>,
    stalls_at: Option<u64>,
    stalled_until: Option<Instant>,
}

impl Process {
    /// A process; `mortal` says that it may crash or stall.
    #[must_use]
    pub fn new(world: &Arc<World>, name: String, mortal: bool) -> Arc<Self> {
        let dice = &world.dice;
        let at = |question, scale| {
            let scale = dice.pick(scale, &[12, 60, 300, 900]);
            dice.between(question, 1, scale)
        };
        let can = |fault| mortal && world.scenario.rate(fault) > 0;
        let dies_at =
            (can(Fault::Crash) && dice.chance("mortal", 800)).then(|| at("dies at", "dies about"));
        let stalls_at = (can(Fault::Stall) && dice.chance("stalls", 400))
            .then(|| at("stalls at", "stalls about"));
        let skewed = mortal && world.scenario.rate(Fault::Skew) > 0;
        let skew_ms = match skewed {
            true => dice.between("skew", 0, 240_000) as i64 - 120_000,
            false => 0,
        };
        world.note(format!("{name} starts, clock {skew_ms:+}"));
        let process = Arc::new(Self {
            world: world.clone(),
            name,
            skew_ms,
            state: Mutex::new(State {
                steps: 0,
                dies_at,
                stalls_at,
                stalled_until: None,
            }),
            killed: CancellationToken::new(),
        });
        lock(&world.processes).push(Arc::downgrade(&process));
        process
    }

    /// Resolves when the process is dead.
    pub async fn killed(&self) {
        self.killed.cancelled().await;
    }

    /// Kills it: it does nothing more.
    pub fn kill(&self) {
        if !self.killed.is_cancelled() {
            self.world.note(format!("{} dies", self.name));
            self.killed.cancel();
        }
    }

    /// It stands still for so long at its next step.
    pub fn pause(&self, time: Duration) {
        self.world.note(format!("{} pauses", self.name));
        lock(&self.state).stalled_until = Some(Instant::now() + time);
    }

    /// True once it was killed.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        self.killed.is_cancelled()
    }

    /// The time that it sees, milliseconds since the Unix epoch.
    #[must_use]
    pub fn clock_ms(&self) -> i64 {
        self.world.now_ms() + self.skew_ms
    }

    /// True when a fault is to happen to it on this occasion.
    pub fn fault(&self, fault: Fault) -> bool {
        self.world.fault(fault, &self.name)
    }

    /// The way to something outside, or back: takes time, and the process may not survive it.
    pub async fn step(&self) {
        self.world.count_step();
        let latency = self.world.latency();
        if latency.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(latency).await;
        }
        if self.fault(Fault::Slow) {
            let ms = self.world.dice.between("slow for", 200, 6_000);
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        let fate = self.fate();
        match fate {
            Fate::Lives => {}
            Fate::Dies => self.kill(),
            Fate::Stalls(until) => tokio::time::sleep_until(until).await,
        }
        if self.killed.is_cancelled() || self.world.stop.is_cancelled() {
            std::future::pending::<()>().await;
        }
    }

    fn fate(&self) -> Fate {
        let mut state = lock(&self.state);
        state.steps += 1;
        let calm = self.world.calm.is_cancelled();
        if state.dies_at == Some(state.steps)
            && !calm
            && self.world.happens(Fault::Crash, &self.name)
        {
            return Fate::Dies;
        }
        if state.stalls_at == Some(state.steps)
            && !calm
            && self.world.happens(Fault::Stall, &self.name)
        {
            let ms = self.world.dice.between("stalls for", 500, 15_000);
            state.stalled_until = Some(Instant::now() + Duration::from_millis(ms));
        }
        match state.stalled_until {
            Some(until) if until > Instant::now() => Fate::Stalls(until),
            _ => Fate::Lives,
        }
    }
}

enum Fate {
    Lives,
    Dies,
    Stalls(Instant),
}
