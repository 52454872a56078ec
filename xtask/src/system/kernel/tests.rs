//! Tests of `kernel`.
