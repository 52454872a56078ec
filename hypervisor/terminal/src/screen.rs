//! The terminal: whose row the cursor is on, and where.

use crate::{
    BREAK_MARK, COLUMNS_DEFAULT, COLUMNS_MAX, COLUMNS_MIN, MARK, Sink, filter::Action, put_all, row::Row, style::Style,
};
use core::num::NonZero;

/// Columns that no text is written to: one for the mark of a break, and the last, at which terminals differ in when
/// they begin a new row.
const COLUMNS_SPARED: usize = 2;
/// What encloses a name in a prefix: `[`, `]` and a space.
const PREFIX_BYTES: usize = 3;
/// How many bytes each byte of a guest may bring to the terminal in the long run. A line editor writes some of its row
/// again with many a key.
const BYTES_EARNED: i32 = 16;
/// How many bytes a guest may have saved for that: its longest row with a colour for each character takes half of it.
const CREDIT_MAX: i32 = 4096;
/// How many it must have for its row to come back: more than most rows take, so that one comes back for a while.
const CREDIT_TO_SHOW: i32 = CREDIT_MAX / 4;
/// The number of no row.
const NOBODY: NonZero<u8> = NonZero::<u8>::MAX;
const BACKSPACE: u8 = 0x08;
const BELL: u8 = 0x07;
const TAB: u32 = b'\t' as u32;
const BLANK: u32 = b' ' as u32;

/// The terminal, as far as it is known from what was written to it.
pub struct Screen {
    columns: u16,
    /// The number of the row that the cursor is on; `None` at the start of an empty one.
    owner: Option<NonZero<u8>>,
    /// The cell of that row that the cursor is on.
    at: usize,
    /// The style in which the terminal writes.
    pen: Style,
    /// How many bytes may still be written for the row that is shown as it grows.
    credit: i32,
}

/// Counts what goes to the terminal.
struct Meter<'a> {
    sink: &'a mut dyn Sink,
    bytes: i32,
}

impl Sink for Meter<'_> {
    fn put(&mut self, byte: u8) {
        // A byte of a guest's brings a few rows at most.
        self.bytes = self.bytes.wrapping_add(1);
        self.sink.put(byte);
    }
}

impl Screen {
    /// A terminal of [`COLUMNS_DEFAULT`] columns with the cursor at the start of an empty row.
    #[must_use]
    pub const fn new() -> Self {
        Self { columns: COLUMNS_DEFAULT, owner: None, at: 0, pen: Style::PLAIN, credit: CREDIT_MAX }
    }

    /// One whose cursor may be anywhere in a row of somebody who is gone.
    #[must_use]
    pub const fn after_another() -> Self {
        Self { owner: Some(NOBODY), pen: Style::UNKNOWN, ..Self::new() }
    }

    /// Says how many columns the terminal has: at least [`COLUMNS_MIN`], and as many as [`COLUMNS_MAX`] are filled.
    pub fn set_columns(&mut self, columns: u16) {
        self.columns = columns.clamp(COLUMNS_MIN, COLUMNS_MAX);
    }

    /// Whether the cursor is on this row.
    #[must_use]
    pub fn shows(&self, row: &Row) -> bool {
        self.owner == Some(row.number)
    }

    /// How many columns of text fit a row.
    fn limit(&self, row: &Row) -> usize {
        usize::from(self.columns).saturating_sub(COLUMNS_SPARED + PREFIX_BYTES).saturating_sub(row.name().len())
    }

    /// Takes a byte that the owner of `row` printed. The row is shown as it grows if it `is_live`, and else when it is
    /// ended.
    ///
    /// A byte that moves the cursor may have the whole row written again, and so may any that follows another owner's
    /// row. So a live row earns what is written for it: one that has used that up is broken off, and shown again when
    /// it has earned some more, or when it is ended.
    pub fn print(&mut self, row: &mut Row, byte: u8, is_live: bool, sink: &mut dyn Sink) {
        if is_live {
            self.credit = self.credit.wrapping_add(BYTES_EARNED).min(CREDIT_MAX);
            let mut meter = Meter { sink, bytes: 0 };
            Writer { screen: self, row, sink: &mut meter }.take(byte, true);
            self.credit = self.credit.wrapping_sub(meter.bytes);
        } else if !row.append_plain(byte, self.limit(row)) {
            Writer { screen: self, row, sink }.take(byte, false);
        }
    }

