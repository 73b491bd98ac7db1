//! The commands of `weir`, one file each.

pub mod check;
pub mod decap;
pub mod doctor;
pub mod run;
pub mod status;
pub mod top;

/// The exit status for a configuration that does not hold.
pub const BAD_CONFIG: u8 = 2;
