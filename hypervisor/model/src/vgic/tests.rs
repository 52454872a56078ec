//! The virtual GIC as its guest's drivers use it, on a simulated CPU interface.
