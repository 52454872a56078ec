//! Writing a bundle: a cpio archive in the `newc` format. Reading one is `manifest::Bundle`.

use cpio::newc;
use std::io::{self, Write};

/// The mode of every file: a regular one that all may read (cpio(5)).
const FILE_MODE: u32 = 0o100_444;

/// Files for a bundle; each content is kept once.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    files: Vec<(String, Vec<u8>)>,
}

impl Archive {
    /// Adds a file and says under which name: `name` or, where another file has that name already, one like it. A file
    /// with the same bytes as an earlier one is that one.
    pub(crate) fn add(&mut self, name: &str, bytes: Vec<u8>) -> String {
        if let Some((known, _)) = self.files.iter().find(|(_, known)| *known == bytes) {
            return known.clone();
        }
        let name = plain_name(name);
        let is_free = |candidate: &String| self.files.iter().all(|(taken, _)| taken != candidate);
        let candidates = (2..).map(|number: u32| format!("{name}-{number}"));
        let name = std::iter::once(name.clone()).chain(candidates).find(is_free).unwrap_or(name);
        self.files.push((name.clone(), bytes));
        name
    }

    /// Writes the archive, with the file `first` in front.
    ///
    /// # Errors
    /// A file is larger than the format's 4 GiB.
    pub(crate) fn write(&self, first: (&str, &[u8])) -> io::Result<Vec<u8>> {
        let files = self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        let mut output = Vec::new();
        for (inode, (name, bytes)) in (1..).zip(std::iter::once(first).chain(files)) {
            let size = u32::try_from(bytes.len()).map_err(|_| {
                io::Error::other(format!("{name} is larger than the 4 GiB that a bundle's file can have"))
            })?;
            let mut writer = newc::Builder::new(name).ino(inode).mode(FILE_MODE).nlink(1).write(&mut output, size);
            writer.write_all(bytes)?;
            writer.finish()?;
        }
        newc::trailer(&mut output)?;
        Ok(output)
    }
}

/// `name` with everything but letters, digits, `.`, `_` and `-` replaced.
fn plain_name(name: &str) -> String {
    let is_plain = |character: &char| character.is_ascii_alphanumeric() || "._-".contains(*character);
    name.chars().map(|character| if is_plain(&character) { character } else { '-' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifest::Entry;

    #[test]
    fn the_hypervisor_reads_what_was_written() {
        let mut archive = Archive::default();
        archive.add("kernel", b"12345".to_vec());
        archive.add("empty", Vec::new());
        let bytes = archive.write((manifest::MANIFEST_FILE, b"first")).unwrap();
        let entries: Result<Vec<_>, _> = manifest::Bundle::new(&bytes).entries().collect();
        let expected = [(manifest::MANIFEST_FILE, &b"first"[..]), ("kernel", b"12345"), ("empty", b"")];
        assert_eq!(entries.unwrap(), expected.map(|(name, data)| Entry { name, data }));
    }

    #[test]
    fn a_file_that_two_guests_share_is_stored_once() {
        let mut archive = Archive::default();
        assert_eq!(archive.add("debian", b"1".to_vec()), "debian");
        assert_eq!(archive.add("other", b"1".to_vec()), "debian");
        assert_eq!(archive.files.len(), 1);
    }

    #[test]
    fn different_files_of_one_name_are_told_apart() {
        let mut archive = Archive::default();
        assert_eq!(archive.add("a/b", b"1".to_vec()), "a-b");
        assert_eq!(archive.add("a b", b"2".to_vec()), "a-b-2");
        assert_eq!(archive.add("a-b", b"3".to_vec()), "a-b-3");
    }
}
