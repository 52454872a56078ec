//! From a guest's bytes to what they ask of its row: one pass, one byte at a time.

use crate::{MARK, style::Style};

const BELL: u8 = 0x07;
const ESCAPE: u8 = 0x1b;
const MARKED: Action = Action::Put(MARK as u32);

/// What a guest asks of its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Nothing, or nothing yet.
    Nothing,
    /// Write the character of this number at the cursor; [`MARK`] stands for what is removed, and a tab for blanks up
    /// to the next stop.
    Put(u32),
    /// The byte has cut off a character or sequence that was not complete: write [`MARK`], and take the byte again.
    Cut,
    /// The cursor goes so many cells to the right, or to the left, within the text.
    Move(i32),
    /// The cursor goes to the first cell.
    Return,
    /// Everything from the cursor on disappears.
    EraseToEnd,
    /// The whole text disappears, and the cursor goes to the first cell.
    EraseAll,
    /// End the line.
    EndLine,
    /// A sound.
    Bell,
    /// What shells send with every prompt, and which shows nothing: where the cursor is ([`CURSOR_REPORT`]), and that
    /// what is pasted be marked ([`BRACKETED_PASTE`]).
    Decline,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Between characters.
    Ground,
    /// In a UTF-8 character.
    Character,
    /// After ESC (ECMA-48 5.3).
    Escape,
    /// In a control sequence (ECMA-48 5.4).
    Control,
    /// In one with a private marker or an intermediate byte.
    Private,
    /// In a control string, such as a title (ECMA-48 5.6).
    String,
}

/// The largest parameter that is told from others: ten times it, and a digit more, is a number still.
const NUMBER_MAX: u16 = 6552;
/// The Device Status Report with which busybox's shell asks for the cursor's place (ECMA-48 8.3.35).
const CURSOR_REPORT: u16 = 6;
/// The private mode of xterm's that readline sets before it reads a line, and resets behind it.
const BRACKETED_PASTE: u16 = 2004;

/// The filter's state.
pub struct Filter {
    state: State,
    /// The character so far: its number, the least number that needs so many bytes, and how many of them it lacks.
    code: u32,
    least: u32,
    missing: u8,
    /// How many bytes of a control sequence there have been.
    length: u8,
    /// The parameter that is being read.
    number: u16,
    /// Further parameters belong to one that is not known.
    is_rest: bool,
    /// The style as the parameters so far would have it.
    next_style: Style,
    pub(crate) style: Style,
}

