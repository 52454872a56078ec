//! The queue as its drivers use it, the good ones and the others.

mod chains;
mod driver;
mod events;
mod hostile;
mod rings;
