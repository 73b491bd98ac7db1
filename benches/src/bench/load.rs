//! What is measured: packets, how they vary, and what must become of them.

use lb_common::{
    bench::{Plan, SEGMENT, Varies},
    reason::Reason,
};

use super::farm::{CLIENT_V4, CLIENT_V6, Outer, PORT, VIP_V4, VIP_V6};

/// Bytes of an Ethernet header, and from there to the sequence number behind an IPv4 header.
const ETHERNET: usize = 14;
const IPV4_SEQUENCE: usize = ETHERNET + 20 + 4;

/// What the same wrapper goes around for what has to be subtracted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Baseline {
    /// Nothing.
    Empty,
    /// Room for a tunnel's IP header.
    Push(Outer),
}

/// Packets of one kind, or of two that take turns.
#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) frames: Vec<Vec<u8>>,
    pub(crate) ipv6: bool,
    pub(crate) varies: Varies,
    /// The reasons that the balancer must give, as often as each other.
    pub(crate) expected: &'static [Reason],
    pub(crate) baseline: Baseline,
    /// The last 32 bits of the first client's address, if they are not the usual clients.
    pub(crate) client: Option<u32>,
}

impl Load {
    /// Packets of one kind for which nothing changes but the flow.
    pub(crate) fn of(frame: Vec<u8>, expected: &'static [Reason]) -> Self {
        Self {
            frames: vec![frame],
            ipv6: false,
            varies: Varies::NOTHING,
            expected,
            baseline: Baseline::Push(Outer::V4),
            client: None,
        }
    }

    /// Packets of two kinds, which each flow sends one after the other.
    pub(crate) fn pair(frames: &[Vec<u8>; 2], expected: &'static [Reason], varies: Varies) -> Self {
        Self { frames: frames.to_vec(), varies, ..Self::of(Vec::new(), expected) }
    }

    /// The last 32 bits of the first client's address.
    pub(crate) fn first_client(&self) -> u32 {
        let [.., a, b, c, d] = CLIENT_V6.octets();
        let usual = if self.ipv6 { u32::from_be_bytes([a, b, c, d]) } else { CLIENT_V4.to_bits() };
        self.client.unwrap_or(usual)
    }

    /// The last 32 bits of the first VIP's address.
    fn first_vip(&self) -> u32 {
        let [.., a, b, c, d] = VIP_V6.octets();
        if self.ipv6 { u32::from_be_bytes([a, b, c, d]) } else { VIP_V4.to_bits() }
    }

    /// How the wrapper makes them, for some flows and tokens and one VIP.
    pub(crate) fn plan(&self, flows: u32, tokens: u32) -> Plan {
        Plan {
            ethernet: *self.frames[0].first_chunk().expect("a frame has an Ethernet header"),
            pushed: match self.baseline {
                Baseline::Empty => 0,
                Baseline::Push(outer) => outer.pushed(),
            },
            flows,
            stride: stride(flows),
            flow: 0,
            packets: 0,
            tracked: 0,
            client: self.first_client(),
            port: PORT,
            ipv6: self.ipv6.into(),
            varies: self.varies,
            tokens,
            vips: 1,
            vip: self.first_vip(),
            alternates: (self.frames.len() == 2).into(),
            segments: self.segments(),
        }
    }

    fn segments(&self) -> [[u8; SEGMENT]; 2] {
        match self.frames.as_slice() {
            [first, second] => {
                [first, second].map(|frame| *frame[IPV4_SEQUENCE..].first_chunk().expect("32 bytes of options"))
            }
            _ => [[0; SEGMENT]; 2],
        }
    }
}

/// A step through so many flows that comes to each of them, and to none soon after its neighbours: the golden section,
/// or the next step without a common divisor.
fn stride(flows: u32) -> u32 {
    let golden = u64::from(flows).saturating_mul(0x9e37_79b9) >> 32;
    let golden = u32::try_from(golden).unwrap_or(1).max(1);
    (golden..=flows).find(|&step| divisor(step, flows) == 1).expect("the last but one has none")
}

const fn divisor(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { divisor(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stride_comes_to_every_flow() {
        for flows in [1, 2, 10, 65_536, 100_000] {
            let step = stride(flows);
            let mut seen = vec![false; flows as usize];
            let mut flow = 0;
            for _ in 0..flows {
                flow = (flow + step) % flows;
                seen[flow as usize] = true;
            }
            assert!(seen.iter().all(|&seen| seen), "{flows} flows by {step}");
        }
    }
}