impl Filter {
    /// A filter to which nothing has come.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            state: State::Ground,
            code: 0,
            least: 0,
            missing: 0,
            length: 0,
            number: 0,
            is_rest: false,
            next_style: Style::PLAIN,
            style: Style::PLAIN,
        }
    }

    /// Whether the next byte begins something new.
    pub(crate) const fn is_between(&self) -> bool {
        matches!(self.state, State::Ground)
    }

    /// Takes the next byte.
    #[inline(never)]
    pub(crate) fn take(&mut self, byte: u8) -> Action {
        let state = core::mem::replace(&mut self.state, State::Ground);
        match state {
            State::Ground => self.begin(byte),
            State::Character if matches!(byte, 0x80..=0xbf) => self.go_on(byte),
            State::String if byte >= b' ' => self.enter(State::String),
            State::String if byte == BELL => MARKED,
            State::Character | State::String => Action::Cut,
            _ if !matches!(byte, b' '..=b'~') => Action::Cut,
            State::Escape => self.begin_sequence(byte),
            State::Control | State::Private => self.go_on_sequence(byte, state),
        }
    }

    fn enter(&mut self, state: State) -> Action {
        self.state = state;
        Action::Nothing
    }

    fn begin(&mut self, byte: u8) -> Action {
        match byte {
            b' '..=b'~' | b'\t' => Action::Put(u32::from(byte)),
            b'\n' => Action::EndLine,
            b'\r' => Action::Return,
            0x08 => Action::Move(-1),
            BELL => Action::Bell,
            // Padding (ECMA-48 8.3.88).
            0 => Action::Nothing,
            ESCAPE => self.enter(State::Escape),
            0xc2..=0xf4 => {
                self.missing = (byte.leading_ones() as u8).saturating_sub(1);
                // The bits below those that say how many bytes follow, and the 0 behind them.
                self.code = u32::from(byte & (0x3f >> self.missing));
                // Of two bytes, those that would not need the second have gone already.
                self.least = 2 << self.missing.saturating_mul(5);
                self.enter(State::Character)
            }
            0x01..=0x1f | 0x7f..=0xc1 | 0xf5.. => MARKED,
        }
    }

    fn begin_sequence(&mut self, byte: u8) -> Action {
        match byte {
            b'[' => {
                self.length = 0;
                self.number = 0;
                self.is_rest = false;
                self.next_style = self.style;
                self.enter(State::Control)
            }
            // OSC, DCS, SOS, PM and APC.
            b']' | b'P' | b'X' | b'^' | b'_' => self.enter(State::String),
            // ST, the end of a string that ESC has ended already.
            b'\\' => Action::Nothing,
            ..b'0' => self.enter(State::Escape),
            _ => MARKED,
        }
    }

    fn go_on_sequence(&mut self, byte: u8, state: State) -> Action {
        let is_known = state == State::Control;
        let length = self.length;
        self.length = length.saturating_add(1);
        match byte {
            b'0'..=b'9' => {
                let number = self.number.wrapping_mul(10).wrapping_add(u16::from(byte & 0xf));
                self.number = number.min(NUMBER_MAX);
                return self.enter(state);
            }
            b';' if is_known => self.end_parameter(),
            // A parameter of several parts.
            b':' if is_known => self.is_rest = true,
            b'?' if is_known && length == 0 => return self.enter(State::Private),
            ..b'@' => {
                // No number that anything is known of.
                self.number = NUMBER_MAX;
                return self.enter(State::Private);
            }
            _ if is_known => return self.end_control(byte, length),
            b'h' | b'l' if self.number == BRACKETED_PASTE && length == 5 => return Action::Decline,
            _ => return MARKED,
        }
        self.enter(State::Control)
    }

    fn go_on(&mut self, byte: u8) -> Action {
        self.code = self.code << 6 | u32::from(byte & 0x3f);
        self.missing = self.missing.wrapping_sub(1);
        if self.missing > 0 {
            return self.enter(State::Character);
        }
        if self.code >= self.least && is_shown(self.code) { Action::Put(self.code) } else { MARKED }
    }

    #[inline(never)]
    fn end_parameter(&mut self) {
        // Colours out of many, whose numbers follow.
        self.is_rest |= matches!(self.number, 38 | 48);
        if !self.is_rest {
            self.next_style = self.next_style.with(self.number);
        }
        self.number = 0;
    }

    fn end_control(&mut self, last: u8, length: u8) -> Action {
        // Zero and none are one (ECMA-48 5.4.2).
        let count = i32::from(self.number.max(1));
        match (last, self.number) {
            (b'm', _) => {
                self.end_parameter();
                self.style = self.next_style;
                Action::Nothing
            }
            (b'D', _) => Action::Move(count.wrapping_neg()),
            (b'C', _) => Action::Move(count),
            // The page ends with the guest's row.
            (b'K' | b'J', 0) => Action::EraseToEnd,
            (b'K', 2) => Action::EraseAll,
            (b'n', CURSOR_REPORT) if length == 1 => Action::Decline,
            _ => MARKED,
        }
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::new()
    }
}

/// The character numbers that are refused, in pairs of the first and the last. C1 control characters act on terminals,
/// as ESC does; the others hide, turn the direction of the text, end lines for some programs, or are no characters.
const REFUSED: [(u32, u32); 12] = [
    (0x80, 0x9f),
    (0xad, 0xad),
    (0x61c, 0x61c),
    (0x180e, 0x180e),
    (0x200b, 0x200f),
    (0x2028, 0x202e),
    (0x2060, 0x206f),
    (0xd800, 0xdfff),
    (0xfeff, 0xfeff),
    (0xfff9, 0xfffb),
    (0xe_0000, 0xe_0fff),
    (0x11_0000, u32::MAX),
];

fn is_shown(code: u32) -> bool {
    !REFUSED.iter().any(|(first, last)| (*first..=*last).contains(&code))
}
