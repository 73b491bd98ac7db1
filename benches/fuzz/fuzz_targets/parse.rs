//! The host's parsers over any bytes: whatever they find lies within the frame.
#![no_main]

use lb_common::{
    mptcp::Options,
    wire::{
        ethernet,
        ip::{self, Fragment, Header, Ip},
        ipv4::Ipv4,
        ipv6::Ipv6,
        tcp::Tcp,
        udp::Udp,
    },
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let Ok(link) = ethernet::parse(&frame) else { return };
    assert!((14..=22).contains(&link.payload) && link.payload <= frame.len());
    let ip = match link.ethertype {
        ethernet::IPV4 => Ipv4::load(&frame, link.payload).and_then(|header| header.check(&frame)),
        ethernet::IPV6 => Ipv6::load(&frame, link.payload).and_then(|header| header.check(&frame)),
        _ => return,
    };
    if let Ok(ip) = ip {
        within(frame, link.payload, &ip);
    }
});

fn within(frame: &[u8], at: usize, ip: &Ip) {
    assert_eq!(ip.header, at);
    assert!(ip.header + 20 <= ip.payload && ip.payload <= ip.end() && ip.end() <= frame.len(), "{ip:?}");
    if ip.fragment == Fragment::Later {
        return;
    }
    match ip.protocol {
        ip::TCP => {
            let Ok(tcp) = Tcp::parse(&frame, ip) else { return };
            assert_eq!(tcp.options, ip.payload + 20);
            assert!(tcp.options_len <= 40 && tcp.options_len % 4 == 0);
            assert_eq!(tcp.options + tcp.options_len + tcp.payload_len, ip.end());
            let options = Options::scan(&frame, tcp.options, tcp.options_len);
            assert_eq!(Options::unpack(options.pack()), options);
            // What is behind the options is nothing to the scan.
            let end = tcp.options + tcp.options_len;
            assert_eq!(Options::scan(&&frame[..end], tcp.options, tcp.options_len), options);
            if let Some(capable) = options.capable {
                let alone = capable.keys(&&frame[..end], &tcp);
                assert_eq!(capable.keys(&frame, &tcp), alone, "keys from beyond the options");
            }
            if let Some(join) = options.join {
                assert_eq!(
                    join.token(&frame, &tcp),
                    join.token(&&frame[..end], &tcp),
                    "a token from beyond the options"
                );
            }
        }
        ip::UDP => {
            let Ok(udp) = Udp::parse(&frame, ip) else { return };
            assert!(udp.payload == ip.payload + 8 && udp.payload <= ip.end());
        }
        _ => {}
    }
}
