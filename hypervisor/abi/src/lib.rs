//! What guests and Bulkhead agree on: hypercall numbers and shared layouts.
#![no_std]
#![forbid(unsafe_code)]
