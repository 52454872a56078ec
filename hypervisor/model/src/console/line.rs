//! A guest's unfinished line, and what of it may reach the terminal.

use super::{Sink, put_all};

/// How many bytes a line holds; a longer one is printed in parts.
pub(super) const BYTES_MAX: usize = 256;

const ESCAPE: u8 = 0x1b;
const BELL: u8 = 0x07;
const BACKSPACE: u8 = 0x08;
/// Select Graphic Rendition without parameters: back to the terminal's own colours (ECMA-48 8.3.117).
const COLOURS_OFF: &[u8] = b"\x1b[m";

/// An unfinished line.
pub(super) struct Line {
    bytes: [u8; BYTES_MAX],
    length: usize,
    /// Whether an escape character has come since the line began, even if it is erased by now.
    escaped: bool,
}

impl Line {
    /// An empty line.
    pub(super) const fn new() -> Self {
        Self { bytes: [0; BYTES_MAX], length: 0, escaped: false }
    }

    /// Whether the line has no text.
    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Whether no further byte fits.
    pub(super) const fn is_full(&self) -> bool {
        self.length >= BYTES_MAX
    }

    /// Forgets the line.
    pub(super) fn clear(&mut self) {
        self.length = 0;
        self.escaped = false;
    }

    /// Forgets the text: a carriage return came, and what follows is written over it.
    pub(super) fn start_over(&mut self) {
        self.length = 0;
    }

    /// Takes a byte and says whether it may go to the terminal of a guest with the focus at once.
    pub(super) fn take(&mut self, byte: u8) -> bool {
        match byte {
            BACKSPACE => self.erase(),
            // In UTF-8, 0xc2 0x80 to 0xc2 0x9f are the C1 control characters; 0xc2 0x9b does what ESC [ does.
            0x80..=0x9f if self.last() == Some(0xc2) => {
                self.erase();
                false
            }
            ESCAPE => {
                self.escaped = true;
                self.push(byte)
            }
            b'\t' | b' '..=b'~' | 0x80.. => self.push(byte),
            BELL => true,
            0x00..=0x1f | 0x7f => false,
        }
    }

    /// Shows the text, with its colours and without any other escape sequence.
    pub(super) fn show(&self, sink: &mut impl Sink) {
        let mut rest = self.text();
        while let Some((first, after_first)) = rest.split_first() {
            rest = after_first;
            if *first != ESCAPE {
                sink.put(*first);
            } else if let Some(sequence) = ControlSequence::at_start_of(after_first) {
                if sequence.sets_colours() {
                    sink.put(ESCAPE);
                    put_all(sequence.bytes, sink);
                }
                rest = sequence.after;
            }
        }
    }

    /// Goes back to the terminal's own colours, if the line may have changed them, so that nobody else's line is
    /// written in them or made invisible.
    pub(super) fn end_colours(&self, sink: &mut impl Sink) {
        if self.escaped {
            put_all(COLOURS_OFF, sink);
        }
    }

    fn text(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn last(&self) -> Option<u8> {
        self.text().last().copied()
    }

    /// Appends `byte`, if it fits.
    fn push(&mut self, byte: u8) -> bool {
        let Some(slot) = self.bytes.get_mut(self.length) else { return false };
        *slot = byte;
        self.length = self.length.saturating_add(1);
        true
    }

    /// Removes the last character, all bytes of it. False if there is none: the cursor is at the prefix.
    fn erase(&mut self) -> bool {
        let any = !self.is_empty();
        while let Some(last) = self.last() {
            self.length = self.length.saturating_sub(1);
            // UTF-8 continuation bytes belong to the character before them.
            if last & 0xc0 != 0x80 {
                break;
            }
        }
        any
    }
}

/// A control sequence without its ESC: `[`, parameters and intermediates, a final byte (ECMA-48 5.4).
struct ControlSequence<'a> {
    bytes: &'a [u8],
    after: &'a [u8],
}

impl<'a> ControlSequence<'a> {
    /// The control sequence that `text` starts with.
    fn at_start_of(text: &'a [u8]) -> Option<Self> {
        let parameters = text.strip_prefix(b"[")?;
        let final_position = parameters.iter().position(|byte| !matches!(byte, 0x20..=0x3f))?;
        if !matches!(parameters.get(final_position)?, 0x40..=0x7e) {
            return None;
        }
        // Past the `[` and the final byte.
        let (bytes, after) = text.split_at_checked(final_position.checked_add(2)?)?;
        Some(Self { bytes, after })
    }

    /// Whether this is Select Graphic Rendition, and not one of the private sequences that end alike.
    fn sets_colours(&self) -> bool {
        self.bytes
            .strip_prefix(b"[")
            .and_then(|text| text.strip_suffix(b"m"))
            .is_some_and(|parameters| parameters.iter().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')))
    }
}
