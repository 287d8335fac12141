//! Which hosts are on this machine or in the network around it.

use std::net::{Ipv4Addr, Ipv6Addr};

use url::{Host, Url};

/// Whether the URL itself says so. A name that resolves to an address there is not found out.
pub(super) fn is_internal(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            name == "localhost" || name.ends_with(".localhost")
        }
        Some(Host::Ipv4(address)) => is_internal_v4(address),
        Some(Host::Ipv6(address)) => is_internal_v6(address),
        None => true,
    }
}

/// The special-purpose addresses (RFC 6890) at which something may answer.
fn is_internal_v4(address: Ipv4Addr) -> bool {
    let [a, b, ..] = address.octets();
    // 0.0.0.0/8 is this host (RFC 791 section 3.2), 100.64.0.0/10 a carrier's or a cloud's own (RFC 6598).
    let shared = a == 100 && (64..128).contains(&b);
    a == 0
        || shared
        || address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_broadcast()
}

fn is_internal_v6(address: Ipv6Addr) -> bool {
    // Those that stand for an address of version 4: mapped (RFC 4291 section 2.5.5.2), translated (RFC 6052 section 2.1).
    let translated = address.segments().starts_with(&[0x64, 0xff9b, 0, 0, 0, 0]);
    let [.., a, b, c, d] = address.octets();
    match address.to_ipv4_mapped() {
        Some(mapped) => is_internal_v4(mapped),
        None if translated => is_internal_v4(Ipv4Addr::new(a, b, c, d)),
        None => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
                || address.is_multicast()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_this_machine_and_network_are_internal() {
        for internal in [
            "https://localhost/",
            "https://localhost./",
            "https://idp.localhost/",
            "https://127.0.0.1/",
            "https://0.0.0.0/",
            "https://0.1.2.3/",
            "https://10.1.2.3/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://0xc0a80101/",
            "https://100.64.0.1/",
            "https://169.254.169.254/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::]/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[64:ff9b::a9fe:a9fe]/",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://[ff02::1]/",
        ] {
            assert!(is_internal(&Url::parse(internal).unwrap()), "{internal}");
        }
        for public in [
            "https://issuer.example/",
            "https://localhost.example/",
            "https://1.1.1.1/",
            "https://100.128.0.1/",
            "https://172.32.0.1/",
            "https://[2606:4700::1111]/",
            "https://[64:ff9b::101:101]/",
        ] {
            assert!(!is_internal(&Url::parse(public).unwrap()), "{public}");
        }
    }
}
