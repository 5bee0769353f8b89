//! Where the envelopes of a chain are cut into items, within one plan.
//!
//! An item is paid for in whole KB, so one that ends shortly above a KB boundary pays for most of a KB that it does not
//! fill. What is taken from its end goes into the next one, which may have room for it in a KB that is paid for anyway.

/// Envelopes before the end of a fullest item at which it may end as well. Each earlier end leaves another part of
/// the last KB empty, so few are enough; and what they cost to try grows with their square.
const LOOK_BACK: usize = 8;

/// The fewest units up to some envelope.
#[derive(Debug, Clone, Copy)]
struct Fewest {
    units: u64,
    items: u64,
    /// Where the last of these items begins.
    start: usize,
}

impl Fewest {
    /// Fewer units; of as many, fewer items, and of those the ones that are fuller from the first on.
    fn is_better_than(&self, other: &Self) -> bool {
        (self.units, self.items, other.start) < (other.units, other.items, self.start)
    }
}

/// The envelopes before which an item may end, besides the ends of the fullest items themselves.
#[derive(Debug)]
pub(super) struct Cuts {
    is_end: Vec<bool>,
}

impl Cuts {
    /// Those near the ends of the fullest items, which are given in order; the last one is the number of envelopes.
    pub(super) fn near(fullest: &[usize]) -> Self {
        let envelopes = fullest.last().copied().unwrap_or_default();
        let mut is_end = vec![false; envelopes + 1];
        for end in fullest {
            is_end[(end + 1).saturating_sub(LOOK_BACK).max(1)..=*end].fill(true);
        }
        Self { is_end }
    }

    /// True when an item may end before this envelope.
    pub(super) fn is_end(&self, envelope: usize) -> bool {
        self.is_end.get(envelope).copied().unwrap_or_default()
    }

    /// Ends of the items that take the fewest units together, and those units. `units_from` says what items take that
    /// begin with an envelope, by their ends, where so many items lie before.
    pub(super) fn cheapest(
        &self,
        mut units_from: impl FnMut(usize, u64) -> Vec<(usize, u64)>,
    ) -> (Vec<usize>, u64) {
        let mut fewest: Vec<Option<Fewest>> = vec![None; self.is_end.len()];
        let nothing = Fewest {
            units: 0,
            items: 0,
            start: 0,
        };
        for start in 0..fewest.len() - 1 {
            let before = match fewest[start] {
                _ if start == 0 => nothing,
                Some(before) => before,
                None => continue,
            };
            for (end, units) in units_from(start, before.items) {
                let found = Fewest {
                    units: before.units + units,
                    items: before.items + 1,
                    start,
                };
                if fewest[end].is_none_or(|known| found.is_better_than(&known)) {
                    fewest[end] = Some(found);
                }
            }
        }
        let mut ends = Vec::new();
        let mut end = fewest.len() - 1;
        let units = fewest[end].map_or(u64::MAX, |found| found.units);
        while let Some(found) = fewest[end] {
            ends.push(end);
            end = found.start;
        }
        ends.reverse();
        (ends, units)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of an item besides those of its envelopes.
    const FIXED: usize = 300;

    const LIMIT: usize = 8_192;

    /// Units of the item of these envelopes; `None` when it is too large.
    fn units(envelopes: &[usize]) -> Option<u64> {
        let bytes = FIXED + envelopes.iter().sum::<usize>();
        (bytes <= LIMIT).then(|| (bytes as u64).div_ceil(1_024))
    }

    fn fullest(envelopes: &[usize]) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut start = 0;
        for end in 1..=envelopes.len() {
            if units(&envelopes[start..end]).is_none() {
                start = end - 1;
                ends.push(start);
            }
        }
        ends.push(envelopes.len());
        ends
    }

    fn chosen(envelopes: &[usize]) -> (Vec<usize>, u64) {
        let cuts = Cuts::near(&fullest(envelopes));
        cuts.cheapest(|start, _| {
            let ends = (start + 1..=envelopes.len()).filter(|end| cuts.is_end(*end));
            ends.filter_map(|end| Some((end, units(&envelopes[start..end])?)))
                .collect()
        })
    }

    fn total(envelopes: &[usize], ends: &[usize]) -> Option<u64> {
        let mut start = 0;
        let each = ends.iter().map(|end| {
            let item = start..*end;
            start = *end;
            units(&envelopes[item])
        });
        each.sum()
    }

    /// The fewest units of all cuts there are, the fewest items that take them, and their ends, fuller ones first.
    fn by_trying_all(envelopes: &[usize]) -> (u64, usize, Vec<usize>) {
        let inner = envelopes.len() - 1;
        let all = (0..1u32 << inner).filter_map(|cut| {
            let inner = (1..=inner).filter(|end| cut & (1 << (end - 1)) != 0);
            let ends: Vec<usize> = inner.chain([envelopes.len()]).collect();
            Some((total(envelopes, &ends)?, ends.len(), ends))
        });
        all.min_by_key(|(units, items, ends)| {
            let starts: Vec<usize> = ends.iter().rev().copied().collect();
            (*units, *items, std::cmp::Reverse(starts))
        })
        .expect("each alone fits")
    }

    #[test]
    fn they_are_the_best_of_all_where_items_hold_few_envelopes() {
        let mut noise = 7u64;
        let mut next = |range: std::ops::Range<usize>| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            range.start + (noise >> 33) as usize % range.len()
        };
        let mut cheaper = 0;
        for _ in 0..2_000 {
            let count = next(1..13);
            let envelopes: Vec<usize> = (0..count).map(|_| next(1_000..4_000)).collect();
            let (ends, units) = chosen(&envelopes);
            let (best, _, best_ends) = by_trying_all(&envelopes);
            assert_eq!((units, &ends), (best, &best_ends), "{envelopes:?}");
            assert_eq!(total(&envelopes, &ends), Some(units));
            let fullest = total(&envelopes, &fullest(&envelopes)).expect("they fit");
            assert!(units <= fullest, "{envelopes:?}");
            cheaper += u64::from(units < fullest);
        }
        assert!(cheaper > 200, "{cheaper}");
    }

    #[test]
    fn of_many_envelopes_few_ends_are_tried_and_it_is_never_dearer() {
        let mut cheaper = 0;
        for seed in 1..200usize {
            let envelopes: Vec<usize> = (0..300).map(|at| 50 + at * seed * 7_919 % 181).collect();
            let fullest = fullest(&envelopes);
            let cuts = Cuts::near(&fullest);
            let ends = (1..=300).filter(|end| cuts.is_end(*end)).count();
            assert!(ends <= LOOK_BACK * fullest.len(), "{ends}");
            let (_, units) = chosen(&envelopes);
            let before = total(&envelopes, &fullest).expect("they fit");
            assert!(units <= before);
            cheaper += u64::from(units < before);
        }
        assert!(cheaper > 10, "{cheaper}");
    }

    #[test]
    fn one_item_is_one_item() {
        assert_eq!(chosen(&[100, 200, 300]), (vec![3], 1));
        assert_eq!(chosen(&[100]), (vec![1], 1));
    }
}
