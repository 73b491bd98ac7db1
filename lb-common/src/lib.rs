//! What both worlds of Weir share.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