    /// Ends the row, if there is anything in it, as when its owner has stopped.
    pub fn finish(&mut self, row: &mut Row, sink: &mut dyn Sink) {
        if !row.is_empty() || self.shows(row) {
            Writer { screen: self, row, sink }.end(false);
        }
        row.filter = crate::filter::Filter::new();
    }

    /// Shows `row`, which is live from now on, and puts the cursor where its owner has it.
    pub fn bring(&mut self, row: &mut Row, sink: &mut dyn Sink) {
        self.credit = CREDIT_MAX;
        Writer { screen: self, row, sink }.bring();
    }

    /// Leaves the row that the cursor is on, if it is on one, so that another can be shown.
    pub fn break_off(&mut self, sink: &mut dyn Sink) {
        if self.owner.take().is_some() {
            self.set_pen(Style::PLAIN, sink);
            put_all(b"\r\n", sink);
        }
    }

    fn set_pen(&mut self, style: Style, sink: &mut dyn Sink) {
        if self.pen != style {
            self.pen = style;
            style.show(sink);
        }
    }
}

/// Writes a row on the screen.
struct Writer<'a> {
    screen: &'a mut Screen,
    row: &'a mut Row,
    sink: &'a mut dyn Sink,
}

impl Writer<'_> {
    /// Takes what is no plain text at the end of a row that is shown later. Out of line, so that plain text needs no
    /// stack.
    #[inline(never)]
    fn take(&mut self, byte: u8, is_live: bool) {
        let mut action = self.row.filter.take(byte);
        if matches!(action, Action::Cut) {
            self.edit(Action::Put(MARK as u32), is_live);
            action = self.row.filter.take(byte);
        }
        match action {
            Action::Nothing | Action::Cut => return,
            Action::Decline if is_live => return,
            Action::Decline => action = Action::Put(MARK as u32),
            Action::Bell => {
                if is_live {
                    self.sink.put(BELL);
                }
                return;
            }
            Action::EndLine => {
                self.end(false);
                self.row.filter.style = Style::PLAIN;
                return;
            }
            // Mostly followed by the end of the line: the screen waits for what comes.
            Action::Return => return self.row.go_to(0),
            Action::EraseAll => self.row.go_to(0),
            Action::Put(TAB) => {
                action = Action::Put(BLANK);
                self.edit(action, is_live);
                while !self.row.is_at_stop() {
                    self.edit(action, is_live);
                }
                return;
            }
            Action::Put(_) | Action::Move(_) | Action::EraseToEnd => {}
        }
        self.edit(action, is_live);
    }

    fn is_shown(&self) -> bool {
        self.screen.shows(self.row)
    }

    /// Writes, moves the cursor or erases from it on, in the row and, if it `is_live`, on the screen.
    #[inline(never)]
    fn edit(&mut self, action: Action, is_live: bool) {
        let is_live = is_live && self.screen.credit > if self.is_shown() { 0 } else { CREDIT_TO_SHOW };
        if !is_live && self.is_shown() {
            self.screen.break_off(self.sink);
        }
        let was_shown = is_live && self.is_shown();
        if was_shown {
            // The way to the cursor leads over the cells that are on the screen, not over those that follow.
            self.move_to(self.row.cursor());
        }
        let columns = self.row.columns();
        match action {
            Action::Put(character) => self.put(character),
            Action::Move(cells) => self.row.go(cells),
            Action::EraseToEnd | Action::EraseAll => self.row.cut(),
            // Not shown, or done by `take`.
            Action::Nothing | Action::Cut | Action::Return | Action::EndLine | Action::Bell | Action::Decline => {}
        }
        // Else the row is another one now.
        let is_same = was_shown && self.is_shown();
        if is_live {
            self.bring();
        }
        if is_same {
            self.blank(columns.saturating_sub(self.row.columns()));
        }
    }

    /// Blanks so many columns from the cursor on.
    fn blank(&mut self, columns: usize) {
        if columns > 0 {
            self.set_pen(Style::PLAIN);
            (0..columns).for_each(|_| self.sink.put(b' '));
            (0..columns).for_each(|_| self.sink.put(BACKSPACE));
        }
    }

    /// Writes a character, in a new row if it has no room in this one.
    fn put(&mut self, character: u32) {
        let limit = self.screen.limit(self.row);
        if self.row.put(character, limit).is_err() {
            self.end(true);
            // The narrowest terminal has room for it.
            let _ = self.row.put(character, limit);
        }
    }

    /// Shows the row whole, if it is not on the screen already, and ends it; its line goes on if it `is_broken`.
    #[inline(never)]
    fn end(&mut self, is_broken: bool) {
        self.bring_text();
        let last = self.row.length().checked_sub(1).and_then(|last| self.row.cell(last));
        let is_like_broken = last.is_some_and(|last| last.character() == u32::from(BREAK_MARK));
        if is_broken || is_like_broken {
            self.move_to(self.row.length());
            self.set_pen(Style::PLAIN);
            self.sink.put(if is_broken { BREAK_MARK } else { b' ' });
        }
        self.screen.break_off(self.sink);
        self.row.clear();
    }

    #[inline(never)]
    fn bring(&mut self) {
        self.bring_text();
        self.move_to(self.row.cursor());
    }

    #[inline(never)]
    fn bring_text(&mut self) {
        if !self.is_shown() {
            self.screen.break_off(self.sink);
            self.screen.owner = Some(self.row.number);
            self.start_row();
            self.paint(self.row.length());
        }
    }

    /// Moves the cursor, which is on the row, to a cell of it. A backspace crosses what is known to take one column;
    /// for anything else the row is begun again.
    #[inline(never)]
    fn move_to(&mut self, cell: usize) {
        while cell < self.screen.at {
            self.screen.at = self.screen.at.saturating_sub(1);
            if self.row.cell(self.screen.at).is_some_and(|cell| cell.columns() == 1) {
                self.sink.put(BACKSPACE);
            } else {
                self.set_pen(Style::PLAIN);
                self.sink.put(b'\r');
                self.start_row();
            }
        }
        self.paint(cell);
    }

    #[inline(never)]
    fn start_row(&mut self) {
        self.screen.at = 0;
        self.sink.put(b'[');
        put_all(self.row.name(), self.sink);
        put_all(b"] ", self.sink);
    }

    /// Writes the cells from the cursor to `end`, as far as there are any.
    #[inline(never)]
    fn paint(&mut self, end: usize) {
        for cell in self.row.cells(self.screen.at, end) {
            if self.screen.pen != cell.style() {
                self.screen.set_pen(cell.style(), self.sink);
            }
            put_character(cell.character(), self.sink);
            self.screen.at = self.screen.at.saturating_add(1);
        }
    }

    #[inline(never)]
    fn set_pen(&mut self, style: Style) {
        self.screen.set_pen(style, self.sink);
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes a character in UTF-8 (RFC 3629 3).
fn put_character(code: u32, sink: &mut dyn Sink) {
    let further = match code {
        0..0x80 => return sink.put(code as u8),
        0x80..0x800 => 1,
        0x800..0x1_0000 => 2,
        0x1_0000.. => 3_u32,
    };
    let bits = |place: u32| (code >> place.wrapping_mul(6)) as u8;
    // A 1 for each byte, and a 0.
    sink.put(!(0x7f >> further) | bits(further));
    (0..further).rev().for_each(|place| sink.put(0x80 | bits(place) & 0x3f));
}
