//! The system console: all guests and Bulkhead itself share one UART.
//!
//! Every physical line starts with the name of its real owner, `[alpha] ` or `[bulkhead] `, and holds what one owner
//! printed. One guest has the *focus*: what is typed goes to it, and its unfinished lines are shown as they grow, so
//! that prompts and echo work. The other guests' lines appear when they are finished. When somebody else must print
//! while an unfinished line is on the screen, that line is broken off, and shown again from its start when it goes on.
//!
//! What guests may do to the terminal: text, tabs, UTF-8 and colours always pass, and a colour ends with its line.
//! Carriage return and backspace work within the line and never reach its prefix. Every other control character is
//! dropped, but for the guest with the focus: its escape sequences and bell pass, so that line editors and full-screen
//! programs work. Whoever is given the keyboard can therefore also draw anywhere on a terminal; without the focus no
//! guest can.
//!
//! Ctrl-] is the escape key: after it, a digit moves the focus where there are at most nine guests, and so does a
//! number or the beginning of a name with Enter; a second Ctrl-] goes to the guest; `?`, and whatever else, explains.
//!
//! What this module leaves out: the UART (a [`Sink`] takes the bytes, its driver in `arch` brings them), locking, and
//! the guests' emulated UARTs, which call [`Console::guest_put`] and [`Console::take`].

mod choice;
mod line;
mod queue;
#[cfg(test)]
mod tests;

use choice::{Choice, Step};
use core::fmt;
use line::Line;
use queue::Queue;

/// How many guests the console can serve.
pub const GUESTS_MAX: usize = 16;
/// How many bytes of a guest's name its prefix shows.
pub const NAME_BYTES_MAX: usize = 16;
/// The escape key: Ctrl-].
pub const ESCAPE_KEY: u8 = 0x1d;

/// The name in front of Bulkhead's own lines. No guest may have it.
pub const OWN_NAME: &str = "bulkhead";

/// Takes the console's output.
pub trait Sink {
    /// Takes one byte for the terminal.
    fn put(&mut self, byte: u8);
}

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
    /// The guest whose unfinished line the cursor is on; `None` when the cursor is at the start of an empty line.
    on_screen: Option<GuestIndex>,
    unfinished_lines: UnfinishedLines,
    /// What has been typed after the escape key.
    choice: Option<Choice>,
}

/// What the console knows about one guest.
struct Guest {
    name: [u8; NAME_BYTES_MAX],
    name_bytes: usize,
    line: Line,
    /// Whether the guest's last byte was a carriage return: what it means depends on the next one.
    returned: bool,
    /// Whether the guest has sent nothing since the last [`Console::flush_idle`].
    quiet: bool,
    input: Queue,
}

impl Guest {
    const fn new() -> Self {
        Self {
            name: [0; NAME_BYTES_MAX],
            name_bytes: 0,
            line: Line::new(),
            returned: false,
            quiet: true,
            input: Queue::new(),
        }
    }

    fn name(&self) -> &[u8] {
        self.name.get(..self.name_bytes).unwrap_or_default()
    }

    /// Shows the prefix and as much of the line as there is.
    fn show(&self, sink: &mut impl Sink) {
        self.show_prefix(sink);
        self.line.show(sink);
    }

