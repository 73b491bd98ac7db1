//! The packet cursor over a packet of the host's own stack, as TC shows it on the way out. Like the one over XDP memory it
//! is the one place here that turns an offset into packet memory.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_store_bytes, bpf_skb_vlan_push},
};
use core::arch::asm;
use lb_common::{
    clamp::{Change, find_mss},
    packet::{Frame, Packet},
    tables::{Encap, TAGS_MAX},
};

/// A packet that the host sends.
pub struct SkbFrame {
    skb: *mut __sk_buff,
    /// What the kernel is told of the headers that are put in front of it, so that it still finds the checksum and the
    /// segments inside, which it has left to the interface.
    room: u64,
}

impl SkbFrame {
    /// The packet that a program was called for. `skb` is the context that the kernel handed to the program.
    #[inline(always)]
    pub const fn new(skb: *mut __sk_buff) -> Self {
        Self { skb, room: 0 }
    }

    /// Its mark.
    #[inline(always)]
    pub fn mark(&self) -> u32 {
        // SAFETY: `skb` is the program's context, valid while the program runs; likewise below.
        unsafe { (*self.skb).mark }
    }

    /// Takes the mark off, so that nobody takes the packet for a check's again.
    #[inline(always)]
    pub fn clear_mark(&mut self) {
        // SAFETY: as above; a TC program may write this field.
        unsafe { (*self.skb).mark = 0 };
    }

    /// The index of the interface that it is to leave by.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: as above.
        unsafe { (*self.skb).ifindex }
    }

    /// Says which headers will be put in front of the packet.
    #[inline(always)]
    pub fn will_hold(&mut self, encap: Encap) {
        self.room = u64::from(match encap {
            Encap::IPIP4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4,
            Encap::IPIP6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6,
            Encap::GUE4 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            Encap::GUE6 => BPF_F_ADJ_ROOM_ENCAP_L3_IPV6 | BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
            _ => 0,
        });
    }

    /// Puts VLAN tags on, the first outermost.
    #[inline(always)]
    pub fn push_tags(&mut self, tags: &[u8; TAGS_MAX], len: u8) -> Option<()> {
        let [a, b, c, d, e, f, g, h] = *tags;
        if len > 4 {
            self.push_tag([e, f, g, h])?;
        }
        if len > 0 { self.push_tag([a, b, c, d]) } else { Some(()) }
    }

    /// Makes a change. The checksum may be one that the kernel has yet to complete, which its own function knows and a
    /// sum by hand would not.
    #[inline(always)]
    pub fn change(&mut self, change: &Change) -> Option<()> {
        let ([a, b], [c, d]) = change.summands();
        let (from, to) = (u16::from_ne_bytes([a, b]).into(), u16::from_ne_bytes([c, d]).into());
        let length = change.to.len();
        // SAFETY: both helpers refuse what lies beyond the packet; `to` outlives the call, and no reference into the packet
        // outlives the exclusive borrow.
        let refused = unsafe {
            bpf_l4_csum_replace(self.skb, change.checksum as u32, from, to, length as u64) != 0
                || bpf_skb_store_bytes(self.skb, change.at as u32, change.to.as_ptr().cast(), length as u32, 0) != 0
        };
        if refused { None } else { Some(()) }
    }

    #[inline(always)]
    fn push_tag(&mut self, [a, b, c, d]: [u8; 4]) -> Option<()> {
        let (ethertype, control) = (u16::from_ne_bytes([a, b]), u16::from_be_bytes([c, d]));
        // SAFETY: the helper takes the protocol as it stands on the wire; no reference into the packet outlives the
        // exclusive borrow.
        let pushed = unsafe { bpf_skb_vlan_push(self.skb, ethertype, control) };
        (pushed == 0).then_some(())
    }

    /// `N` bytes of the linear head at `offset`.
    #[inline(always)]
    fn at<const N: usize>(&self, offset: usize) -> Option<*mut [u8; N]> {
        // SAFETY: as in `mark`.
        let (start, limit) = unsafe { ((*self.skb).data as usize, (*self.skb).data_end as usize) };
        let place = start + offset;
        if place + N > limit { None } else { Some(place as *mut [u8; N]) }
    }
}

impl Packet for SkbFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let place = self.at(offset)?;
        // SAFETY: `at` has checked that all N bytes lie in the packet.
        Some(unsafe { place.read_unaligned() })
    }

    #[inline(always)]
    fn below_64(mut offset: usize) -> usize {
        // SAFETY: one instruction on one register.
        unsafe { asm!("{0} &= 63", inout(reg) offset, options(pure, nomem, preserves_flags, nostack)) };
        offset
    }

    #[inline(always)]
    fn mss(&self, options: usize, len: usize) -> Option<usize> {
        match scan_mss(self.skb, options as u64, len as u64) as usize {
            0 => None,
            at => Some(below_128(at)),
        }
    }

    #[inline(always)]
    fn holds(&self, end: usize) -> bool {
        // SAFETY: as in `mark`.
        end <= unsafe { (*self.skb).len } as usize
    }
}

impl Frame for SkbFrame {
    #[inline(always)]
    fn place<const N: usize>(&mut self, offset: usize) -> Option<&mut [u8; N]> {
        let place = self.at(offset)?;
        // SAFETY: `at` has checked that all N bytes lie in the packet; while the reference lives, the exclusive borrow of
        // the frame keeps the packet from being moved or read through it.
        Some(unsafe { &mut *place })
    }

    /// Makes room behind the Ethernet header, which whoever asks writes anew.
    #[inline(always)]
    fn move_start(&mut self, bytes: i32) -> bool {
        // SAFETY: the helper refuses what does not fit; no reference into the packet outlives the exclusive borrow.
        unsafe { bpf_skb_adjust_room(self.skb, -bytes, BPF_ADJ_ROOM_MAC, self.room) == 0 }
    }

    #[inline(always)]
    fn cut_to(&mut self, _len: usize) -> bool {
        false
    }
}

/// A function of its own: the verifier walks the options once, not once for each way that leads to them. 0 for none.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_mss(skb: *mut __sk_buff, options: u64, len: u64) -> u64 {
    find_mss(&SkbFrame::new(skb), below_128(options as usize), len as usize).unwrap_or(0) as u64
}

/// `offset`, known to the verifier to be below 128: the headers of an untagged packet end there.
#[inline(always)]
fn below_128(mut offset: usize) -> usize {
    // SAFETY: one instruction on one register.
    unsafe { asm!("{0} &= 127", inout(reg) offset, options(pure, nomem, preserves_flags, nostack)) };
    offset
}
