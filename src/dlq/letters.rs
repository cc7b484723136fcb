//! The dead letters up to a state of their topic, read twice: first what there is and what became of it, then those
//! that are asked for. Only a few bits of each letter are kept in between.

use super::Error;
use super::filter::Filter;
use super::letter::{Found, Letter, Mark, Marked, Place, read};
use super::places::Places;
use crate::bus::scan::Scan;
use crate::bus::{self, Options, topics};
use rdkafka::message::{Message as _, OwnedMessage};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Told while a topic is read: offsets done, and how many there are.
pub type Progress<'p> = &'p mut dyn FnMut(u64, u64);

/// How much of the topic is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// What may hold letters that match.
    Matching,
    /// All of the partitions that the filter admits, for who wants to know which letters nobody has dealt with.
    Whole,
}

/// Dead letters that match a filter, and what became of them.
pub struct DeadLetters {
    scan: Scan,
    filter: Filter,
    /// The first offset that was read, and the one behind the last, by partition.
    begins: BTreeMap<i32, i64>,
    ends: BTreeMap<i32, i64>,
    all: Places,
    matching: Places,
    replayed: Places,
    purged: Places,
}

impl DeadLetters {
    /// Reads the topic to its present end; committed records only.
    pub fn read(kafka: &Options, filter: Filter, range: Range, progress: Progress<'_>) -> Result<Self, Error> {
        let mut letters = Self::prepare(kafka, filter, range)?;
        letters.take_in(progress, |scan, each| scan.catch_up(each))?;
        Ok(letters)
    }

    /// The same, and transactions that are open now are waited for: no mark is missing that was committed before this
    /// call.
    pub(super) fn read_with_open(
        kafka: &Options,
        filter: Filter,
        range: Range,
        progress: Progress<'_>,
    ) -> Result<Self, Error> {
        let mut letters = Self::prepare(kafka, filter, range)?;
        letters.take_in(progress, |scan, each| scan.catch_up_with_all(each))?;
        Ok(letters)
    }

    fn prepare(kafka: &Options, filter: Filter, range: Range) -> Result<Self, Error> {
        let mut scan = scan(kafka, filter.partition)?;
        if range == Range::Matching {
            // A letter's marks stand behind it, so nothing before the first that can match is needed.
            if let Some(since) = filter.since {
                scan.seek_to_time(since)?;
            }
            if let Some(offset) = filter.offset {
                let position = scan.position().iter();
                scan.seek(position.map(|(&partition, &begin)| (partition, begin.max(offset))).collect());
            }
        }
        let begins = scan.position().clone();
        Ok(Self {
            scan,
            filter,
            ends: begins.clone(),
            begins,
            all: Places::default(),
            matching: Places::default(),
            replayed: Places::default(),
            purged: Places::default(),
        })
    }

    /// Takes in what is new on the topic.
    pub(super) fn refresh(&mut self) -> Result<(), Error> {
        self.scan.seek(self.ends.clone());
        self.take_in(&mut |_, _| {}, |scan, each| scan.catch_up(each))
    }

    fn take_in(
        &mut self,
        progress: Progress<'_>,
        scan: impl FnOnce(&mut Scan, &mut dyn FnMut(OwnedMessage) -> Result<(), bus::Error>) -> Result<(), bus::Error>,
    ) -> Result<(), Error> {
        let Self { filter, all, matching, replayed, purged, .. } = self;
        let mut done = Done::new(self.scan.position(), &self.scan.ends()?);
        scan(&mut self.scan, &mut |message| {
            done.tell(&message, progress);
            match read(message) {
                Some(Found::Letter(letter)) => {
                    all.insert(letter.place());
                    if filter.matches(&letter) {
                        matching.insert(letter.place());
                    }
                }
                Some(Found::Mark(Marked { of, mark, .. })) => {
                    let (now, before) = match mark {
                        Mark::Replayed => (&mut *replayed, &mut *purged),
                        Mark::Purged => (&mut *purged, &mut *replayed),
                    };
                    now.insert(of);
                    before.remove(of);
                }
                None => {}
            }
            Ok(())
        })?;
        self.ends = self.scan.position().clone();
        Ok(())
    }

    /// How many match; without those that were dealt with, unless `all`.
    pub fn count(&self, all: bool) -> u64 {
        self.selected(all).len()
    }

