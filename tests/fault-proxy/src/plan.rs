//! Which request meets which fault: a pure function of the seed and the request's number.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::fault::{Cut, Family, Fault, Refusal, server_error, throttled, unavailable};
use crate::service::Service;

/// Requests that meet expired credentials, or do not, together.
const EXPIRY_RUN: u64 = 4;

/// Of so many such runs, one meets expired credentials.
const EXPIRY_ONE_IN: u64 = 4;

/// Of so many requests, one meets a fault that costs its caller a time limit: of a family alone, and
/// of one among others.
const SILENCE_ONE_IN: u64 = 24;
const SILENCE_ONE_IN_AMONG_OTHERS: u64 = 96;

/// Longest that a slow answer takes.
const SLOWEST_MS: u64 = 1_500;

/// Faults for requests by number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    seed: u64,
    families: Vec<Family>,
    /// What every request meets.
    always: Option<Family>,
    /// Requests that are let through first.
    spared: u64,
}

/// What the seed says about one request, whatever it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Draw {
    family: Family,
    variant: u64,
}

impl Plan {
    /// Lets everything through.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Faults of these families; with several, a request meets each as often as the next.
    #[must_use]
    pub fn new(seed: u64, families: &[Family]) -> Self {
        Self {
            seed,
            families: families.to_vec(),
            ..Self::default()
        }
    }

    /// Credentials that are expired for every request.
    #[must_use]
    pub fn always_expired() -> Self {
        Self::always(Family::ExpiredCredentials)
    }

    /// Connections that are half open, for every request: each takes effect and is never answered.
    #[must_use]
    pub fn always_half_open() -> Self {
        Self::always(Family::HalfOpen)
    }

    fn always(family: Family) -> Self {
        Self {
            always: Some(family),
            ..Self::default()
        }
    }

    /// The same, but the first `requests` are let through.
    #[must_use]
    pub fn after(self, requests: u64) -> Self {
        Self {
            spared: requests,
            ..self
        }
    }

    /// What becomes of request `number` (from 0) for `operation`; `None` lets it through.
    #[must_use]
    pub fn fault(&self, service: Service, operation: &str, number: u64) -> Option<(Family, Fault)> {
        let draw = self.draw(number)?;
        Some((draw.family, draw.fault(service, operation)?))
    }

    fn draw(&self, number: u64) -> Option<Draw> {
        if let Some(family) = self.always {
            return Some(Draw { family, variant: 0 });
        }
        if self.families.is_empty() || number < self.spared {
            return None;
        }
        let silence_one_in = if self.families.len() == 1 {
            SILENCE_ONE_IN
        } else {
            SILENCE_ONE_IN_AMONG_OTHERS
        };
        for family in self.families.iter().copied() {
            let is_met = match family {
                // Credentials expire for all requests of a while.
                Family::ExpiredCredentials => {
                    self.is_chosen(number / EXPIRY_RUN, EXPIRY_ONE_IN, family)
                }
                Family::Stalled | Family::HalfOpen => {
                    self.is_chosen(number, silence_one_in, family)
                }
                _ => continue,
            };
            if is_met {
                let variant = self.random(number, 0).random();
                return Some(Draw { family, variant });
            }
        }
        let mut random = self.random(number, 0);
        let family = self.families[random.random_range(0..self.families.len())];
        random.random_ratio(1, one_in(family)?).then(|| Draw {
            family,
            variant: random.random(),
        })
    }

    /// Of each `of` numbers in a row, one is chosen.
    fn is_chosen(&self, number: u64, of: u64, family: Family) -> bool {
        let mut random = self.random(number / of, 1 + family as u64);
        random.random_range(0..of) == number % of
    }

    fn random(&self, number: u64, purpose: u64) -> StdRng {
        let mut seed = [0; 32];
        seed[..8].copy_from_slice(&self.seed.to_le_bytes());
        seed[8..16].copy_from_slice(&number.to_le_bytes());
        seed[16..24].copy_from_slice(&purpose.to_le_bytes());
        StdRng::from_seed(seed)
    }
}

