//! Boards, as data.
#![no_std]
#![forbid(unsafe_code)]
