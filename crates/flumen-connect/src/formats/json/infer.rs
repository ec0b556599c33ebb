//! Which keys records have, and which types hold all their values.

use std::collections::HashMap;

use arrow::datatypes::{DataType, Field};
use flumen_core::read::ReadOptions;
use flumen_core::text::{TextOptions, TypeSet, classify};

use super::records::Block;
use super::{or_text, scan};

/// The keys of objects, with what their values are.
#[derive(Default)]
pub(super) struct Fields {
    kinds: HashMap<String, (Kind, First)>,
}

/// Where a key was first seen: the record, and the place in it. Columns come in this order, however many threads look.
type First = (u64, usize);

/// What the values at one place are.
#[derive(Default)]
struct Kind {
    scalars: Option<TypeSet>,
    object: Option<Fields>,
    list: Option<Box<Kind>>,
}

impl Fields {
    /// Takes in the records of `block`. What is no record is left out: it will be a bad row.
    pub(super) fn learn(&mut self, block: &Block, options: &ReadOptions) {
        let mut values = Vec::new();
        for (row, record) in (block.first_row..).zip(&block.records) {
            values.clear();
            let text = &block.text[record.start..record.end];
            if scan::record(text, options.flatten, &mut |key, value| values.push((key.to_owned(), value))).is_ok() {
                for (place, (key, value)) in values.iter().enumerate() {
                    self.add(key, value, (row, place), &options.text);
                }
            }
        }
    }

    fn add(&mut self, key: &str, value: &[u8], first: First, options: &TextOptions) {
        match self.kinds.get_mut(key) {
            Some((kind, seen)) => {
                *seen = first.min(*seen);
                kind.add(value, first.0, options);
            }
            None => {
                let mut kind = Kind::default();
                kind.add(value, first.0, options);
                self.kinds.insert(key.to_owned(), (kind, first));
            }
        }
    }

    /// Takes in what another has learnt.
    pub(super) fn merge(&mut self, other: Fields) {
        for (key, (kind, first)) in other.kinds {
            let (mine, seen) = self.kinds.entry(key).or_insert_with(|| (Kind::default(), first));
            *seen = first.min(*seen);
            mine.merge(kind);
        }
    }

    /// The columns: names and types, in the order in which they appear.
    pub(super) fn into_columns(self) -> Vec<(String, DataType)> {
        let mut all: Vec<_> =
            self.kinds.into_iter().map(|(key, (kind, first))| (first, key, kind.data_type())).collect();
        all.sort_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        all.into_iter().map(|(_, key, data_type)| (key, data_type)).collect()
    }
}

impl Kind {
    fn add(&mut self, value: &[u8], row: u64, options: &TextOptions) {
        match value.first() {
            None | Some(b'n') => {}
            Some(b'{') => {
                let object = self.object.get_or_insert_default();
                let mut place = 0;
                scan::members(value, &mut |key, value| {
                    object.add(&key, value, (row, place), options);
                    place += 1;
                });
            }
            Some(b'[') => {
                let item = self.list.get_or_insert_default();
                scan::elements(value, &mut |element| item.add(element, row, options));
            }
            Some(_) => {
                if let Some(types) = scalar(value, options) {
                    self.scalars = Some(self.scalars.unwrap_or(TypeSet::ANY).and(types));
                }
            }
        }
    }

    fn merge(&mut self, other: Kind) {
        if let Some(types) = other.scalars {
            self.scalars = Some(self.scalars.unwrap_or(TypeSet::ANY).and(types));
        }
        if let Some(object) = other.object {
            self.object.get_or_insert_default().merge(object);
        }
        if let Some(list) = other.list {
            self.list.get_or_insert_default().merge(*list);
        }
    }

    /// The type that holds all values. Where objects, lists and other values meet, it is their text.
    fn data_type(self) -> DataType {
        match (self.scalars, self.object, self.list) {
            (None, None, None) => DataType::Null,
            (Some(types), None, None) => types.data_type(),
            (None, Some(object), None) if !object.kinds.is_empty() => {
                let field = |(name, data_type)| Field::new(name, or_text(data_type), true);
                DataType::Struct(object.into_columns().into_iter().map(field).collect())
            }
            (None, None, Some(item)) => DataType::new_list(or_text(item.data_type()), true),
            _ => DataType::Utf8,
        }
    }
}

/// The types of a value that is neither an object nor a list; `None` if it means null.
///
/// A text that looks like a number is a text: JSON has numbers, and whoever wrote it did not use one. It has no dates, so
/// a text that looks like a date is one.
fn scalar(value: &[u8], options: &TextOptions) -> Option<TypeSet> {
    if value.first() != Some(&b'"') {
        return Some(classify(value, &TextOptions::default()));
    }
    let text = scan::text(value);
    if text.is_empty() {
        return Some(TypeSet::TEXT);
    }
    if options.is_null(text.as_bytes()) {
        return None;
    }
    Some(classify(text.as_bytes(), options).and(TypeSet::DATE.or(TypeSet::TIMESTAMP).or(TypeSet::TIMESTAMP_TZ)))
}
