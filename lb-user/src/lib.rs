//! The controller of Weir.
pub mod object;
