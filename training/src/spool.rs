//! Items that wait on the disk until they are wanted, so that memory does not grow with the data: it holds eight bytes
//! for each, where it ends, and the last mebibyte, which a small set never leaves.
//!
//! They wait as JSON in a file without a name in the folder for temporary files (`TMPDIR`), which vanishes with the
//! process whatever ends it.

use crate::error::Error;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::env;
use std::fs::File;
use std::io::{self, Write as _};
use std::marker::PhantomData;
use std::os::unix::fs::FileExt as _;

/// Bytes that are kept in memory before they are written.
const TAIL: usize = 1 << 20;

/// Items in the order in which they came.
#[derive(Debug)]
pub struct Spool<T> {
    file: Option<File>,
    /// Bytes in the file.
    written: u64,
    tail: Vec<u8>,
    ends: Vec<u64>,
    items: PhantomData<fn() -> T>,
}

impl<T> Default for Spool<T> {
    fn default() -> Self {
        Self { file: None, written: 0, tail: Vec::new(), ends: Vec::new(), items: PhantomData }
    }
}

impl<T> Spool<T> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }
}

impl<T: Serialize + DeserializeOwned> Spool<T> {
    /// Adds an item; returns its place.
    ///
    /// # Errors
    /// A disk that is full.
    pub fn push(&mut self, item: &T) -> Result<usize, Error> {
        serde_json::to_writer(&mut self.tail, item).map_err(|error| failed(error.into()))?;
        self.ends.push(self.written + self.tail.len() as u64);
        if self.tail.len() >= TAIL {
            let file = match &mut self.file {
                Some(file) => file,
                none => none.insert(tempfile::tempfile().map_err(failed)?),
            };
            file.write_all(&self.tail).map_err(failed)?;
            self.written += self.tail.len() as u64;
            self.tail.clear();
        }
        Ok(self.ends.len() - 1)
    }

    /// The item at a place.
    ///
    /// # Errors
    /// A disk that fails.
    ///
    /// # Panics
    /// Where there is no such place.
    pub fn get(&self, place: usize) -> Result<T, Error> {
        let begin = if place == 0 { 0 } else { self.ends[place - 1] };
        let length = (self.ends[place] - begin) as usize;
        let item = match &self.file {
            Some(file) if begin < self.written => {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, begin).map_err(failed)?;
                serde_json::from_slice(&bytes)
            }
            _ => {
                let begin = (begin - self.written) as usize;
                serde_json::from_slice(&self.tail[begin..begin + length])
            }
        };
        item.map_err(|error| failed(error.into()))
    }

    /// All items in their order.
    pub fn iter(&self) -> impl Iterator<Item = Result<T, Error>> {
        (0..self.len()).map(|place| self.get(place))
    }
}

fn failed(cause: io::Error) -> Error {
    Error::io(&env::temp_dir(), cause)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn items_come_back_from_memory_and_from_the_disk() {
        let mut spool = Spool::default();
        let item = |number: usize| (number, "αβ\n\"".repeat(number % 1000));
        for number in 0..2000 {
            assert_eq!(spool.push(&item(number)).unwrap(), number);
            assert_eq!(spool.get(number).unwrap(), item(number), "just added");
        }
        assert!(spool.written > 0 && !spool.tail.is_empty() && spool.tail.len() < TAIL);
        for number in (0..2000).rev() {
            assert_eq!(spool.get(number).unwrap(), item(number));
        }
        assert!(spool.iter().map(Result::unwrap).eq((0..2000).map(item)));
        assert!(Spool::<u8>::default().is_empty());
    }

    proptest! {
        #[test]
        fn whatever_the_sizes(lengths in proptest::collection::vec(0..400_000usize, 0..12)) {
            let mut spool = Spool::default();
            for length in &lengths {
                spool.push(&"x".repeat(*length)).unwrap();
            }
            let found: Vec<usize> = spool.iter().map(|item| item.unwrap().len()).collect();
            prop_assert_eq!(found, lengths);
        }
    }
}
