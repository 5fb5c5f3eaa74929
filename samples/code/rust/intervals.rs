//! Sets of date ranges, for opening hours, closures and loans. A day is its number since some fixed day.

use std::cmp::{max, min};
use std::fmt;
use std::iter::FromIterator;

/// Days from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    pub first: i64,
    pub last: i64,
}

impl Range {
    /// A range, or `None` if it would end before it begins.
    pub fn new(first: i64, last: i64) -> Option<Self> {
        (first <= last).then_some(Range { first, last })
    }

    pub fn days(&self) -> u64 {
        self.first.abs_diff(self.last) + 1
    }

    fn overlap(&self, other: &Range) -> Option<Range> {
        Range::new(max(self.first, other.first), min(self.last, other.last))
    }
}

/// Ranges in order that neither overlap nor touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaySet {
    ranges: Vec<Range>,
}

impl DaySet {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    pub fn days(&self) -> u64 {
        self.ranges.iter().map(Range::days).sum()
    }

    pub fn contains(&self, day: i64) -> bool {
        let after = self.ranges.partition_point(|range| range.first <= day);
        after > 0 && self.ranges[after - 1].last >= day
    }

    /// Adds a range and joins it with those that it overlaps or touches.
    pub fn insert(&mut self, range: Range) {
        let start = self.ranges.partition_point(|other| other.last.saturating_add(1) < range.first);
        let end = self.ranges.partition_point(|other| other.first <= range.last.saturating_add(1));
        let joined = self.ranges[start..end].iter().fold(range, |sum, other| Range {
            first: min(sum.first, other.first),
            last: max(sum.last, other.last),
        });
        self.ranges.splice(start..end, [joined]);
    }

    /// Takes the days of a range out, which may cut one of ours in two.
    pub fn remove(&mut self, range: Range) {
        let mut left = Vec::with_capacity(self.ranges.len() + 1);
        for ours in &self.ranges {
            left.extend(Range::new(ours.first, min(ours.last, range.first - 1)));
            left.extend(Range::new(max(ours.first, range.last + 1), ours.last));
        }
        self.ranges = left;
    }

    /// The days that are in both sets, in one pass over the two.
    pub fn intersection(&self, other: &DaySet) -> DaySet {
        let (mut a, mut b) = (0, 0);
        let mut ranges = Vec::new();
        while let (Some(ours), Some(theirs)) = (self.ranges.get(a), other.ranges.get(b)) {
            ranges.extend(ours.overlap(theirs));
            if ours.last < theirs.last {
                a += 1;
            } else {
                b += 1;
            }
        }
        DaySet { ranges }
    }

    /// The first day from `start` on which is in the set: when a book that falls due can be brought back.
    pub fn next(&self, start: i64) -> Option<i64> {
        let at = self.ranges.partition_point(|range| range.last < start);
        self.ranges.get(at).map(|range| max(range.first, start))
    }

    /// The day that is so many days of the set after `start`: loans run on open days only.
    pub fn advance(&self, start: i64, mut count: u64) -> Option<i64> {
        let at = self.ranges.partition_point(|range| range.last < start);
        for range in &self.ranges[at..] {
            let open = Range::new(max(range.first, start), range.last)?;
            if count < open.days() {
                return Some(open.first + i64::try_from(count).ok()?);
            }
            count -= open.days();
        }
        None
    }
}

impl FromIterator<Range> for DaySet {
    fn from_iter<I: IntoIterator<Item = Range>>(ranges: I) -> Self {
        let mut set = DaySet::new();
        for range in ranges {
            set.insert(range);
        }
        set
    }
}

impl fmt::Display for DaySet {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, range) in self.ranges.iter().enumerate() {
            let comma = if number == 0 { "" } else { ", " };
            if range.first == range.last {
                write!(out, "{comma}{}", range.first)?;
            } else {
                write!(out, "{comma}{}-{}", range.first, range.last)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(pairs: &[(i64, i64)]) -> DaySet {
        pairs.iter().map(|&(first, last)| Range::new(first, last).unwrap()).collect()
    }

    #[test]
    fn neighbours_are_joined() {
        assert_eq!(set(&[(1, 3), (7, 9), (4, 6)]).ranges(), &[Range { first: 1, last: 9 }]);
    }

    #[test]
    fn a_closure_cuts_a_range_in_two() {
        let mut open = set(&[(1, 10)]);
        open.remove(Range { first: 4, last: 5 });
        assert_eq!(open.to_string(), "1-3, 6-10");
        assert_eq!((open.next(4), open.advance(2, 3)), (Some(6), Some(7)));
    }

    #[test]
    fn every_operation_agrees_with_single_days() {
        for bits in 0u32..1 << 8 {
            let days = |mask: u32| -> DaySet {
                (0..8).filter(|day| mask >> day & 1 == 1).filter_map(|day| Range::new(day, day)).collect()
            };
            let (ours, theirs) = (days(bits), days(bits.rotate_left(3) ^ 0b1010_0110));
            let both = ours.intersection(&theirs);
            for day in 0..8 {
                assert_eq!(both.contains(day), ours.contains(day) && theirs.contains(day));
            }
        }
    }
}
