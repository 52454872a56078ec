//! System descriptions: TOML in, bundle out.
