//! What is typed at the console that several clients share.

use arrayvec::ArrayVec;

/// The most characters of one round.
pub const CHARACTERS_MAX: usize = 256;
/// Ctrl-O: what is typed goes to the next client from here on.
const NEXT_CLIENT: u8 = 0x0f;

/// What was typed in one round.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Typed {
    /// What goes to the client that gets what is typed.
    pub characters: ArrayVec<u8, CHARACTERS_MAX>,
    /// The next client is chosen after that.
    pub chooses_next: bool,
}

impl Typed {
    /// Takes what `read` gives. Without room for it at the client it is lost: were it left where it is, the client that
    /// takes nothing could not be left.
    pub fn read(has_room: bool, read: impl FnMut() -> Option<u8>) -> Self {
        let mut typed = Self::default();
        for byte in core::iter::from_fn(read).take(CHARACTERS_MAX) {
            if byte == NEXT_CLIENT {
                typed.chooses_next = true;
                break;
            }
            if has_room {
                typed.characters.push(byte);
            }
        }
        typed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    /// What comes of `text`, round by round.
    fn rounds(has_room: bool, text: &[u8]) -> Vec<(Vec<u8>, bool)> {
        let mut rest = text.iter().copied();
        let mut rounds = Vec::new();
        while rest.len() > 0 {
            let typed = Typed::read(has_room, || rest.next());
            rounds.push((typed.characters.to_vec(), typed.chooses_next));
        }
        rounds
    }

    #[test]
    fn what_is_typed_before_the_next_client_is_chosen_is_for_this_one() {
        let expected = [(b"one".to_vec(), true), (b"two".to_vec(), false)];
        assert_eq!(rounds(true, b"one\x0ftwo"), expected);
    }

    #[test]
    fn a_client_that_takes_nothing_can_be_left() {
        let text = ["x".repeat(2 * CHARACTERS_MAX).as_bytes(), b"\x0f"].concat();
        assert_eq!(rounds(false, &text), [(Vec::new(), false), (Vec::new(), false), (Vec::new(), true)]);
    }

    #[test]
    fn a_round_takes_no_more_than_a_client_has_room_for() {
        let lengths = rounds(true, &[b'x'; 600]).iter().map(|(characters, _)| characters.len()).collect::<Vec<_>>();
        assert_eq!(lengths, [256, 256, 88]);
    }
}
