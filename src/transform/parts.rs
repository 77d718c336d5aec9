//! The parts of a JSON text that a simple program reads, found in one pass that builds nothing else.
//!
//! The text is checked as a whole all the same. A part is what the interpreter would find at its path: of a
//! repeated key the last value counts, what is not there is null, and a step into a value that has no parts is
//! an error, which is noted and not raised, since the program may never look there.

use std::ops::Range;

use super::scan::{NotJson, Reader, Wrong};
use super::value::Value;

/// A step to a part of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    /// Negative ones count from the end of a list.
    Index(i64),
}

/// What stands at a path.
#[derive(Debug)]
pub(super) enum Part {
    Found(Value),
    /// A number, by its place in the text: most are only compared or written.
    Number(Range<usize>),
    /// A string that is ASCII and has no escapes, by its place in the text.
    Text(Range<usize>),
    /// The step with this number has no meaning there, such as that to a key of a number.
    Wrong(usize),
}

/// Paths that do not lead through each other, as a tree.
#[derive(Debug, Default)]
struct Tree {
    /// Number of the path that ends here. It has nothing below it.
    ends: Option<usize>,
    keys: Vec<(Key, Tree)>,
    items: Vec<(u64, Tree)>,
}

#[derive(Debug)]
struct Key {
    text: String,
    /// True if it can be written without escapes.
    is_plain: bool,
}

/// The parts that a program reads.
#[derive(Debug, Default)]
pub(super) struct Parts {
    tree: Tree,
    count: usize,
}

/// Where a path is found: a part, and the steps that are left from there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) part: usize,
    /// Steps up to the part.
    pub(super) depth: usize,
}

impl Parts {
    /// The parts for these paths, and the place of each.
    pub(super) fn of(paths: &[Vec<Step>]) -> (Parts, Vec<Place>) {
        // A path that leads through another one is found in that one's part. So does one with an index from a
        // list's end, whose length is not known before.
        let from_end = |step: &Step| matches!(step, Step::Index(index) if *index < 0);
        let cut = |path: &'_ Vec<Step>| -> usize {
            let known = path.iter().position(from_end).unwrap_or(path.len());
            let through = paths.iter().filter(|other| path.starts_with(other));
            through.map(Vec::len).chain([known]).min().unwrap_or(0)
        };
        let mut cuts: Vec<usize> = paths.iter().map(cut).collect();
        // What was cut may be what others lead through.
        let short: Vec<&[Step]> =
            paths.iter().zip(&cuts).filter_map(|(path, cut)| path.get(..*cut)).collect();
        for (path, cut) in paths.iter().zip(&mut cuts) {
            let through = short.iter().filter(|other| path.starts_with(other));
            *cut = through.map(|other| other.len()).min().unwrap_or(*cut);
        }
        let mut parts = Parts::default();
        let places = paths.iter().zip(cuts).map(|(path, depth)| {
            let part = parts.add(path.get(..depth).unwrap_or_default());
            Place { part, depth }
        });
        let places = places.collect();
        (parts, places)
    }

    fn add(&mut self, path: &[Step]) -> usize {
        let mut at = &mut self.tree;
        for step in path {
            at = match step {
                Step::Key(key) => below(&mut at.keys, |one| one.text == *key, || Key::of(key)),
                Step::Index(index) => {
                    let index = index.unsigned_abs();
                    below(&mut at.items, |one| *one == index, || index)
                }
            };
        }
        let part = *at.ends.get_or_insert(self.count);
        self.count = self.count.max(part + 1);
        part
    }

    /// Puts the parts of a text into `found`, and tells whether the text stands for a true value: neither null
    /// nor false.
    pub(super) fn read(&self, text: &[u8], found: &mut Vec<Part>) -> Result<bool, NotJson> {
        self.nothing(found);
        Reader::whole(text, |reader| {
            let is_true = !matches!(reader.peek(), Some(b'n' | b'f'));
            reader.parts(&self.tree, 0, found)?;
            Ok(is_true)
        })
    }

    /// The parts of null.
    pub(super) fn nothing(&self, found: &mut Vec<Part>) {
        found.clear();
        found.resize_with(self.count, null);
    }
}

impl Key {
    fn of(text: &str) -> Key {
        let is_plain = !text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\');
        Key { text: text.to_owned(), is_plain }
    }
}

