//! The backend's side of a tunnel: whether a frame is one from a balancer, and what is inside.

use crate::{
    packet::Packet,
    wire::{
        ethernet,
        ip::{self, Address, Family, Fragment, Header},
        ipv4::{self, Ipv4},
        ipv6::{self, Ipv6},
    },
};

/// A tunnel in front of an inner packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    outer: Family,
    inner: Family,
}

/// What became of a frame at the end of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Decap {
    /// The tunnel was taken off.
    Taken,
    /// Not a tunnel; passed to the host.
    NoTunnel,
    /// A tunnel, but not from a balancer; passed to the host, which drops what it has no tunnel for.
    Stranger,
    /// A tunnel from a balancer that holds no IP packet of its kind; dropped.
    Malformed,
}

impl Decap {
    /// How many outcomes there are.
    pub const COUNT: usize = 4;
    /// All of them, in the order of their indices.
    pub const ALL: [Self; Self::COUNT] = [Self::Taken, Self::NoTunnel, Self::Stranger, Self::Malformed];

    /// Whether the frame ends here.
    #[inline(always)]
    pub const fn is_dropped(self) -> bool {
        matches!(self, Self::Malformed)
    }

    /// The word for it in metrics and on screens.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Taken => "taken",
            Self::NoTunnel => "no_tunnel",
            Self::Stranger => "stranger",
            Self::Malformed => "malformed",
        }
    }
}

impl Tunnel {
    /// Bytes of the outer IP header.
    #[inline(always)]
    #[expect(clippy::len_without_is_empty, reason = "a tunnel has a header")]
    pub const fn len(&self) -> usize {
        match self.outer {
            Family::V4 => ipv4::HEADER_LEN,
            Family::V6 => ipv6::HEADER_LEN,
        }
    }

    /// The `EtherType` of what is inside.
    #[inline(always)]
    pub const fn inner_ethertype(&self) -> u16 {
        match self.inner {
            Family::V4 => ethernet::IPV4,
            Family::V6 => ethernet::IPV6,
        }
    }
}

/// Reads the tunnel of a frame, if it is one that `is_balancer` has sent.
///
/// # Errors
/// Why the frame is left as it is, or dropped.
#[inline(always)]
pub fn find_tunnel<P: Packet>(packet: &P, is_balancer: impl Fn(&Address) -> bool) -> Result<Tunnel, Decap> {
    let frame = ethernet::parse(packet).map_err(|_| Decap::NoTunnel)?;
    if frame.tags() > 0 {
        return Err(Decap::NoTunnel);
    }
    match frame.ethertype {
        ethernet::IPV4 => {
            let header = Ipv4::load(packet, frame.payload).map_err(|_| Decap::NoTunnel)?;
            inside(packet, &header, Address::v4(header.source()), ipv4::HEADER_LEN, is_balancer)
        }
        ethernet::IPV6 => {
            let header = Ipv6::load(packet, frame.payload).map_err(|_| Decap::NoTunnel)?;
            inside(packet, &header, Address::v6(header.source()), ipv6::HEADER_LEN, is_balancer)
        }
        _ => Err(Decap::NoTunnel),
    }
}

#[inline(always)]
fn inside<P: Packet, H: Header>(
    packet: &P,
    header: &H,
    source: Address,
    header_len: usize,
    is_balancer: impl Fn(&Address) -> bool,
) -> Result<Tunnel, Decap> {
    let outer = header.check(packet).map_err(|_| Decap::NoTunnel)?;
    let inner = match outer.protocol {
        ip::IPIP => Family::V4,
        ip::IPV6_IN_IP => Family::V6,
        _ => return Err(Decap::NoTunnel),
    };
    if !is_balancer(&source) {
        return Err(Decap::Stranger);
    }
    // Weir sends no outer options and no fragments.
    if outer.payload - outer.header != header_len || outer.fragment != Fragment::Whole {
        return Err(Decap::Malformed);
    }
    let [version] = packet.load(outer.payload).ok_or(Decap::Malformed)?;
    let expected = match inner {
        Family::V4 => 4,
        Family::V6 => 6,
    };
    if version >> 4 != expected {
        return Err(Decap::Malformed);
    }
    Ok(Tunnel { outer: outer.family, inner })
}
