//! `weir top`: what a running balancer does at present, as rates between two looks at its status.
//!
//! It reads the admin socket like any other client and counts nothing itself.

mod screen;
mod terminal;
mod view;

pub use screen::{Size, render};
pub use terminal::{Terminal, TerminalError};
pub use view::View;
