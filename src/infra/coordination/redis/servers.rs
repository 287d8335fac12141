//! `redis.url`: which servers, and how they belong together.

use std::path::PathBuf;

use redis::ConnectionAddr;
use url::Url;

use super::error::RedisSetupError;

/// What a URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Servers {
    /// `redis://host[:port][/database]`, with TLS `rediss://`.
    One { address: Address, database: i64 },
    /// `redis+unix:///path[?db=database]`.
    Socket { path: PathBuf, database: i64 },
    /// `redis-sentinel://host[:port],…/master[/database]`, with TLS `rediss-sentinel://`.
    Sentinel { sentinels: Vec<Address>, master: String, database: i64 },
    /// `redis-cluster://host[:port],…`, with TLS `rediss-cluster://`.
    Cluster { nodes: Vec<Address> },
}

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) tls: bool,
}

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;

impl Servers {
    pub(super) fn parse(text: &str) -> Result<Self, RedisSetupError> {
        parse(text).map_err(RedisSetupError::Url)
    }
}

impl Address {
    pub(super) fn to_redis(&self) -> ConnectionAddr {
        let (host, port) = (self.host.clone(), self.port);
        if self.tls {
            ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None }
        } else {
            ConnectionAddr::Tcp(host, port)
        }
    }
}

fn parse(text: &str) -> Result<Servers, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    if scheme == "redis+unix" {
        return socket(text);
    }
    if rest.contains(['?', '#', '@']) {
        return Err("must have no user, password, query or fragment");
    }
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let tls = scheme.starts_with("rediss");
    let list = |port| hosts.split(',').map(|host| address(host, port, tls)).collect::<Result<Vec<_>, _>>();
    match scheme {
        "redis" | "rediss" => {
            Ok(Servers::One { address: address(hosts, REDIS_PORT, tls)?, database: database(path)? })
        }
        "redis-sentinel" | "rediss-sentinel" => {
            let (master, path) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("must name the master behind the sentinels, as redis-sentinel://host/master");
            }
            let (sentinels, database) = (list(SENTINEL_PORT)?, database(path)?);
            Ok(Servers::Sentinel { sentinels, master: master.to_owned(), database })
        }
        "redis-cluster" | "rediss-cluster" if database(path)? != 0 => Err("a cluster has no databases"),
        "redis-cluster" | "rediss-cluster" => Ok(Servers::Cluster { nodes: list(REDIS_PORT)? }),
        _ => Err("has an unknown scheme"),
    }
}

fn socket(text: &str) -> Result<Servers, &'static str> {
    let url = Url::parse(text).map_err(|_| "is no URL")?;
    let path = url.path();
    if !path.starts_with('/') || path.len() < 2 || url.has_host() || url.fragment().is_some() {
        return Err("must name a socket, as redis+unix:///run/redis.sock");
    }
    let number = match url.query().map(|query| query.strip_prefix("db=")) {
        None => "",
        Some(Some(number)) if !number.is_empty() => number,
        Some(_) => return Err("must have no query but ?db="),
    };
    Ok(Servers::Socket { path: PathBuf::from(path), database: database(number)? })
}

fn address(text: &str, default_port: u16, tls: bool) -> Result<Address, &'static str> {
    if text.contains(',') {
        return Err("has more than one host, but is neither of sentinels nor of a cluster");
    }
    // The URL parser knows what a host is; http is as good as any scheme with a host.
    let url = Url::parse(&format!("http://{text}")).map_err(|_| "has a host that is none")?;
    let host = match url.host() {
        Some(url::Host::Domain(name)) => name.to_owned(),
        Some(url::Host::Ipv4(ip)) => ip.to_string(),
        Some(url::Host::Ipv6(ip)) => ip.to_string(),
        None => return Err("has no host"),
    };
    // Port 80 is what the parser leaves out for http.
    let port = url.port().unwrap_or(if text.ends_with(":80") { 80 } else { default_port });
    Ok(Address { host, port, tls })
}

fn database(text: &str) -> Result<i64, &'static str> {
    match text.trim_end_matches('/') {
        "" => Ok(0),
        number => number
            .parse()
            .ok()
            .filter(|number| *number >= 0)
            .ok_or("has a database that is not a whole number"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16, tls: bool) -> Address {
        Address { host: host.to_owned(), port, tls }
    }

    #[test]
    fn every_kind_of_url_is_read() {
        let cases = [
            ("redis://r", Servers::One { address: at("r", 6379, false), database: 0 }),
            ("rediss://r:80/3", Servers::One { address: at("r", 80, true), database: 3 }),
            ("redis://[::1]:7", Servers::One { address: at("::1", 7, false), database: 0 }),
            ("redis+unix:///run/r.sock", Servers::Socket { path: "/run/r.sock".into(), database: 0 }),
            ("redis+unix:///run/r.sock?db=2", Servers::Socket { path: "/run/r.sock".into(), database: 2 }),
            (
                "redis-sentinel://a,b:5/main/1",
                Servers::Sentinel {
                    sentinels: vec![at("a", 26379, false), at("b", 5, false)],
                    master: "main".to_owned(),
                    database: 1,
                },
            ),
            (
                "rediss-cluster://a,10.0.0.2:7001",
                Servers::Cluster { nodes: vec![at("a", 6379, true), at("10.0.0.2", 7001, true)] },
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(Servers::parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn mistakes_are_told() {
        for text in [
            "",
            "r:6379",
            "redis://",
            "redis://a,b",
            "redis://r/x",
            "redis://r/-1",
            "redis://user:secret@r",
            "redis://r?x=1",
            "rediss://r#insecure",
            "http://r",
            "redis+unix://",
            "redis+unix:///s?x=1",
            "redis+unix://host/s",
            "redis-sentinel://a",
            "redis-sentinel://a,/m",
            "redis-cluster://a/1",
            "redis-cluster://a,,b",
        ] {
            let error = Servers::parse(text).map(|servers| panic!("{text}: {servers:?}")).unwrap_err();
            assert!(!error.to_string().contains("secret"), "{text}: {error}");
        }
    }
}
