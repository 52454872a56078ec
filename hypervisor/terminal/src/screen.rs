//! The terminal: whose row the cursor is on, and where.

use crate::{
    BREAK_MARK, COLUMNS_DEFAULT, COLUMNS_MAX, COLUMNS_MIN, MARK, Sink, filter::Action, row::Row, style::Style,
};

/// Columns that no text is written to: one for the mark of a break, and the last, at which terminals differ in when
/// they begin a new row.
const COLUMNS_SPARED: usize = 2;
/// What encloses a name in a prefix: `[`, `]` and a space.
const PREFIX_BYTES: usize = 3;
/// The number of no row.
const NOBODY: u8 = u8::MAX - 1;
const BACKSPACE: u8 = 0x08;
const BELL: u8 = 0x07;
const TAB: u32 = b'\t' as u32;
const BLANK: u32 = b' ' as u32;

/// The terminal, as far as it is known from what was written to it.
pub struct Screen {
    columns: u16,
    /// The number of the row that the cursor is on; `None` at the start of an empty one.
    owner: Option<u8>,
    /// The cell of that row that the cursor is on.
    at: usize,
    /// The style in which the terminal writes.
    pen: Style,
}

impl Screen {
    /// A terminal of [`COLUMNS_DEFAULT`] columns with the cursor at the start of an empty row.
    #[must_use]
    pub const fn new() -> Self {
        Self { columns: COLUMNS_DEFAULT, owner: None, at: 0, pen: Style::PLAIN }
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
    pub fn print(&mut self, row: &mut Row, byte: u8, is_live: bool, sink: &mut dyn Sink) {
        if !is_live && row.append_plain(byte, self.limit(row)) {
            return;
        }
        let mut action = row.filter.take(byte);
        if matches!(action, Action::Cut) {
            self.act(row, Action::Put(MARK as u32), is_live, sink);
            action = row.filter.take(byte);
        }
        let is_tab = matches!(action, Action::Put(TAB));
        loop {
            self.act(row, if is_tab { Action::Put(BLANK) } else { action }, is_live, sink);
            if !is_tab || row.is_at_stop() {
                break;
            }
        }
    }

    /// Ends the row, if there is anything in it, as when its owner has stopped.
    pub fn finish(&mut self, row: &mut Row, sink: &mut dyn Sink) {
        if !row.is_empty() || self.shows(row) {
            self.end(row, false, sink);
        }
        row.filter = crate::filter::Filter::new();
    }

    /// Shows `row` and puts the cursor where its owner has it.
    pub fn bring(&mut self, row: &Row, sink: &mut dyn Sink) {
        self.bring_text(row, sink);
        self.move_to(row, row.cursor(), sink);
    }

    /// Leaves the row that the cursor is on, if it is on one, so that another can be shown.
    pub fn break_off(&mut self, sink: &mut dyn Sink) {
        if self.owner.take().is_some() {
            self.set_pen(Style::PLAIN, sink);
            put_all(b"\r\n", sink);
        }
    }

    fn bring_text(&mut self, row: &Row, sink: &mut dyn Sink) {
        if !self.shows(row) {
            self.break_off(sink);
            self.owner = Some(row.number);
            self.start_row(row, sink);
            self.paint(row, row.length(), sink);
        }
    }

    fn act(&mut self, row: &mut Row, action: Action, is_live: bool, sink: &mut dyn Sink) {
        let mut waits = false;
        match action {
            Action::Nothing | Action::Cut => return,
            Action::Decline if is_live => return,
            Action::EndLine => {
                self.end(row, false, sink);
                row.filter.style = Style::PLAIN;
                return;
            }
            Action::Bell => {
                if is_live {
                    sink.put(BELL);
                }
                return;
            }
            // Mostly followed by the end of the line.
            Action::Return => waits = true,
            Action::EraseAll => row.go_to(0),
            Action::Put(_) | Action::Decline | Action::Move(_) | Action::EraseToEnd => {}
        }
        waits |= !is_live || !self.shows(row);
        if !waits {
            // The way to the cursor leads over the cells that are on the screen, not over those that follow.
            self.move_to(row, row.cursor(), sink);
        }
        let columns = row.columns();
        match action {
            Action::Put(character) => self.put(row, character, sink),
            Action::Decline => self.put(row, MARK as u32, sink),
            Action::Move(cells) => row.go(cells),
            Action::EraseAll | Action::EraseToEnd => row.cut(),
            Action::Return => row.go_to(0),
            Action::Nothing | Action::Cut | Action::EndLine | Action::Bell => {}
        }
        if is_live && !self.shows(row) {
            self.bring(row, sink);
        } else if !waits {
            self.move_to(row, row.cursor(), sink);
            self.blank(columns.saturating_sub(row.columns()), sink);
        }
    }

    /// Blanks so many columns from the cursor on.
    fn blank(&mut self, columns: usize, sink: &mut dyn Sink) {
        if columns > 0 {
            self.set_pen(Style::PLAIN, sink);
            for byte in [b' ', BACKSPACE] {
                (0..columns).for_each(|_| sink.put(byte));
            }
        }
    }

    /// Writes a character, in a new row if it has no room in this one.
    fn put(&mut self, row: &mut Row, character: u32, sink: &mut dyn Sink) {
        let limit = self.limit(row);
        if row.put(character, limit).is_err() {
            self.end(row, true, sink);
            // The narrowest terminal has room for it.
            let _ = row.put(character, limit);
        }
    }

    /// Shows the row whole, if it is not on the screen already, and ends it; its line goes on if it `is_broken`.
    fn end(&mut self, row: &mut Row, is_broken: bool, sink: &mut dyn Sink) {
        self.bring_text(row, sink);
        let last = row.length().checked_sub(1).and_then(|last| row.cell(last));
        let is_like_broken = last.is_some_and(|last| last.character() == u32::from(BREAK_MARK));
        if is_broken || is_like_broken {
            self.move_to(row, row.length(), sink);
            self.set_pen(Style::PLAIN, sink);
            sink.put(if is_broken { BREAK_MARK } else { b' ' });
        }
        self.break_off(sink);
        row.clear();
    }

    /// Moves the cursor, which is on `row`, to a cell of it. A backspace crosses what is known to take one column; for
    /// anything else the row is begun again.
    fn move_to(&mut self, row: &Row, cell: usize, sink: &mut dyn Sink) {
        while cell < self.at {
            self.at = self.at.saturating_sub(1);
            if row.cell(self.at).is_some_and(|cell| cell.columns() == 1) {
                sink.put(BACKSPACE);
            } else {
                self.start_row_over(row, sink);
            }
        }
        self.paint(row, cell, sink);
    }

    fn start_row_over(&mut self, row: &Row, sink: &mut dyn Sink) {
        self.set_pen(Style::PLAIN, sink);
        sink.put(b'\r');
        self.start_row(row, sink);
    }

    fn start_row(&mut self, row: &Row, sink: &mut dyn Sink) {
        self.at = 0;
        sink.put(b'[');
        put_all(row.name(), sink);
        put_all(b"] ", sink);
    }

    /// Writes the cells from the cursor to `end`, as far as there are any.
    fn paint(&mut self, row: &Row, end: usize, sink: &mut dyn Sink) {
        while let Some(cell) = row.cell(self.at).filter(|_| self.at < end) {
            self.set_pen(cell.style(), sink);
            put_character(cell.character(), sink);
            self.at = self.at.saturating_add(1);
        }
    }

    fn set_pen(&mut self, style: Style, sink: &mut dyn Sink) {
        if self.pen != style {
            self.pen = style;
            style.show(sink);
        }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(never)]
pub(crate) fn put_all(bytes: &[u8], sink: &mut dyn Sink) {
    for byte in bytes {
        sink.put(*byte);
    }
}

/// Writes a character in UTF-8 (RFC 3629 3).
fn put_character(code: u32, sink: &mut dyn Sink) {
    let (lead, further) = match code {
        0..0x80 => return sink.put(code as u8),
        0x80..0x800 => (0xc0, 1),
        0x800..0x1_0000 => (0xe0, 2),
        0x1_0000.. => (0xf0_u8, 3_u32),
    };
    let bits = |place: u32| (code >> place.saturating_mul(6)) as u8;
    sink.put(lead | bits(further));
    (0..further).rev().for_each(|place| sink.put(0x80 | bits(place) & 0x3f));
}
