//! Tests of `device_tree`.
