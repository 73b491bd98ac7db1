//! The packet cursor over a packet of the host's own stack, as TC shows it on its way in or out. Like the one over XDP memory it
//! is the one place here that turns an offset into packet memory.

use aya_ebpf::{
    bindings::{
        __sk_buff, BPF_F_ADJ_ROOM_ENCAP_L3_IPV4, BPF_F_ADJ_ROOM_ENCAP_L3_IPV6, BPF_F_ADJ_ROOM_ENCAP_L4_UDP,
        BPF_F_PSEUDO_HDR, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode::BPF_ADJ_ROOM_MAC,
    },
    helpers::generated::{
        bpf_csum_diff, bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_load_bytes,
        bpf_skb_pull_data, bpf_skb_store_bytes, bpf_skb_vlan_pop, bpf_skb_vlan_push,
    },
};
use core::{arch::asm, ffi::c_void};
use lb_common::{
    clamp::{Change, find_mss},
    mint::Offer,
    mptcp::Options,
    packet::{Frame, Packet},
    tables::{Encap, TAGS_MAX},
    wire::tcp::Tcp,
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
        let (from, to) = change.summands();
        self.replace(change.at, &change.to, change.checksum, from, to)
    }

    /// Replaces bytes of which the checksum at `checksum` has had `from`, and has to have `to`.
    #[inline(always)]
    pub fn replace<const N: usize>(
        &mut self,
        at: usize,
        bytes: &[u8; N],
        checksum: usize,
        from: [u8; 2],
        to: [u8; 2],
    ) -> Option<()> {
        let (from, to) = (u16::from_ne_bytes(from).into(), u16::from_ne_bytes(to).into());
        const WORD: u64 = 2;
        // SAFETY: both helpers refuse what lies beyond the packet; `bytes` outlives the call, and no reference into the
        // packet outlives the exclusive borrow.
        let refused = unsafe {
            bpf_l4_csum_replace(self.skb, checksum as u32, from, to, WORD) != 0
                || bpf_skb_store_bytes(self.skb, at as u32, bytes.as_ptr().cast(), N as u32, 0) != 0
        };
        if refused { None } else { Some(()) }
    }

    /// What a helper takes that is told which packet it is about.
    #[inline(always)]
    pub const fn context(&self) -> *mut c_void {
        self.skb.cast()
    }

    /// Whether it was sent to this host's own address on the link.
    #[inline(always)]
    pub fn is_for_this_host(&self) -> bool {
        const PACKET_HOST: u32 = 0;
        // SAFETY: as in `mark`.
        unsafe { (*self.skb).pkt_type == PACKET_HOST }
    }

    /// Has so many bytes of it lie in its linear head, or nothing where it is shorter.
    #[inline(always)]
    pub fn pull(&mut self, len: usize) -> Option<()> {
        // SAFETY: the helper refuses what is longer than the packet; no reference into the packet outlives the exclusive
        // borrow.
        (unsafe { bpf_skb_pull_data(self.skb, len as u32) } == 0).then_some(())
    }

    /// Copies `len` bytes at `offset`, at most as many as there is room for.
    #[inline(always)]
    pub fn copy<const N: usize>(&self, offset: usize, to: &mut [u8; N], len: usize) -> Option<()> {
        let len = Self::below_64(len);
        if len == 0 || len > N {
            return None;
        }
        // SAFETY: the helper refuses what lies beyond the packet, and `to` has room.
        (unsafe { bpf_skb_load_bytes(self.context(), offset as u32, to.as_mut_ptr().cast(), len as u32) } == 0)
            .then_some(())
    }

    /// Writes bytes that are in no checksum of the packet's, or whose checksum the caller sees to.
    #[inline(always)]
    pub fn store<const N: usize>(&mut self, offset: usize, bytes: &[u8; N]) -> Option<()> {
        let flags = u64::from(BPF_F_RECOMPUTE_CSUM);
        // SAFETY: as in `replace`.
        let refused =
            unsafe { bpf_skb_store_bytes(self.skb, offset as u32, bytes.as_ptr().cast(), N as u32, flags) } != 0;
        if refused { None } else { Some(()) }
    }

    /// Takes off the VLAN tag that the kernel has put beside the packet, if there is one.
    #[inline(always)]
    pub fn drop_tag(&mut self) -> Option<()> {
        // SAFETY: as in `mark`, and as in `push_tag`.
        unsafe { ((*self.skb).vlan_present == 0 || bpf_skb_vlan_pop(self.skb) == 0).then_some(()) }
    }

    /// Makes it so long, for who writes all of it but the Ethernet header anew. The kernel lends no room behind a packet that
    /// its sender's own kernel has tunnelled, as a health check's: then it has to make some behind the Ethernet header.
    #[inline(always)]
    pub fn resize(&mut self, len: usize) -> Option<()> {
        // SAFETY: the helpers refuse a length that cannot be; no reference into the packet outlives the exclusive borrow.
        let resized = unsafe {
            bpf_skb_change_tail(self.skb, len as u32, 0) == 0
                || bpf_skb_adjust_room(self.skb, len as i32 - (*self.skb).len as i32, BPF_ADJ_ROOM_MAC, 0) == 0
        };
        resized.then_some(())
    }

    /// Mends the checksum of the TCP segment at `tcp`, which has had `from_len` bytes of `from` and now is `to`. Its
    /// addresses may have changed places.
    #[inline(always)]
    pub fn checksum_by<const N: usize, const M: usize>(
        &mut self,
        tcp: usize,
        from: &[u8; N],
        from_len: usize,
        to: &[u8; M],
    ) -> Option<()> {
        const WORD: u64 = 2;
        let at = (tcp + 16) as u32;
        let (from_len, pseudo) = (Self::below_64(from_len), u64::from(BPF_F_PSEUDO_HDR));
        let [was, is] = [from_len, M].map(|len| u64::from((len as u16).to_be()));
        // SAFETY: the helpers only read the bytes, which outlive the calls, and refuse what lies beyond the packet.
        let refused = unsafe {
            let (from, to) = (from.as_ptr().cast_mut().cast(), to.as_ptr().cast_mut().cast());
            let difference = bpf_csum_diff(from, from_len as u32, to, M as u32, 0);
            difference < 0
                || bpf_l4_csum_replace(self.skb, at, 0, difference as u64, 0) != 0
                || bpf_l4_csum_replace(self.skb, at, was, is, pseudo | WORD) != 0
        };
        if refused { None } else { Some(()) }
    }

    /// What the `len` bytes of TCP options at `options` ask for.
    #[inline(always)]
    pub fn offer(&self, options: usize, len: usize) -> Offer {
        Offer::unpack(scan_offer(self.skb, options as u64, len as u64))
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
    fn in_headers(mut offset: usize) -> usize {
        // SAFETY: one instruction on one register.
        unsafe { asm!("{0} &= 0x3fff", inout(reg) offset, options(pure, nomem, preserves_flags, nostack)) };
        offset
    }

    #[inline(always)]
    fn mptcp_options(&self, tcp: &Tcp) -> Options {
        Options::unpack(scan_options_of_skb(self.skb, tcp.options as u64, tcp.options_len as u64))
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

/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_offer(skb: *mut __sk_buff, options: u64, len: u64) -> u64 {
    Offer::scan(&SkbFrame::new(skb), below_128(options as usize), len as usize).pack()
}

/// Likewise.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn scan_options_of_skb(skb: *mut __sk_buff, options: u64, len: u64) -> u64 {
    Options::scan(&SkbFrame::new(skb), SkbFrame::in_headers(options as usize), len as usize).pack()
}

/// `offset`, known to the verifier to be below 128: the headers of an untagged packet end there.
#[inline(always)]
fn below_128(mut offset: usize) -> usize {
    // SAFETY: one instruction on one register.
    unsafe { asm!("{0} &= 127", inout(reg) offset, options(pure, nomem, preserves_flags, nostack)) };
    offset
}
