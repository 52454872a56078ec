//! The system console: all guests and Bulkhead itself share one UART.
//!
//! Every row of the terminal starts with the name of its real owner, `[alpha] ` or `[bulkhead] `, and holds what one
//! owner printed. One guest has the *focus*: what is typed goes to it, and its unfinished lines are shown as they grow,
//! so that prompts, echo and line editors work. The other guests' lines appear when they are finished. When somebody
//! else must print while an unfinished line is on the screen, that line is broken off, and shown again from its start
//! when it goes on.
//!
//! What guests may do to the terminal is decided in the crate `terminal`, the same for the guest with the focus and for
//! the others: write and edit their own row. Full-screen programs do not work; whoever is given the keyboard cannot
//! forge a row either.
//!
//! Ctrl-] is the escape key: after it, a digit moves the focus where there are at most nine guests, and so does a
//! number or the beginning of a name with Enter; a second Ctrl-] goes to the guest; `?`, and whatever else, explains.
//!
//! What this module leaves out: the UART (a [`Sink`] takes the bytes, its driver in `arch` brings them), locking, and
//! the guests' emulated UARTs, which call [`Console::guest_put`] and [`Console::take`].

mod choice;
mod queue;
#[cfg(test)]
mod tests;

pub use crate::Sink;
use crate::{Row, Screen};
use choice::{Choice, Step};
use core::fmt;
use queue::Queue;

/// How many guests the console can serve.
pub const GUESTS_MAX: usize = 16;
/// The escape key: Ctrl-].
pub const ESCAPE_KEY: u8 = 0x1d;

/// A guest of the console, numbered from 0 in the order of [`Console::add_guest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestIndex(pub u8);

/// When the unfinished line of the guest with the focus is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfinishedLines {
    /// As it grows: for a person at a terminal.
    Shown,
    /// When it is finished, as every other guest's: for a log, in which no line then appears in pieces.
    Held,
}

/// The system console.
pub struct Console {
    guests: [Guest; GUESTS_MAX],
    guests_added: u8,
    focus: GuestIndex,
    screen: Screen,
    /// What Bulkhead itself prints.
    own: Row,
    unfinished_lines: UnfinishedLines,
    /// What has been typed after the escape key.
    choice: Option<Choice>,
}

/// What the console knows about one guest.
struct Guest {
    row: Row,
    input: Queue,
}

impl Guest {
    const fn new() -> Self {
        Self { row: Row::new(), input: Queue::new() }
    }

    fn name(&self) -> &[u8] {
        self.row.name()
    }
}

