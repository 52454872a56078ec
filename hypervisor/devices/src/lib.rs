//! Bulkhead's device models, written against vdev alone.
#![no_std]
#![forbid(unsafe_code)]
