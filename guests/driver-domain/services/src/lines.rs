//! Several consoles on one: each line begins with the name of the client that wrote it.

/// Who wrote last, and whether its line is still open.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lines {
    open: Option<usize>,
}

impl Lines {
    /// Passes on `bytes` that client `client`, called `name`, has written, with what goes between them.
    pub fn write(&mut self, client: usize, name: &str, bytes: &[u8], mut out: impl FnMut(&[u8])) {
        if bytes.is_empty() {
            return;
        }
        if self.open.is_some_and(|open| open != client) {
            out(b"\r\n");
            self.open = None;
        }
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.open.is_none() {
                out(b"[");
                out(name.as_bytes());
                out(b"] ");
            }
            out(line);
            self.open = if line.ends_with(b"\n") { None } else { Some(client) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{string::String, vec::Vec};

    fn told(writes: &[(usize, &str)]) -> String {
        let mut lines = Lines::default();
        let mut all = Vec::new();
        for &(client, text) in writes {
            lines.write(client, ["alpha", "beta"][client], text.as_bytes(), |bytes| all.extend_from_slice(bytes));
        }
        String::from_utf8(all).unwrap()
    }

    #[test]
    fn each_line_names_its_client() {
        assert_eq!(told(&[(0, "one\r\ntwo\r\n"), (1, "three\n")]), "[alpha] one\r\n[alpha] two\r\n[beta] three\n");
    }

    #[test]
    fn a_prompt_appears_at_once_and_goes_on() {
        assert_eq!(told(&[(0, "login: "), (0, "root\n")]), "[alpha] login: root\n");
    }

    #[test]
    fn another_client_starts_a_line_of_its_own() {
        assert_eq!(told(&[(0, "half"), (1, "x\n"), (0, "rest\n")]), "[alpha] half\r\n[beta] x\n[alpha] rest\n");
    }

    #[test]
    fn nothing_written_is_nothing_said() {
        assert_eq!(told(&[(0, ""), (1, "")]), "");
    }
}
