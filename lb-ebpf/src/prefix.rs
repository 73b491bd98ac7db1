//! Tries of address prefixes.

use aya_ebpf::btf_maps::{LpmTrie, lpm_trie::Key};
use lb_common::wire::ip::Address;

/// A trie's key begins with four bytes; these four in front of it keep the address behind them aligned on the stack.
#[repr(C, align(8))]
struct Aligned {
    padding: u32,
    key: Key<Address>,
}

/// The value of the longest prefix that an address lies in.
#[inline(always)]
pub fn longest<'t, V, const MAX: usize>(trie: &'t LpmTrie<Address, V, MAX>, address: &Address) -> Option<&'t V> {
    const ADDRESS_BITS: u32 = 128;
    let aligned = Aligned { padding: 0, key: Key::new(ADDRESS_BITS, *address) };
    trie.get(&aligned.key)
}
