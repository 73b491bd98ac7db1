//! The one place where plain data of lb-common meets the kernel's bytes.

use zerocopy::{FromBytes, Immutable, IntoBytes};

/// Plain data, as a map holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Pod<T>(pub T);

// SAFETY: `IntoBytes` says that T has no padding, `FromBytes` that every byte pattern is a T, and `Immutable` that it
// holds no cell; zerocopy's derives check all three. `Pod` has T's layout.
#[expect(unsafe_code, reason = "aya's marker trait for map keys and values is unsafe to implement")]
unsafe impl<T: FromBytes + IntoBytes + Immutable + Copy + 'static> aya::Pod for Pod<T> {}