/// How rare a family is; `None` for those that are chosen by place.
const fn one_in(family: Family) -> Option<u32> {
    match family {
        Family::Unprocessed => Some(2),
        // Each slows its client down, by seconds where the account is at its limit.
        Family::Throttled => Some(12),
        Family::ServerError
        | Family::Unavailable
        | Family::Reset
        | Family::Truncated
        | Family::LostAnswer
        | Family::ExpiredIterator => Some(3),
        Family::Slow => Some(4),
        Family::Stalled | Family::HalfOpen | Family::ExpiredCredentials => None,
    }
}

impl Draw {
    /// `None` where the fault does not fit the request.
    fn fault(self, service: Service, operation: &str) -> Option<Fault> {
        let variant = self.variant;
        Some(match self.family {
            Family::Throttled => Fault::Refuse(throttled(service, operation, variant)),
            Family::ServerError => Fault::Refuse(server_error(service, variant)),
            Family::Unavailable => Fault::Refuse(unavailable(service, variant)),
            Family::Unprocessed if operation == "BatchWriteItem" => Fault::Unprocessed(variant),
            Family::Unprocessed => return None,
            Family::Stalled => Fault::Stall,
            Family::Reset if variant.is_multiple_of(2) => Fault::ResetBefore,
            Family::Reset => Fault::ResetWithin,
            Family::HalfOpen => Fault::HalfOpen {
                forwarded: variant.is_multiple_of(2),
            },
            Family::Truncated => Fault::Truncate(match variant % 3 {
                0 => Cut::Connection,
                1 => Cut::Json,
                _ => Cut::Empty,
            }),
            Family::Slow => Fault::Slow(Duration::from_millis(variant % SLOWEST_MS)),
            Family::LostAnswer => match variant % 4 {
                0 => Fault::LoseAnswerTo(server_error(service, variant / 4)),
                _ => Fault::LoseAnswer,
            },
            Family::ExpiredCredentials => Fault::Refuse(Refusal::expired_token(service)),
            Family::ExpiredIterator if operation == "GetRecords" => Fault::Refuse(Refusal::of(
                service,
                400,
                "ExpiredIteratorException",
                "Iterator expired. The iterator was created more than 5 minutes ago",
            )),
            Family::ExpiredIterator => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_same_seed_and_number_meet_the_same_fault_in_any_order() {
        let plan = Plan::new(7, &Family::ALL);
        let ask = |number| plan.fault(Service::DynamoDb, "BatchWriteItem", number);
        let forwards: Vec<_> = (0..500).map(ask).collect();
        let mut backwards: Vec<_> = (0..500).rev().map(ask).collect();
        backwards.reverse();
        assert_eq!(forwards, backwards);
        let other = Plan::new(8, &Family::ALL);
        let others: Vec<_> = (0..500)
            .map(|number| other.fault(Service::DynamoDb, "BatchWriteItem", number))
            .collect();
        assert_ne!(forwards, others);
    }

    #[test]
    fn each_family_alone_is_met_and_leaves_requests_through() {
        for family in Family::ALL {
            let (service, operation) = match family {
                Family::ExpiredIterator => (Service::Kinesis, "GetRecords"),
                _ => (Service::DynamoDb, "BatchWriteItem"),
            };
            let plan = Plan::new(1, &[family]).after(20);
            let met: Vec<_> = (0..400)
                .map(|number| plan.fault(service, operation, number))
                .collect();
            assert!(met[..20].iter().all(Option::is_none), "{family:?}");
            let hit = met.iter().flatten().count();
            assert!((10..300).contains(&hit), "{family:?}: {hit} of 400");
            assert!(met.iter().flatten().all(|(met, _)| *met == family));
        }
    }

    #[test]
    fn every_throttling_reason_comes() {
        let mut reasons = BTreeSet::new();
        for operation in ["BatchWriteItem", "Query"] {
            for variant in 0..16 {
                let body = throttled(Service::DynamoDb, operation, variant).body;
                let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
                let list = body.get("ThrottlingReasons");
                let list = list.or_else(|| body.get("throttlingReasons"));
                let reason = list.and_then(|list| list[0]["reason"].as_str());
                reasons.insert(reason.expect("a reason").to_owned());
            }
        }
        assert_eq!(reasons.len(), 16, "{reasons:?}");
    }

    #[test]
    fn nothing_is_met_without_families() {
        let plan = Plan::none();
        assert!(
            (0..100).all(|number| plan.fault(Service::Kinesis, "GetRecords", number).is_none())
        );
    }
}
