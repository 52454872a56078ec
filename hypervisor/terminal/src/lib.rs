//! What guests print, as it may reach the operator's terminal.
//!
//! Several guests share one terminal. Each row of it begins with the name of its real owner, `[alpha] `, and holds what
//! that one owner printed:
//!
//! - `Filter` takes a guest's bytes one by one and says what they ask of the guest's own row. What it does not know,
//!   it answers with a visible mark, [`MARK`].
//! - [`Row`] does it: the cells of the row that the guest has not ended yet.
//! - [`Screen`] shows rows. It alone writes to the terminal.
//!
//! So a guest's bytes never reach the terminal. What does are characters out of cells, and five things that
//! [`Screen`] writes itself: a prefix, the end of a row, a carriage return with the prefix again, a backspace over one
//! cell of ASCII, and a Select Graphic Rendition with fixed parameters. No removal can form a new sequence, because
//! nothing is cut out of a guest's text: the filter is its own fixed point, and a test says so.
//!
//! A row is shorter than the terminal is wide, so the terminal never begins one by itself: ASCII counts for one column
//! and everything else for two, which no terminal exceeds. The last column stays free, so whether the terminal wraps
//! there (DECAWM) changes nothing, and is left as it is: switched off, it would have to be switched on again by
//! somebody. A terminal narrower than [`COLUMNS_MIN`], or than what was said of it, is none that this crate knows. A
//! longer line goes on in further rows with the same prefix; each but the last ends in [`BREAK_MARK`], and a line that
//! ends in that character of its own has a space after it.
//!
//! The terminal is taken for one that understands UTF-8. [`console`] has them all on one
//! UART, and says who has the keyboard; [`repeated`] says how much is logged of what a guest repeats. What this crate
//! leaves out: devices.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

#[cfg(test)]
extern crate std;

pub mod console;
mod filter;
pub mod repeated;
mod row;
mod screen;
mod style;
#[cfg(test)]
mod tests;

pub use row::Row;
pub use screen::Screen;

/// The name in front of Bulkhead's own rows. No guest may have it.
pub const OWN_NAME: &str = "bulkhead";
/// How many bytes of a name a prefix shows.
pub const NAME_BYTES_MAX: usize = 16;
/// What stands for something that was removed.
pub const MARK: char = '\u{fffd}';
/// What ends a row whose line goes on in the next row of the same owner.
pub const BREAK_MARK: u8 = b'\\';
/// The width of a terminal of which nothing else is known, in columns.
pub const COLUMNS_DEFAULT: u16 = 80;
/// The narrowest terminal that rows are made for: beside the longest prefix, a character or three.
pub const COLUMNS_MIN: u16 = 24;
/// The widest terminal whose rows are filled.
pub const COLUMNS_MAX: u16 = 160;

/// Takes what goes to the terminal.
pub trait Sink {
    /// Takes one byte.
    fn put(&mut self, byte: u8);
}

#[inline(never)]
pub(crate) fn put_all(bytes: &[u8], sink: &mut dyn Sink) {
    for byte in bytes {
        sink.put(*byte);
    }
}

/// The owner of a row and its text, without the mark of a break, and whether there is one. `None` where a row has no
/// owner, as those of firmware, of QEMU, or of a Bulkhead that fails.
#[must_use]
pub fn parse(row: &str) -> Option<(&str, &str, bool)> {
    let (name, text) = row.strip_prefix('[')?.split_once("] ")?;
    let is_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_name {
        return None;
    }
    Some(text.strip_suffix(char::from(BREAK_MARK)).map_or((name, text, false), |text| (name, text, true)))
}