    fn show_prefix(&self, sink: &mut impl Sink) {
        put_prefix(self.name(), sink);
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
            on_screen: None,
            unfinished_lines: UnfinishedLines::Shown,
            choice: None,
        }
    }

    /// Adds a guest. Its prefix shows the first [`NAME_BYTES_MAX`] bytes of `name`; bytes that are not printable ASCII
    /// show as `?`.
    ///
    /// Beyond [`GUESTS_MAX`] (which the manifest forbids) the index belongs to nobody: its output is dropped.
    pub fn add_guest(&mut self, name: &str) -> GuestIndex {
        let index = GuestIndex(self.guests_added);
        if let Some(guest) = self.guests.get_mut(usize::from(index.0)) {
            for (slot, byte) in guest.name.iter_mut().zip(name.bytes()) {
                *slot = if byte.is_ascii_graphic() { byte } else { b'?' };
            }
            guest.name_bytes = name.len().min(NAME_BYTES_MAX);
            self.guests_added = self.guests_added.saturating_add(1);
        }
        index
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
    pub fn guest_put(&mut self, guest: GuestIndex, byte: u8, sink: &mut impl Sink) {
        let live = self.is_live(guest);
        let Some(owner) = self.guest_mut(guest) else { return };
        owner.quiet = false;
        if byte == b'\r' {
            owner.returned = true;
            return;
        }
        let start_over = core::mem::take(&mut owner.returned);
        if byte == b'\n' {
            self.end_line(guest, sink);
            return;
        }
        if start_over {
            owner.line.start_over();
            if self.on_screen == Some(guest) {
                sink.put(b'\r');
                self.show_prefix_of(guest, sink);
            }
        }
        self.make_room(guest, sink);
        if live {
            self.bring_on_screen(guest, sink);
        }
        let Some(owner) = self.guest_mut(guest) else { return };
        let passes = owner.line.take(byte);
        if live && passes {
            sink.put(byte);
        }
    }

    /// Prints a line of Bulkhead's own: `[bulkhead] ` and `message`. Each line of a longer message gets the prefix.
    pub fn log_line(&mut self, message: fmt::Arguments<'_>, sink: &mut impl Sink) {
        self.break_off(sink);
        put_prefix(OWN_NAME.as_bytes(), sink);
        // The writer takes everything; an error could only come from a value's own Display, and the line then ends
        // there.
        let _ = fmt::Write::write_fmt(&mut OwnLines { sink }, message);
        put_newline(sink);
    }

    /// Takes a byte that was typed. Gives the guest that has input waiting because of it, if any: its UART is to be
    /// polled.
    pub fn input(&mut self, byte: u8, sink: &mut impl Sink) -> Option<GuestIndex> {
        if let Some(choice) = self.choice.take() {
            if byte == ESCAPE_KEY && choice.length == 0 {
                return self.type_for_focus(byte);
            }
            match choice.take(byte, self.guests.get(..usize::from(self.guests_added)).unwrap_or_default()) {
                Step::More(choice) => self.choice = Some(choice),
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
    pub fn flush_guest(&mut self, guest: GuestIndex, sink: &mut impl Sink) {
        let Some(owner) = self.guest_mut(guest) else { return };
        owner.returned = false;
        if !owner.line.is_empty() || self.on_screen == Some(guest) {
            self.end_line(guest, sink);
        }
    }

    /// Shows the unfinished lines of guests that have sent nothing since the last call. Call it now and then: it makes
    /// prompts of guests without the focus appear, and brings back a line that was broken off.
    pub fn flush_idle(&mut self, sink: &mut impl Sink) {
        for index in (0..self.guests_added).map(GuestIndex) {
            let live = self.is_live(index);
            let Some(guest) = self.guest_mut(index) else { continue };
            // A carriage return may still become the end of the line.
            let idle = core::mem::replace(&mut guest.quiet, true) && !guest.returned;
            if idle && !guest.line.is_empty() && !live {
                self.end_line(index, sink);
            }
        }
        // Last, so that the cursor stays where the person at the keyboard expects it.
        if self.is_live(self.focus) && self.guest(self.focus).is_some_and(|guest| guest.quiet && !guest.line.is_empty())
        {
            self.bring_on_screen(self.focus, sink);
        }
    }

    /// Prints who gets the input and how to change that.
    pub fn help_line(&mut self, sink: &mut impl Sink) {
        self.break_off(sink);
        put_prefix(OWN_NAME.as_bytes(), sink);
        put_all(b"input goes to ", sink);
        put_all(self.guest(self.focus).map_or(b"nobody", Guest::name), sink);
        let how: &[u8] = if self.guests_added > 9 { b"number or name and Enter" } else { b"digit" };
        put_all(b" (Ctrl-] then a ", sink);
        put_all(how, sink);
        put_all(b" switches: ", sink);
        for (number, guest) in (1_u8..).zip(self.guests.iter().take(usize::from(self.guests_added))) {
            if number != 1 {
                put_all(b", ", sink);
            }
            let tens = number / 10;
            if tens != 0 {
                sink.put(b'0'.wrapping_add(tens));
            }
            sink.put(b'0'.wrapping_add(number % 10));
            sink.put(b' ');
            put_all(guest.name(), sink);
        }
        sink.put(b')');
        put_newline(sink);
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

    fn show_prefix_of(&self, guest: GuestIndex, sink: &mut impl Sink) {
        if let Some(guest) = self.guest(guest) {
            guest.show_prefix(sink);
        }
    }

    /// Ends an unfinished line that is on the screen, so that somebody else can print.
    fn break_off(&mut self, sink: &mut impl Sink) {
        if let Some(guest) = self.on_screen.take() {
            if let Some(guest) = self.guest(guest) {
                guest.line.end_colours(sink);
            }
            put_newline(sink);
        }
    }

    /// Puts the cursor at the end of the unfinished line of `guest`.
    fn bring_on_screen(&mut self, guest: GuestIndex, sink: &mut impl Sink) {
        if self.on_screen != Some(guest) {
            self.break_off(sink);
            if let Some(owner) = self.guest(guest) {
                owner.show(sink);
                self.on_screen = Some(guest);
            }
        }
    }

    /// Shows the line of `guest` whole, if it is not on the screen already, and ends it.
    fn end_line(&mut self, guest: GuestIndex, sink: &mut impl Sink) {
        self.bring_on_screen(guest, sink);
        self.break_off(sink);
        if let Some(owner) = self.guest_mut(guest) {
            owner.line.clear();
        }
    }

    /// Ends a line that has grown too long.
    fn make_room(&mut self, guest: GuestIndex, sink: &mut impl Sink) {
        if self.guest(guest).is_some_and(|guest| guest.line.is_full()) {
            self.end_line(guest, sink);
        }
    }

    fn type_for_focus(&mut self, byte: u8) -> Option<GuestIndex> {
        let focus = self.focus;
        self.guest_mut(focus)?.input.push(byte);
        Some(focus)
    }

    /// Gives `guest` the focus, if there is such a guest, and says who has it.
    fn select(&mut self, guest: GuestIndex, sink: &mut impl Sink) {
        if self.guest(guest).is_some() {
            self.focus = guest;
        }
        self.help_line(sink);
        if self.is_live(guest) && self.guest(guest).is_some_and(|guest| !guest.line.is_empty()) {
            self.bring_on_screen(guest, sink);
        }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

#[inline(never)]
fn put_all(bytes: &[u8], sink: &mut impl Sink) {
    for byte in bytes {
        sink.put(*byte);
    }
}

fn put_newline(sink: &mut impl Sink) {
    put_all(b"\r\n", sink);
}

fn put_prefix(name: &[u8], sink: &mut impl Sink) {
    sink.put(b'[');
    put_all(name, sink);
    put_all(b"] ", sink);
}

/// Writes a message of Bulkhead's own, with a prefix for each further line.
struct OwnLines<'a, S> {
    sink: &'a mut S,
}

impl<S: Sink> fmt::Write for OwnLines<'_, S> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            match byte {
                b'\n' => {
                    put_newline(self.sink);
                    put_prefix(OWN_NAME.as_bytes(), self.sink);
                }
                b'\t' | b' '..=b'~' | 0x80.. => self.sink.put(byte),
                // A message may quote what a guest sent.
                _ => {}
            }
        }
        Ok(())
    }
}
