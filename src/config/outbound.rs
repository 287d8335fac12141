//! `[outbound]`: how the broker calls others by HTTP.

use ipnet::IpNet;
use std::net::IpAddr;
use url::Host;

use super::reader::Section;

/// See `default.toml`.
#[derive(Debug, Clone)]
pub struct Outbound {
    /// Hosts that documents from outside may name though they are in this network.
    pub private_hosts: Vec<String>,
    /// Networks in which such hosts may be.
    pub private_networks: Vec<IpNet>,
    /// A longer answer is unreadable. 64 KiB to 1 MiB.
    pub max_response_bytes: usize,
    /// Authorities that are trusted beside the system's: PEM.
    pub authorities: Option<String>,
}

/// The limits of `max_response_bytes`.
const RESPONSE_BYTES: std::ops::RangeInclusive<u32> = 65_536..=1_048_576;

enum Private {
    Host(String),
    Network(IpNet),
}

pub(super) fn read(section: &Section<'_>) -> Option<Outbound> {
    let private = section.required("allow_private").list(private);
    let max_response_bytes = section.required("max_response_bytes").integer(RESPONSE_BYTES);
    let ca_file = section.optional("ca_file");
    let authorities = if ca_file.is_set() { ca_file.file_content().map(Some) } else { Some(None) };
    section.finish();
    let (mut private_hosts, mut private_networks) = (Vec::new(), Vec::new());
    for entry in private? {
        match entry {
            Private::Host(host) => private_hosts.push(host),
            Private::Network(network) => private_networks.push(network),
        }
    }
    Some(Outbound {
        private_hosts,
        private_networks,
        max_response_bytes: usize::try_from(max_response_bytes?).unwrap_or(usize::MAX),
        authorities: authorities?,
    })
}

fn private(text: &str) -> Result<Private, &'static str> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(Private::Network(address.into()));
    }
    if text.contains('/') {
        let network: IpNet =
            text.parse().map_err(|_| "must be a network such as 10.1.0.0/16, or the name of a host")?;
        if network.trunc() != network {
            return Err("has bits behind its prefix: write the first address of the network");
        }
        if network.prefix_len() == 0 {
            return Err("is every address: name the hosts or networks that are meant");
        }
        return Ok(Private::Network(network));
    }
    match Host::parse(text.strip_suffix('.').unwrap_or(text)) {
        Ok(Host::Domain(name)) if !name.contains('*') => Ok(Private::Host(name)),
        _ => Err("must be the name of a host, without scheme and port, or a network such as 10.1.0.0/16"),
    }
}
