//! The row that an owner has not ended yet.

use crate::{COLUMNS_MAX, NAME_BYTES_MAX, OWN_NAME, filter::Filter, style::Style};
use core::num::NonZero;

const CELLS_MAX: usize = COLUMNS_MAX as usize;
/// The distance of tab stops, in cells.
const TAB: usize = 8;
/// The number of Bulkhead's own row, and of one that belongs to nobody.
const OWN_NUMBER: NonZero<u8> = NonZero::<u8>::MIN;
/// [`OWN_NAME`], as a row has it.
const OWN_NAME_BYTES: [u8; NAME_BYTES_MAX] = *b"bulkhead\0\0\0\0\0\0\0\0";

/// The number of a character, and its style above it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell(u32);

impl Cell {
    const STYLE_SHIFT: u32 = 21;

    const fn new(character: u32, style: Style) -> Self {
        Self(character | (style.bits() as u32) << Self::STYLE_SHIFT)
    }

    pub(crate) const fn character(self) -> u32 {
        self.0 & ((1 << Self::STYLE_SHIFT) - 1)
    }

    pub(crate) const fn style(self) -> Style {
        Style::from_bits((self.0 >> Self::STYLE_SHIFT) as u8)
    }

    /// The columns that it takes at most. ASCII takes one on every terminal.
    pub(crate) const fn columns(self) -> usize {
        if self.character() < 0x80 { 1 } else { 2 }
    }
}

/// A character has no room.
pub(crate) struct Full;

/// The row that an owner has not ended yet, and what its bytes mean so far.
pub struct Row {
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
    /// Tells rows apart.
    pub(crate) number: NonZero<u8>,
    pub(crate) filter: Filter,
    cells: [Cell; CELLS_MAX],
    length: usize,
    /// The columns that the cells take at most.
    columns: usize,
    /// The cell that is written next: one of the text, or the one behind it.
    cursor: usize,
}

impl Row {
    /// An empty row that belongs to nobody.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            name: [0; NAME_BYTES_MAX],
            name_bytes: 0,
            number: OWN_NUMBER,
            filter: Filter::new(),
            cells: [Cell(0); CELLS_MAX],
            length: 0,
            columns: 0,
            cursor: 0,
        }
    }

    /// The row of Bulkhead itself.
    #[must_use]
    pub const fn own() -> Self {
        Self { name: OWN_NAME_BYTES, name_bytes: OWN_NAME.len(), ..Self::new() }
    }

    /// Gives the row its owner. `number` is another one for each row of a screen, and below 253. The prefix shows the
    /// first [`NAME_BYTES_MAX`] bytes of `name`; bytes that are not printable ASCII show as `?`.
    pub fn set_owner(&mut self, number: u8, name: &str) {
        self.number = OWN_NUMBER.saturating_add(number.saturating_add(1));
        for (slot, byte) in self.name.iter_mut().zip(name.bytes()) {
            *slot = if byte.is_ascii_graphic() { byte } else { b'?' };
        }
        self.name_bytes = name.len().min(NAME_BYTES_MAX);
    }

    /// The owner's name, as it is shown.
    #[must_use]
    pub fn name(&self) -> &[u8] {
        self.name.get(..self.name_bytes).unwrap_or_default()
    }

    /// Whether there is no text.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(crate) const fn cursor(&self) -> usize {
        self.cursor
    }

    pub(crate) const fn length(&self) -> usize {
        self.length
    }

    pub(crate) const fn columns(&self) -> usize {
        self.columns
    }

    pub(crate) fn cell(&self, index: usize) -> Option<Cell> {
        self.cells.get(index).copied().filter(|_| index < self.length)
    }

    /// The cells from `start` to `end`, as far as there are any.
    pub(crate) fn cells(&self, start: usize, end: usize) -> &[Cell] {
        self.cells.get(start..end.min(self.length)).unwrap_or_default()
    }

    /// Forgets the text.
    pub(crate) fn clear(&mut self) {
        (self.length, self.columns, self.cursor) = (0, 0, 0);
    }

    /// Appends `byte` if it is a plain character, the cursor is at the end, and there is room: the common case, in few
    /// instructions.
    #[inline]
    pub(crate) fn append_plain(&mut self, byte: u8, limit: usize) -> bool {
        let fits = matches!(byte, b' '..=b'~')
            && self.filter.is_between()
            && self.cursor == self.length
            && self.columns < limit;
        if fits && let Some(slot) = self.cells.get_mut(self.length) {
            *slot = Cell::new(u32::from(byte), self.filter.style);
            self.length = self.length.saturating_add(1);
            self.columns = self.columns.saturating_add(1);
            self.cursor = self.length;
            return true;
        }
        false
    }

    /// Writes the character of this number at the cursor, unless the row would have more than `limit` columns. In place
    /// of one of another width, it takes that of the whole rest.
    pub(crate) fn put(&mut self, character: u32, limit: usize) -> Result<(), Full> {
        let cell = Cell::new(character, self.filter.style);
        if self.cell(self.cursor).is_some_and(|old| old.columns() != cell.columns()) {
            self.cut();
        }
        let is_new = self.cursor >= self.length;
        let columns = self.columns.saturating_add(if is_new { cell.columns() } else { 0 });
        let slot = self.cells.get_mut(self.cursor).filter(|_| columns <= limit).ok_or(Full)?;
        *slot = cell;
        self.columns = columns;
        self.cursor = self.cursor.saturating_add(1);
        self.length = self.length.max(self.cursor);
        Ok(())
    }

    /// Moves the cursor to a cell of the text, or behind it.
    pub(crate) fn go_to(&mut self, cell: usize) {
        self.cursor = cell.min(self.length);
    }

    /// Moves the cursor by so many cells.
    pub(crate) fn go(&mut self, cells: i32) {
        self.go_to(self.cursor.saturating_add_signed(cells as isize));
    }

    /// Whether the cursor is at a tab stop.
    pub(crate) const fn is_at_stop(&self) -> bool {
        self.cursor.is_multiple_of(TAB)
    }

    /// Forgets the text from the cursor on.
    pub(crate) fn cut(&mut self) {
        while let Some(last) = self.length.checked_sub(1).filter(|last| *last >= self.cursor) {
            self.columns = self.columns.saturating_sub(self.cell(last).map_or(0, Cell::columns));
            self.length = last;
        }
    }
}

impl Default for Row {
    fn default() -> Self {
        Self::new()
    }
}
