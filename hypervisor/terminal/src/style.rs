//! The look of a cell: what of Select Graphic Rendition (ECMA-48 8.3.117) a guest may choose.

use crate::{Sink, put_all};

/// Bold or not, and the last digit of the parameter that sets the text's colour: 0 to 7, or 9 for the terminal's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style(u8);

impl Style {
    /// The terminal's own.
    pub const PLAIN: Self = Self(9);
    /// None that a row has.
    pub(crate) const UNKNOWN: Self = Self(u8::MAX);
    const BOLD: u8 = 1 << 4;
    const DIGIT: u8 = 0xf;

    pub(crate) const fn bits(self) -> u8 {
        self.0
    }

    pub(crate) const fn from_bits(bits: u8) -> Self {
        Self(bits)
    }

    /// This style after the parameter `number`. One that is not known changes nothing.
    #[must_use]
    pub(crate) const fn with(self, number: u16) -> Self {
        let digit = (number % 10) as u8;
        match number {
            0 => Self::PLAIN,
            1 => Self(self.0 | Self::BOLD),
            22 => Self(self.0 & Self::DIGIT),
            30..=37 | 39 => Self(self.0 & Self::BOLD | digit),
            // Bright colours, which not every terminal has.
            90..=97 => Self(Self::BOLD | digit),
            _ => self,
        }
    }

    /// Has the terminal write in this style, and in no other respect.
    #[inline(never)]
    pub(crate) fn show(self, sink: &mut dyn Sink) {
        let bold = if self.0 & Self::BOLD == 0 { b'0' } else { b'1' };
        let digit = (self.0 & Self::DIGIT).wrapping_add(b'0');
        put_all(&[0x1b, b'[', b'0', b';', bold, b';', b'3', digit, b'm'], sink);
    }
}
