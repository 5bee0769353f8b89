//! CPU time of this process.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// User and system time of all threads since the process began, children not counted.
#[must_use]
pub fn process_cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_cpu_time() {
        let before = process_cpu_time();
        let mut value = 1_u64;
        while process_cpu_time() - before < Duration::from_millis(2) {
            value = std::hint::black_box(value.wrapping_mul(3));
        }
        assert!(process_cpu_time() > before);
    }
}
