//! Names that occur again and again, by number.

use std::collections::HashMap;
use std::hash::Hash;

/// Gives each name a number, in the order in which they are first seen.
#[derive(Debug)]
pub struct Names<T> {
    list: Vec<T>,
    numbers: HashMap<T, u32>,
}

// Not derived: that would ask for a default name.
impl<T> Default for Names<T> {
    fn default() -> Self {
        Self { list: Vec::new(), numbers: HashMap::new() }
    }
}

impl<T: Clone + Eq + Hash> Names<T> {
    /// The number of a name. There are fewer than 2³² of them, as each takes memory twice.
    pub fn number(&mut self, name: &T) -> u32 {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        let number = self.list.len() as u32;
        self.list.push(name.clone());
        self.numbers.insert(name.clone(), number);
        number
    }

    /// The name of a number that was given out.
    pub fn name(&self, number: u32) -> &T {
        &self.list[number as usize]
    }
}
