//! The report as text.

use std::fmt::Write as _;

use super::Report;
use crate::cost::WritePrice;

impl Report {
    /// The report as lines for people.
    #[must_use]
    pub fn to_text(&self, price: &WritePrice) -> String {
        let mut text = String::new();
        for (name, value) in self.lines(price) {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name:<14}{value}");
        }
        text
    }

    fn lines(&self, price: &WritePrice) -> Vec<(&'static str, String)> {
        let events = &self.events;
        let units = &self.write_units;
        vec![
            (
                "Events",
                format!(
                    "{} emitted, {} read back",
                    grouped(events.emitted),
                    grouped(events.read)
                ),
            ),
            (
                "",
                format!(
                    "{} lost, {} duplicated, {} changed, {} out of order",
                    grouped(events.lost),
                    grouped(events.duplicated),
                    grouped(events.changed),
                    grouped(events.out_of_order)
                ),
            ),
            (
                "Items",
                format!(
                    "{} of {} bytes on average, fill {:.3}, compression {:.2} to 1",
                    grouped(self.items),
                    grouped(self.mean_item_bytes as u64),
                    self.fill,
                    self.compression_ratio
                ),
            ),
            (
                "Write units",
                format!(
                    "{} by the server, {} computed",
                    grouped(units.reported as u64),
                    grouped(units.computed)
                ),
            ),
            (
                "",
                format!(
                    "{} with one item per event: {:.1} times as many",
                    grouped(units.per_event),
                    units.saving
                ),
            ),
            (
                "Ledger",
                format!(
                    "{} write units, {:.2}% of all; {:.2}% of the time, {:.2}% of that of the plans",
                    grouped(self.ledger.write_units),
                    self.ledger.write_unit_share * 100.0,
                    self.ledger.time_share * 100.0,
                    self.ledger.plan_time_share * 100.0
                ),
            ),
            (
                "USD per TB",
                format!(
                    "{:.2}, with one item per event {:.2}",
                    self.usd_per_tb.packed, self.usd_per_tb.per_event
                ),
            ),
            (
                "",
                format!(
                    "at {} USD per million write units ({})",
                    price.usd_per_million_units, price.note
                ),
            ),
            (
                "Availability",
                format!(
                    "{} ms p50, {} ms p99, {} ms max, from emit to readable",
                    grouped(self.availability_ms.p50),
                    grouped(self.availability_ms.p99),
                    grouped(self.availability_ms.max)
                ),
            ),
            (
                "",
                format!(
                    "{} events written by the drain at the end, without waiting for max-age",
                    grouped(self.drained_events)
                ),
            ),
            (
                "Start-up",
                format!(
                    "{:.1} CPU seconds (compiles the SmartModule, at most once per core), not counted below",
                    self.startup_cpu_seconds
                ),
            ),
            (
                "Speed",
                format!(
                    "{} events/s, {:.1} MB/s, {:.2} CPU seconds per GB of events",
                    grouped(self.events_per_second as u64),
                    self.megabytes_per_second,
                    self.cpu_seconds_per_gb
                ),
            ),
        ]
    }
}

/// `1234567` as `1,234,567`.
#[must_use]
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
