//! A set of places that stays small however many letters there are: compressed bitmaps, a few bits a letter.

use super::letter::Place;
use roaring::RoaringTreemap;
use std::collections::BTreeMap;

/// Places of one topic.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Places(BTreeMap<i32, RoaringTreemap>);

impl Places {
    pub fn insert(&mut self, place: Place) {
        self.0.entry(place.partition).or_default().insert(place.offset as u64);
    }

    pub fn remove(&mut self, place: Place) {
        if let Some(offsets) = self.0.get_mut(&place.partition) {
            offsets.remove(place.offset as u64);
        }
    }

    pub fn contains(&self, place: Place) -> bool {
        self.0.get(&place.partition).is_some_and(|offsets| offsets.contains(place.offset as u64))
    }

    pub fn len(&self) -> u64 {
        self.0.values().map(RoaringTreemap::len).sum()
    }

    /// Those that are not in `other`.
    pub fn without(&self, other: &Self) -> Self {
        let nothing = RoaringTreemap::new();
        let rest = |(partition, offsets): (&i32, &RoaringTreemap)| {
            (*partition, offsets - other.0.get(partition).unwrap_or(&nothing))
        };
        Self(self.0.iter().map(rest).collect())
    }

    /// The first offset and the one after the last, of each partition that has any.
    pub fn bounds(&self) -> BTreeMap<i32, (i64, i64)> {
        let bounds = |offsets: &RoaringTreemap| Some((offsets.min()? as i64, offsets.max()? as i64 + 1));
        self.0.iter().filter_map(|(&partition, offsets)| Some((partition, bounds(offsets)?))).collect()
    }

    /// How many of a partition's stand before `offset`.
    pub fn before(&self, partition: i32, offset: i64) -> u64 {
        let Some(last) = offset.checked_sub(1).filter(|&last| last >= 0) else { return 0 };
        self.0.get(&partition).map_or(0, |offsets| offsets.rank(last as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_places() {
        let place = |partition, offset| Place { partition, offset };
        let (mut all, mut some) = (Places::default(), Places::default());
        for offset in [3, 5, 1 << 40] {
            all.insert(place(0, offset));
        }
        all.insert(place(1, 0));
        some.insert(place(0, 3));
        some.insert(place(1, 0));
        some.insert(place(2, 9));
        let rest = all.without(&some);
        assert_eq!((all.len(), rest.len()), (4, 2));
        assert!(rest.contains(place(0, 5)) && !rest.contains(place(0, 3)) && !rest.contains(place(1, 0)));
        assert_eq!(rest.bounds(), BTreeMap::from([(0, (5, (1 << 40) + 1))]));
        assert_eq!([0, 3, 4, 1 << 40].map(|offset| all.before(0, offset)), [0, 0, 1, 2]);
        some.remove(place(0, 3));
        assert!(!some.contains(place(0, 3)));
    }
}
