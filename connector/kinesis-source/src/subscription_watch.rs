//! When a shard may be subscribed to, when a subscription is renewed, and when it is given up for
//! polling. Pure: `now` is an argument.

use std::time::Instant;

use crate::limits::{
    FALL_BACK_ATTEMPTS, FALL_BACK_PATIENCE, POLL_INSTEAD, RENEWAL_AGE, SUBSCRIBE_SPACING,
};

/// The subscriptions of one shard, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct SubscriptionWatch {
    /// When the last one was accepted.
    opened: Option<Instant>,
    /// Attempts and subscriptions since the last event that brought none.
    failures: u32,
    failing_since: Option<Instant>,
    polling_until: Option<Instant>,
    /// It was given up before, and is tried again.
    is_probing: bool,
}

impl SubscriptionWatch {
    /// When the next one may be asked for: the service refuses two of the same consumer and shard
    /// in quick succession.
    pub(crate) fn opens_at(&self, now: Instant) -> Instant {
        self.opened.map_or(now, |at| at + SUBSCRIBE_SPACING)
    }

    /// A subscription was accepted.
    pub(crate) fn opened(&mut self, now: Instant) {
        self.opened = Some(now);
    }

    /// When it is replaced by a new one, before the service ends it.
    pub(crate) fn renews_at(&self, now: Instant) -> Instant {
        self.opened.map_or(now, |at| at + RENEWAL_AGE)
    }

    /// An event came.
    pub(crate) fn heard(&mut self) {
        self.failures = 0;
        self.failing_since = None;
        self.is_probing = false;
    }

    /// An attempt failed, or a subscription ended before its time.
    pub(crate) fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.failing_since.get_or_insert(now);
    }

    /// True once it failed often and long enough to poll instead; at the second time, once.
    pub(crate) fn is_hopeless(&self, now: Instant) -> bool {
        let Some(since) = self.failing_since else {
            return false;
        };
        let long = now.saturating_duration_since(since) >= FALL_BACK_PATIENCE;
        self.is_probing || (self.failures >= FALL_BACK_ATTEMPTS && long)
    }

    /// It is polled from now on, for some time.
    pub(crate) fn fall_back(&mut self, now: Instant) {
        self.heard();
        self.is_probing = true;
        self.polling_until = Some(now + POLL_INSTEAD);
    }

    /// True while it is polled.
    pub(crate) fn is_polling(&self, now: Instant) -> bool {
        self.polling_until.is_some_and(|until| now < until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_after_the_other_and_renewed_before_the_service_ends_it() {
        let start = Instant::now();
        let mut watch = SubscriptionWatch::default();
        assert_eq!(watch.opens_at(start), start);
        watch.opened(start);
        assert_eq!(watch.opens_at(start), start + SUBSCRIBE_SPACING);
        let renewal = watch.renews_at(start);
        assert!(renewal > watch.opens_at(start));
        // The service's own limit, five minutes.
        assert!(renewal < start + Duration::from_secs(300));
    }

    #[test]
    fn it_is_given_up_for_good_reason_and_tried_again() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut watch = SubscriptionWatch::default();
        for attempt in 0..FALL_BACK_ATTEMPTS {
            assert!(!watch.is_hopeless(at(0)), "{attempt}");
            watch.failed(at(0));
        }
        assert!(!watch.is_hopeless(at(1)), "a short outage is waited for");
        let long = FALL_BACK_PATIENCE.as_secs();
        assert!(watch.is_hopeless(at(long)));
        watch.heard();
        assert!(!watch.is_hopeless(at(long)));
        watch.failed(at(long));
        watch.fall_back(at(long));
        assert!(watch.is_polling(at(long + POLL_INSTEAD.as_secs() - 1)));
        let again = long + POLL_INSTEAD.as_secs();
        assert!(!watch.is_polling(at(again)));
        assert!(!watch.is_hopeless(at(again)));
        watch.failed(at(again));
        assert!(watch.is_hopeless(at(again)), "one more is enough");
        watch.heard();
        watch.failed(at(again));
        assert!(!watch.is_hopeless(at(again)), "it worked in between");
    }
}
