//! Which addresses are out in the world, and which are this machine, the network around it, or nobody's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whether a server of the public internet can have this address: the IANA special-purpose registries (RFC 6890), and what
/// stands for an address of version 4 is judged as that.
pub(super) fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// The address that is meant: of one of version 6 that is made of one of version 4, the latter. Otherwise 169.254.169.254 would
/// be reached as `::ffff:a9fe:a9fe` or, through a translator, as `64:ff9b::a9fe:a9fe`.
pub(super) fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let [.., a, b, c, d] = six.octets();
    match six.segments() {
        // Mapped (RFC 4291 section 2.5.5.2), translated (RFC 6052 section 2.1).
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Ipv4Addr::new(a, b, c, d).into(),
        // 6to4 (RFC 3056 section 2).
        [0x2002, high, low, ..] => {
            let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address,
    }
}

#[expect(clippy::match_same_arms, reason = "each kind of address has its line")]
fn is_public_v4(address: Ipv4Addr) -> bool {
    match address.octets() {
        // This host (RFC 791 section 3.2), loopback (RFC 1122), multicast (RFC 5771), and what is reserved, broadcast included.
        [0 | 127 | 224.., ..] => false,
        // Private (RFC 1918).
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => false,
        // A carrier's or a cloud's own (RFC 6598).
        [100, 64..=127, ..] => false,
        // Link-local (RFC 3927), where clouds answer questions about a machine's credentials.
        [169, 254, ..] => false,
        // Protocol assignments (RFC 6890), documentation (RFC 5737), the relays of 6to4 (RFC 7526).
        [192, 0, 0 | 2, _] | [192, 88, 99, _] => false,
        // Documentation again, benchmarks (RFC 2544).
        [198, 51, 100, _] | [203, 0, 113, _] | [198, 18..=19, ..] => false,
        _ => true,
    }
}

/// Only `2000::/3` is handed out (RFC 4291 section 2.4): unspecified, loopback, unique local, link-local, site-local and
/// multicast lie outside.
#[expect(clippy::match_same_arms, reason = "each kind of address has its line")]
fn is_public_v6(address: Ipv6Addr) -> bool {
    match address.segments() {
        // Protocol assignments (RFC 2928), Teredo (RFC 4380) among them, whose addresses hide one of version 4; documentation
        // (RFC 3849).
        [0x2001, 0..=0x1ff | 0xdb8, ..] => false,
        // Documentation (RFC 9637).
        [0x3fff, 0..=0xfff, ..] => false,
        [first, ..] => (0x2000..=0x3fff).contains(&first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Row of the security page: loopback, private, link-local, CGNAT, multicast, unspecified, documentation, and each of them
    /// inside an address of version 6.
    #[test]
    fn special_addresses_are_not_public() {
        let special = [
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "169.254.169.254",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.0.170",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.1",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
        ];
        for text in special {
            let four: Ipv4Addr = text.parse().unwrap();
            assert!(!is_public(four.into()), "{text}");
            let [a, b, c, d] = four.octets().map(u16::from);
            let (high, low) = (a << 8 | b, c << 8 | d);
            for (how, six) in [
                ("mapped", four.to_ipv6_mapped()),
                ("compatible", Ipv6Addr::new(0, 0, 0, 0, 0, 0, high, low)),
                ("translated", Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low)),
                ("translated locally", Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, high, low)),
                ("6to4", Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1)),
                ("Teredo", Ipv6Addr::new(0x2001, 0, 0x4136, 0xe378, 0x8000, 0x63bf, !high, !low)),
            ] {
                assert!(!is_public(six.into()), "{text} {how}: {six}");
            }
        }
        for six in [
            "::",
            "::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:20::1",
            "2001:1ff::1",
            "2001:db8::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "5f00::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "ff0e::1",
        ] {
            assert!(!is_public(six.parse().unwrap()), "{six}");
        }
    }

    #[test]
    fn everything_else_is_public() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.1",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "191.255.255.255",
            "192.0.1.1",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "2a00::1",
            "3ffe::1",
            "3fff:1000::1",
            "64:ff9b::101:101",
            "::ffff:1.1.1.1",
            "2002:101:101::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }
}
