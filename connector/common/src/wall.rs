//! The wall clock of this machine, for what must notice that it slept.
//!
//! Nothing that decides what is read or written depends on it. A test, or a simulation on virtual time, gives its
//! thread a clock of its own.

use std::cell::Cell;
use std::time::SystemTime;

thread_local! {
    static SET: Cell<Option<SystemTime>> = const { Cell::new(None) };
}

/// The time now.
#[must_use]
pub fn now() -> SystemTime {
    SET.get().unwrap_or_else(SystemTime::now)
}

/// From now on this thread's clock stands at `time`.
pub fn set_on_this_thread(time: SystemTime) {
    SET.set(Some(time));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_set_stands_still_and_leaves_others_alone() {
        set_on_this_thread(SystemTime::UNIX_EPOCH);
        assert_eq!(now(), SystemTime::UNIX_EPOCH);
        let other = std::thread::spawn(now).join().expect("no panic");
        assert!(other > SystemTime::UNIX_EPOCH);
    }
}
