//! What is typed after the escape key: the number or the name of a guest.

use super::{GUESTS_MAX, Guest, GuestIndex};

/// Up to so many guests, a digit alone says which.
const DIGITS: usize = 9;

const _: () = assert!(GUESTS_MAX <= 16, "each guest has a bit");

/// What a byte makes of a choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is not complete yet.
    More(Choice),
    /// It is this guest, if there is such a guest.
    Guest(GuestIndex),
    /// It is none.
    Nobody,
}

/// A number or a name that is being typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// How many characters have been typed.
    pub(super) length: u8,
    /// The number that they are; `None` if they are none.
    number: Option<u8>,
    /// The guests whose names begin with them, a bit each.
    beginning: u16,
}

impl Choice {
    /// Nothing typed.
    pub(super) const NEW: Self = Self { length: 0, number: Some(0), beginning: u16::MAX };

    /// Takes the next byte.
    #[inline(never)]
    pub(super) fn take(mut self, byte: u8, guests: &[Guest]) -> Step {
        let byte = byte.to_ascii_lowercase();
        match byte {
            b'1'..=b'9' if self.length == 0 && guests.len() <= DIGITS => {
                Step::Guest(GuestIndex(byte.wrapping_sub(b'1')))
            }
            b'\r' => self.find(guests),
            b'0'..=b'9' | b'a'..=b'z' | b'-' => {
                let digit = byte.wrapping_sub(b'0');
                self.number =
                    if digit < 10 { self.number.and_then(|it| it.checked_mul(10)?.checked_add(digit)) } else { None };
                let mut bit = 1_u16;
                for guest in guests {
                    if guest.name().get(usize::from(self.length)) != Some(&byte) {
                        self.beginning &= !bit;
                    }
                    bit = bit.wrapping_shl(1);
                }
                self.length = self.length.saturating_add(1);
                Step::More(self)
            }
            _ => Step::Nobody,
        }
    }

    /// The guest whose number this is; or whose name; or else the only one whose name begins so.
    fn find(self, guests: &[Guest]) -> Step {
        let (mut found, mut is_any) = (Step::Nobody, false);
        let mut bit = 1_u16;
        for (guest, number) in guests.iter().zip(1_u8..) {
            let index = Step::Guest(GuestIndex(number.wrapping_sub(1)));
            let begins = self.beginning & bit != 0;
            if self.number == Some(number) || begins && guest.name().len() == usize::from(self.length) {
                return index;
            }
            // The first of several, when another comes, is no longer it.
            if begins {
                found = if is_any { Step::Nobody } else { index };
                is_any = true;
            }
            bit = bit.wrapping_shl(1);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Console, GuestIndex, Sink};
    use std::{format, string::String, vec::Vec};

    struct Screen(Vec<u8>);

    impl Sink for Screen {
        fn put(&mut self, byte: u8) {
            self.0.push(byte);
        }
    }

    /// Who has the focus after `keys`, and what the screen shows, with guests of these names.
    fn typed(names: &[&str], keys: &str) -> (u8, String) {
        let (mut console, mut screen) = (Console::new(), Screen(Vec::new()));
        for name in names {
            console.add_guest(name);
        }
        for key in keys.bytes() {
            console.input(key, &mut screen);
        }
        (console.focus().0, String::from_utf8(screen.0).unwrap())
    }

    const THREE: [&str; 3] = ["alpha", "alpine", "driver-domain"];

    fn sixteen() -> Vec<String> {
        (1..=16).map(|number| format!("vm-{number}")).collect()
    }

    #[test]
    fn a_name_or_its_unique_beginning_and_enter_moves_the_focus() {
        for (keys, guest) in [("d", 2), ("driver-domain", 2), ("D", 2), ("alpi", 1), ("alpha", 0)] {
            assert_eq!(typed(&THREE, &format!("\x1d{keys}\r")).0, guest, "{keys}");
        }
        assert_eq!(typed(&["vm", "vm-2", "x"], "\x1d3\x1dvm\r").0, 0, "a whole name is no beginning of another");
    }

    #[test]
    fn what_names_no_one_guest_changes_nothing_and_explains() {
        for keys in ["al", "gamma", "driver-domain-2", ""] {
            let (focus, screen) = typed(&THREE, &format!("\x1d3\x1d{keys}\r"));
            assert_eq!(focus, 2, "{keys}");
            assert_eq!(screen.matches("[bulkhead] input goes to driver-domain (Ctrl-]").count(), 2, "{screen}");
        }
    }

    #[test]
    fn more_than_nine_guests_have_numbers_of_two_digits() {
        let names = sixteen();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for (keys, guest) in [("16\r", 15), ("9\r", 8), ("1\r", 0), ("10\r", 9), ("vm-16\r", 15), ("vm-1\r", 0)] {
            assert_eq!(typed(&names, &format!("\x1d2\r\x1d{keys}")).0, guest, "{keys}");
        }
        for keys in ["0\r", "17\r", "99\r", "256\r", "vm\r", "1\x1d"] {
            assert_eq!(typed(&names, &format!("\x1d2\r\x1d{keys}")).0, 1, "{keys}");
        }
        assert_eq!(typed(&names, "\x1d1").1, "", "a digit alone is not complete");
        let help = typed(&names, "\x1d?").1.replace("\\\r\n[bulkhead] ", "");
        assert!(
            help.starts_with("[bulkhead] input goes to vm-1 (Ctrl-] then a number or name and Enter switches: 1 vm-1,")
        );
        assert!(help.ends_with("15 vm-15, 16 vm-16)\r\n"), "{help}");
    }

    #[test]
    fn what_is_typed_as_a_choice_reaches_no_guest() {
        let (mut console, mut screen) = (Console::new(), Screen(Vec::new()));
        console.add_guest("alpha");
        for key in "\x1dalpha\r\x1d-0123456789abcdefghij-0123456789\x1bghij".bytes() {
            console.input(key, &mut screen);
        }
        let read: Vec<_> = core::iter::from_fn(|| console.take(GuestIndex(0))).collect();
        assert_eq!(read, b"ghij", "what is no part of a name ends it");
    }
}