/// The tree below this one for a step, made if it is not there.
fn below<K>(
    trees: &mut Vec<(K, Tree)>,
    is_it: impl Fn(&K) -> bool,
    key: impl FnOnce() -> K,
) -> &mut Tree {
    let nth = trees.iter().position(|(one, _)| is_it(one)).unwrap_or_else(|| {
        trees.push((key(), Tree::default()));
        trees.len() - 1
    });
    &mut trees[nth].1
}

impl Tree {
    /// Sets all parts here and below.
    fn set(&self, found: &mut [Part], part: &impl Fn() -> Part) {
        if let Some(place) = self.ends.and_then(|ends| found.get_mut(ends)) {
            *place = part();
        }
        self.set_below(found, part);
    }

    fn set_below(&self, found: &mut [Part], part: &impl Fn() -> Part) {
        self.keys.iter().for_each(|(_, tree)| tree.set(found, part));
        self.items.iter().for_each(|(_, tree)| tree.set(found, part));
    }
}

impl Reader<'_> {
    /// Finds the parts of a value, `depth` lists and objects deep, which is as many steps.
    fn parts(&mut self, tree: &Tree, depth: u32, found: &mut [Part]) -> Result<(), Wrong> {
        if let Some(place) = tree.ends.and_then(|ends| found.get_mut(ends)) {
            *place = self.part(depth)?;
            return Ok(());
        }
        let wrong = || Part::Wrong(depth as usize);
        if depth > 0 && matches!(self.peek(), Some(b'{' | b'[')) {
            // An earlier value of the same key does not count.
            tree.set_below(found, &null);
        }
        match self.peek() {
            Some(b'{') => {
                tree.items.iter().for_each(|(_, tree)| tree.set(found, &wrong));
                self.parts_of_object(tree, depth + 1, found)
            }
            Some(b'[') => {
                tree.keys.iter().for_each(|(_, tree)| tree.set(found, &wrong));
                self.parts_of_list(tree, depth + 1, found)
            }
            Some(b'n') => {
                tree.set_below(found, &null);
                self.skip(depth)
            }
            _ => {
                tree.set_below(found, &wrong);
                self.skip(depth)
            }
        }
    }

    /// A part that ends here.
    fn part(&mut self, depth: u32) -> Result<Part, Wrong> {
        let from = self.at;
        if let Some(rest) = self.quoted()
            && self.skip_plain_string(rest)
        {
            return Ok(Part::Text(from + 1..self.at - 1));
        }
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => {
                self.skip_number()?;
                Ok(Part::Number(from..self.at))
            }
            _ => self.value(depth).map(Part::Found),
        }
    }

    fn parts_of_object(
        &mut self,
        tree: &Tree,
        depth: u32,
        found: &mut [Part],
    ) -> Result<(), Wrong> {
        let mut more = self.open(depth, b'}')?;
        while more {
            let rest = self.key()?;
            let below = self.member(&tree.keys, rest)?;
            self.colon()?;
            match below {
                Some(below) => self.parts(below, depth, found)?,
                None => self.skip(depth)?,
            }
            more = self.more_members()?;
        }
        Ok(())
    }

    /// The tree for the key at which the reader stands. Goes behind the key. `rest` is what follows its
    /// quotation mark.
    #[inline]
    fn member<'k>(
        &mut self,
        keys: &'k [(Key, Tree)],
        rest: &[u8],
    ) -> Result<Option<&'k Tree>, Wrong> {
        for (key, tree) in keys {
            // As it is nearly always written.
            if key.is_plain && self.is_string(rest, &key.text) {
                return Ok(Some(tree));
            }
        }
        if self.skip_plain_string(rest) {
            return Ok(None);
        }
        let key = self.string()?;
        Ok(keys.iter().find(|(one, _)| one.text == key).map(|(_, tree)| tree))
    }

    fn parts_of_list(&mut self, tree: &Tree, depth: u32, found: &mut [Part]) -> Result<(), Wrong> {
        let mut more = self.open(depth, b']')?;
        let mut index = 0;
        while more {
            match tree.items.iter().find(|(one, _)| *one == index) {
                Some((_, below)) => self.parts(below, depth, found)?,
                None => self.skip(depth)?,
            }
            index += 1;
            more = self.more_items()?;
        }
        Ok(())
    }
}

fn null() -> Part {
    Part::Found(Value::Null)
}
