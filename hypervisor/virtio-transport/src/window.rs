//! The pages of a request window: which are free.

/// The most pages of a window: 4 MiB.
pub const PAGES_MAX: usize = 1024;
const WORDS: usize = PAGES_MAX / 64;
/// The most pages of one run: 256 KiB.
pub const RUN_MAX: u16 = 64;

/// A run of pages of the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first page.
    pub first: u16,
    /// How many.
    pub count: u16,
}

impl Run {
    /// No pages.
    pub const EMPTY: Self = Self { first: 0, count: 0 };
}

/// The free pages, a bit each.
pub struct Window {
    free: [u64; WORDS],
    words: usize,
    pages: u32,
}

impl Window {
    /// A window of `pages` free pages; those beyond [`PAGES_MAX`] are never handed out.
    pub fn new(pages: usize) -> Self {
        let pages = pages.min(PAGES_MAX);
        let mut free = [0; WORDS];
        for (index, word) in free.iter_mut().enumerate() {
            let in_word = pages.saturating_sub(index.saturating_mul(64)).min(64);
            *word = if in_word == 64 { u64::MAX } else { !(u64::MAX << in_word) };
        }
        Self { free, words: pages.div_ceil(64), pages: pages as u32 }
    }

    /// How many pages are in use.
    pub fn taken(&self) -> u32 {
        self.pages.saturating_sub(self.free.iter().map(|word| word.count_ones()).sum())
    }

    /// Takes `count` pages in one run, at most [`RUN_MAX`]. A run does not cross a multiple of 64 pages, which keeps
    /// the search to one word at a time.
    #[inline]
    pub fn take(&mut self, count: u16) -> Option<Run> {
        if count == 0 {
            return Some(Run::EMPTY);
        }
        if count > RUN_MAX {
            return None;
        }
        for (index, word) in self.free.iter_mut().enumerate().take(self.words) {
            let starts = starts_of_runs(*word, u32::from(count));
            if starts != 0 {
                let bit = starts.trailing_zeros();
                *word &= !(mask(count) << bit);
                let first = (index as u16).wrapping_mul(64).wrapping_add(bit as u16);
                return Some(Run { first, count });
            }
        }
        None
    }

    /// Gives back a run that [`Window::take`] gave.
    #[inline]
    pub fn give_back(&mut self, run: Run) {
        if let Some(word) = self.free.get_mut(usize::from(run.first / 64)) {
            *word |= mask(run.count).wrapping_shl(u32::from(run.first % 64));
        }
    }
}

/// `count` ones, for `count` up to 64.
fn mask(count: u16) -> u64 {
    if count >= 64 { u64::MAX } else { !(u64::MAX << count) }
}

/// The bits of `word` from which on `count` bits are set, 1 to 64: each step doubles the length of run that a bit
/// stands for.
fn starts_of_runs(word: u64, count: u32) -> u64 {
    let mut starts = word;
    let mut length = 1;
    while length < count {
        let step = length.min(count.saturating_sub(length));
        starts &= starts >> step;
        length = length.saturating_add(step);
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_do_not_overlap_and_come_back() {
        let mut window = Window::new(128);
        let runs: std::vec::Vec<_> = core::iter::from_fn(|| window.take(5)).collect();
        // Twelve runs of five in each word of 64.
        assert_eq!(runs.len(), 24);
        let mut used = std::collections::BTreeSet::new();
        for run in &runs {
            for page in run.first..run.first + run.count {
                assert!(page < 128 && used.insert(page), "{page}");
            }
        }
        assert!(window.take(5).is_none());
        for run in runs {
            window.give_back(run);
        }
        assert_eq!(window.take(64), Some(Run { first: 0, count: 64 }));
        assert_eq!(window.take(64), Some(Run { first: 64, count: 64 }));
        assert_eq!(window.take(1), None);
    }

    #[test]
    fn a_hole_is_found_between_runs_that_stay() {
        let mut window = Window::new(64);
        let first = window.take(3).unwrap();
        let second = window.take(7).unwrap();
        let third = window.take(54).unwrap();
        assert_eq!((first.first, second.first, third.first), (0, 3, 10));
        window.give_back(second);
        assert_eq!(window.take(8), None);
        assert_eq!(window.take(7), Some(second));
    }

    #[test]
    fn a_window_of_no_whole_word_ends_where_it_ends() {
        let mut window = Window::new(70);
        assert_eq!(window.take(64), Some(Run { first: 0, count: 64 }));
        assert_eq!(window.take(7), None);
        assert_eq!(window.take(6), Some(Run { first: 64, count: 6 }));
        assert_eq!(window.take(1), None);
    }

    #[test]
    fn nothing_and_too_much_are_answered() {
        let mut window = Window::new(2000);
        assert_eq!(window.take(0), Some(Run::EMPTY));
        window.give_back(Run::EMPTY);
        assert_eq!(window.take(65), None);
        assert_eq!(core::iter::from_fn(|| window.take(64)).count(), PAGES_MAX / 64);
    }
}