    /// Reads those that match once more, in the order of each partition; without those that were dealt with, unless
    /// `all`. `each` says whether it wants another one.
    pub fn for_each<E: From<bus::Error>>(
        &mut self,
        all: bool,
        progress: Progress<'_>,
        mut each: impl FnMut(&Letter, Option<Mark>) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let selected = self.selected(all);
        let bounds = selected.bounds();
        let begins = bounds.iter().map(|(&partition, &(begin, _))| (partition, begin)).collect();
        let ends = bounds.iter().map(|(&partition, &(_, end))| (partition, end)).collect();
        let mut done = Done::new(&begins, &ends);
        self.scan.seek(begins);
        let Self { scan, replayed, purged, .. } = self;
        let read = scan.read_to(&ends, |message| {
            done.tell(&message, progress);
            let place = Place { partition: message.partition(), offset: message.offset() };
            let Some(Found::Letter(letter)) = selected.contains(place).then(|| read(message)).flatten() else {
                return Ok(());
            };
            match each(&letter, mark_in(replayed, purged, place)) {
                Ok(ControlFlow::Continue(())) => Ok(()),
                Ok(ControlFlow::Break(())) => Err(Ended::Enough),
                Err(error) => Err(Ended::Failed(error)),
            }
        });
        match read {
            Ok(()) | Err(Ended::Enough) => Ok(()),
            Err(Ended::Failed(error)) => Err(error),
        }
    }

    fn selected(&self, all: bool) -> Places {
        if all { self.matching.clone() } else { self.open(&self.matching) }
    }

    /// Those that nobody has dealt with yet.
    fn open(&self, places: &Places) -> Places {
        places.without(&self.replayed).without(&self.purged)
    }

    /// Up to where all letters of each partition were dealt with, where that is not its beginning, and how many letters
    /// that are. It takes [`Range::Whole`].
    pub(super) fn dealt_with(&self) -> BTreeMap<i32, (i64, u64)> {
        let open = self.open(&self.all).bounds();
        let up_to = |(&partition, &end): (&i32, &i64)| {
            let end = open.get(&partition).map_or(end, |&(first, _)| first);
            (end > self.begins[&partition]).then(|| (partition, (end, self.all.before(partition, end))))
        };
        self.ends.iter().filter_map(up_to).collect()
    }
}

fn mark_in(replayed: &Places, purged: &Places, place: Place) -> Option<Mark> {
    if replayed.contains(place) {
        return Some(Mark::Replayed);
    }
    purged.contains(place).then_some(Mark::Purged)
}

/// A letter and what became of it, which takes reading its partition to the end.
pub fn find(kafka: &Options, place: Place, progress: Progress<'_>) -> Result<(Letter, Option<Marked>), Error> {
    let mut scan = scan(kafka, Some(place.partition))?;
    scan.seek(BTreeMap::from([(place.partition, place.offset)]));
    let mut done = Done::new(scan.position(), &scan.ends()?);
    let (mut found, mut marked) = (None, None);
    scan.catch_up(|message| {
        done.tell(&message, progress);
        match read(message) {
            Some(Found::Letter(letter)) if letter.place() == place => found = Some(letter),
            Some(Found::Mark(mark)) if mark.of == place => marked = Some(mark),
            _ if found.is_none() => return Err(Error::NoLetter(place)), // and what follows will not change that
            _ => {}
        }
        Ok(())
    })?;
    found.map(|letter| (letter, marked)).ok_or(Error::NoLetter(place))
}

/// All partitions of the topic from their beginnings, or one.
fn scan(kafka: &Options, partition: Option<i32>) -> Result<Scan, Error> {
    let mut scan = Scan::new(kafka, topics::DEAD_LETTERS)?;
    if let Some(partition) = partition {
        let count = scan.position().len();
        let Some(&begin) = scan.position().get(&partition) else {
            return Err(Error::NoPartition { topic: topics::DEAD_LETTERS, partition, count });
        };
        scan.seek(BTreeMap::from([(partition, begin)]));
    }
    Ok(scan)
}

/// Why reading ended before the end.
enum Ended<E> {
    Enough,
    Failed(E),
}

impl<E: From<bus::Error>> From<bus::Error> for Ended<E> {
    fn from(error: bus::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// How far reading has come, in offsets over all partitions.
struct Done {
    next: BTreeMap<i32, i64>,
    done: u64,
    total: u64,
}

impl Done {
    fn new(begins: &BTreeMap<i32, i64>, ends: &BTreeMap<i32, i64>) -> Self {
        let lengths = begins.iter().map(|(partition, begin)| ends.get(partition).map_or(0, |end| (end - begin).max(0)));
        Self { next: begins.clone(), done: 0, total: lengths.sum::<i64>() as u64 }
    }

    fn tell(&mut self, message: &OwnedMessage, progress: &mut dyn FnMut(u64, u64)) {
        let next = self.next.entry(message.partition()).or_default();
        self.done += (message.offset() + 1 - *next).max(0) as u64;
        *next = message.offset() + 1;
        progress(self.done, self.total.max(self.done));
    }
}
