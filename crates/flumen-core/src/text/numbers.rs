//! A column of numbers as it grows: values, and a bit for each that says whether there is one.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowPrimitiveType, PrimitiveArray};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::DataType;

use super::word::Piece;

pub(super) struct Numbers<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    /// The bits of the values in whole sixty-fours.
    valid: Vec<u64>,
    /// Those of the others.
    last: u64,
    data_type: DataType,
}

impl<T: ArrowPrimitiveType> Numbers<T> {
    /// An empty column of `data_type`, which is stored as `T`.
    pub fn new(data_type: &DataType, rows: usize) -> Self {
        let valid = Vec::with_capacity(rows / 64 + 1);
        Self { values: Vec::with_capacity(rows), valid, last: 0, data_type: data_type.clone() }
    }

    #[inline(always)]
    pub fn push(&mut self, value: Option<T::Native>) {
        let bit = self.values.len() % 64;
        self.last |= u64::from(value.is_some()) << bit;
        self.values.push(value.unwrap_or_default());
        if bit == 63 {
            self.valid.push(std::mem::take(&mut self.last));
        }
    }

    /// Appends what `fast` makes of each piece, or else `full`.
    #[inline(always)]
    pub fn extend<'a>(
        &mut self,
        pieces: impl ExactSizeIterator<Item = Piece<'a>>,
        fast: impl Fn(Piece<'a>) -> Option<T::Native>,
        mut full: impl FnMut(usize, &'a [u8]) -> Option<T::Native>,
    ) {
        let from = self.values.len();
        self.values.resize(from + pieces.len(), T::Native::default());
        let (mut last, mut bit) = (self.last, from % 64);
        for (place, (piece, value)) in pieces.zip(&mut self.values[from..]).enumerate() {
            let parsed = match fast(piece) {
                Some(number) => Some(number),
                None if piece.is_empty() => None,
                None => full(place, piece.bytes()),
            };
            *value = parsed.unwrap_or_default();
            last |= u64::from(parsed.is_some()) << bit;
            bit += 1;
            if bit == 64 {
                self.valid.push(std::mem::take(&mut last));
                bit = 0;
            }
        }
        self.last = last;
    }

    pub fn finish(&mut self) -> ArrayRef {
        let values = std::mem::take(&mut self.values);
        let mut valid = std::mem::take(&mut self.valid);
        valid.push(std::mem::take(&mut self.last));
        let ones: usize = valid.iter().map(|word| word.count_ones() as usize).sum();
        let nulls = (ones < values.len()).then(|| {
            // Arrow counts bits from the first byte on, whatever the processor's order of bytes.
            valid.iter_mut().for_each(|word| *word = word.to_le());
            NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(valid), 0, values.len()))
        });
        Arc::new(PrimitiveArray::<T>::new(ScalarBuffer::from(values), nulls).with_data_type(self.data_type.clone()))
    }
}