impl Console {
    /// A console without guests. The first guest added gets the focus.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            guests: [const { Guest::new() }; GUESTS_MAX],
            guests_added: 0,
            focus: GuestIndex(0),
            screen: Screen::new(),
            own: Row::own(),
            unfinished_lines: UnfinishedLines::Shown,
            choice: None,
        }
    }

    /// Adds a guest. Its prefix shows the first [`crate::NAME_BYTES_MAX`] bytes of `name`; bytes that are not
    /// printable ASCII show as `?`.
    ///
    /// Beyond [`GUESTS_MAX`] (which the manifest forbids) the index belongs to nobody: its output is dropped.
    pub fn add_guest(&mut self, name: &str) -> GuestIndex {
        let index = GuestIndex(self.guests_added);
        if let Some(guest) = self.guests.get_mut(usize::from(index.0)) {
            guest.row.set_owner(index.0, name);
            self.guests_added = self.guests_added.saturating_add(1);
        }
        index
    }

    /// Says how wide the terminal is.
    pub fn set_columns(&mut self, columns: u16) {
        self.screen.set_columns(columns);
    }

    /// Chooses when the unfinished line of the guest with the focus is shown; at first, as it grows.
    pub fn set_unfinished_lines(&mut self, when: UnfinishedLines) {
        self.unfinished_lines = when;
    }

    /// The guest that gets what is typed.
    #[must_use]
    pub const fn focus(&self) -> GuestIndex {
        self.focus
    }

    /// Takes a byte that `guest` sent.
    pub fn guest_put(&mut self, guest: GuestIndex, byte: u8, sink: &mut dyn Sink) {
        let is_live = self.is_live(guest);
        if let Some((screen, row)) = self.row_of(guest) {
            screen.print(row, byte, is_live, sink);
        }
    }

    /// Prints a line of Bulkhead's own: `[bulkhead] ` and `message`. Each row of a longer message gets the prefix.
    pub fn log_line(&mut self, message: fmt::Arguments<'_>, sink: &mut dyn Sink) {
        // The writer takes everything; an error could only come from a value's own Display, and the line then ends
        // there.
        let _ = fmt::Write::write_fmt(&mut self.own_rows(sink), message);
        self.own_rows(sink).put(b'\n');
    }

    /// Takes a byte that was typed. Gives the guest that has input waiting because of it, if any: its UART is to be
    /// polled.
    pub fn input(&mut self, byte: u8, sink: &mut dyn Sink) -> Option<GuestIndex> {
        if let Some(mut choice) = self.choice.take() {
            if byte == ESCAPE_KEY && choice.length == 0 {
                return self.type_for_focus(byte);
            }
            match choice.take(byte, self.guests.get(..usize::from(self.guests_added)).unwrap_or_default()) {
                Step::More => self.choice = Some(choice),
                Step::Guest(guest) => self.select(guest, sink),
                Step::Nobody => self.help_line(sink),
            }
            return None;
        }
        if byte == ESCAPE_KEY {
            self.choice = Some(Choice::NEW);
            return None;
        }
        self.type_for_focus(byte)
    }

    /// Gives the next byte typed for `guest`.
    pub fn take(&mut self, guest: GuestIndex) -> Option<u8> {
        self.guest_mut(guest)?.input.pop()
    }

    /// Whether something typed waits for `guest`.
    #[must_use]
    pub fn has_input(&self, guest: GuestIndex) -> bool {
        self.guest(guest).is_some_and(|guest| !guest.input.is_empty())
    }

    /// Ends the unfinished line of `guest`, as when the guest has stopped.
    pub fn flush_guest(&mut self, guest: GuestIndex, sink: &mut dyn Sink) {
        if let Some((screen, row)) = self.row_of(guest) {
            screen.finish(row, sink);
        }
    }

    /// Prints who gets the input and how to change that.
    pub fn help_line(&mut self, sink: &mut dyn Sink) {
        let (focus, count) = (usize::from(self.focus.0), usize::from(self.guests_added));
        let guests = self.guests.get(..count).unwrap_or_default();
        let mut out = OwnRows { screen: &mut self.screen, row: &mut self.own, sink };
        out.put_all(b"input goes to ");
        out.put_all(guests.get(focus).map_or(b"nobody", Guest::name));
        let how: &[u8] = if count > 9 { b"number or name and Enter" } else { b"digit" };
        out.put_all(b" (Ctrl-] then a ");
        out.put_all(how);
        out.put_all(b" switches: ");
        for (number, guest) in (1_u8..).zip(guests) {
            if number != 1 {
                out.put_all(b", ");
            }
            let tens = number / 10;
            if tens != 0 {
                out.put(b'0'.wrapping_add(tens));
            }
            out.put(b'0'.wrapping_add(number % 10));
            out.put(b' ');
            out.put_all(guest.name());
        }
        out.put_all(b")\n");
    }

    /// The screen and the row of `guest`.
    fn row_of(&mut self, guest: GuestIndex) -> Option<(&mut Screen, &mut Row)> {
        let guest = self.guests.get_mut(..usize::from(self.guests_added))?.get_mut(usize::from(guest.0))?;
        Some((&mut self.screen, &mut guest.row))
    }

    fn own_rows<'a>(&'a mut self, sink: &'a mut dyn Sink) -> OwnRows<'a> {
        OwnRows { screen: &mut self.screen, row: &mut self.own, sink }
    }

    fn guest(&self, index: GuestIndex) -> Option<&Guest> {
        self.guests.get(..usize::from(self.guests_added))?.get(usize::from(index.0))
    }

    fn guest_mut(&mut self, index: GuestIndex) -> Option<&mut Guest> {
        self.guests.get_mut(..usize::from(self.guests_added))?.get_mut(usize::from(index.0))
    }

    fn is_live(&self, guest: GuestIndex) -> bool {
        self.focus == guest && self.unfinished_lines == UnfinishedLines::Shown
    }

    fn type_for_focus(&mut self, byte: u8) -> Option<GuestIndex> {
        let focus = self.focus;
        self.guest_mut(focus)?.input.push(byte);
        Some(focus)
    }

    /// Gives `guest` the focus, if there is such a guest, and says who has it.
    fn select(&mut self, guest: GuestIndex, sink: &mut dyn Sink) {
        if self.guest(guest).is_some() {
            self.focus = guest;
        }
        self.help_line(sink);
        if self.is_live(guest)
            && let Some((screen, row)) = self.row_of(guest).filter(|(_, row)| !row.is_empty())
        {
            screen.bring(row, sink);
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes what Bulkhead itself says, in rows of its own.
struct OwnRows<'a> {
    screen: &'a mut Screen,
    row: &'a mut Row,
    sink: &'a mut dyn Sink,
}

impl OwnRows<'_> {
    #[inline(never)]
    fn put(&mut self, byte: u8) {
        self.screen.print(self.row, byte, false, self.sink);
    }

    #[inline(never)]
    fn put_all(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.put(*byte));
    }
}

impl fmt::Write for OwnRows<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.put_all(text.as_bytes());
        Ok(())
    }
}
