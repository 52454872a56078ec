//! Bulkhead's virtqueue beside rust-vmm's, on what libFuzzer comes up with.
#![no_main]

#[path = "../../tests/reference/mod.rs"]
mod reference;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| reference::run(bytes));
