//! Bulkhead's virtqueue beside rust-vmm's `virtio-queue`: what the committed corpus says, and what chance says.

mod reference;

use std::{
    env, fs, thread,
    time::{Duration, Instant},
};

/// How many seconds [`random_steps_for_a_while`] takes.
const SECONDS_VARIABLE: &str = "BULKHEAD_FUZZ_SECONDS";

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/virtqueue");

/// The same numbers from the same seed (xorshift64*, Vigna 2016).
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit.max(1) as u64) as usize
    }
}

/// Says which seed a test failed at.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("the steps of seed {} fail", self.0);
        }
    }
}

fn corpus() -> Vec<Vec<u8>> {
    let entries = fs::read_dir(CORPUS).expect("the corpus is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read(path).expect("a file")).collect()
}

/// Random bytes, or an entry of the corpus with a few changes.
fn steps(seed: u64, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut chance = Chance::new(seed);
    let entry = chance.below(2 * corpus.len().max(1));
    let Some(entry) = corpus.get(entry) else {
        let length = 16 + chance.below(400);
        return (0..length).map(|_| chance.number() as u8).collect();
    };
    let mut bytes = entry.clone();
    for _ in 0..1 + chance.below(8) {
        let place = chance.below(bytes.len() + 1);
        match chance.below(4) {
            0 => bytes.insert(place, chance.number() as u8),
            1 => bytes.truncate(place.max(8)),
            2 => bytes.extend_from_within(place..),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte = chance.number() as u8;
                }
            }
        }
    }
    bytes
}

fn run_seed(seed: u64, corpus: &[Vec<u8>]) {
    let seed = Seed(seed);
    reference::run(&steps(seed.0, corpus));
}

#[test]
fn both_devices_agree_on_the_corpus() {
    let corpus = corpus();
    assert!(corpus.len() > 20, "the corpus has {} entries", corpus.len());
    for entry in corpus {
        reference::run(&entry);
    }
}

#[test]
fn both_devices_agree_on_random_steps() {
    let corpus = corpus();
    for seed in 0..3000 {
        run_seed(seed, &corpus);
    }
}

/// `cargo xtask fuzz` runs this one, from a new seed each time.
#[test]
#[ignore = "takes as long as it is told to"]
fn random_steps_for_a_while() {
    let seconds = env::var(SECONDS_VARIABLE).map_or(1, |text| text.parse().expect("a number of seconds"));
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock");
    let (corpus, started, first) = (corpus(), Instant::now(), clock.as_secs() << 24);
    let mut seed = first;
    while started.elapsed() < Duration::from_secs(seconds) {
        run_seed(seed, &corpus);
        seed += 1;
    }
    println!("{} runs, from seed {first} on", seed - first);
}
