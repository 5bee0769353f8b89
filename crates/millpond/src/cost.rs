//! What writes cost: prices are settings, arithmetic is pure.

/// Bytes of a terabyte, as prices are quoted.
const TB: f64 = 1e12;

/// Price of write units, with where it comes from.
#[derive(Debug, Clone, PartialEq)]
pub struct WritePrice {
    /// US dollars for one million write units.
    pub usd_per_million_units: f64,
    /// Where, since when and by which source.
    pub note: String,
}

impl Default for WritePrice {
    /// DynamoDB on-demand, us-east-1, in force since 2024-11-01 (0.625 USD per million write
    /// request units, standard table class; secondary sources read 2026-11-23).
    fn default() -> Self {
        Self {
            usd_per_million_units: 0.625,
            note: "on-demand, us-east-1, since 2024-11-01, read 2026-11-23".to_owned(),
        }
    }
}

impl WritePrice {
    /// A price that the user gave.
    #[must_use]
    pub fn given(usd_per_million_units: f64) -> Self {
        Self {
            usd_per_million_units,
            note: "as given".to_owned(),
        }
    }

    /// US dollars that a terabyte of events costs when `event_bytes` of them took `units`.
    #[must_use]
    pub fn usd_per_tb(&self, units: f64, event_bytes: u64) -> f64 {
        ratio(units, event_bytes as f64) * TB * self.usd_per_million_units / 1e6
    }
}

/// `part / whole`, and 0 where there is nothing to compare with.
#[must_use]
pub fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9 * right.abs().max(1.0)
    }

    #[test]
    fn dollars_follow_from_units_and_bytes() {
        let price = WritePrice::default();
        // One unit per KiB: 1e12 / 1024 units, at 0.625 dollars a million.
        assert!(close(price.usd_per_tb(1.0, 1_024), 610.351_562_5));
        // 200-byte events, one item each: five times as many units per byte.
        assert!(close(price.usd_per_tb(1_000.0, 200_000), 3_125.0));
        assert!(close(
            WritePrice::given(1.25).usd_per_tb(1_000.0, 200_000),
            6_250.0
        ));
    }

    #[test]
    fn nothing_written_costs_nothing() {
        assert!(close(WritePrice::default().usd_per_tb(0.0, 0), 0.0));
        assert!(close(ratio(3.0, 0.0), 0.0));
    }
}
