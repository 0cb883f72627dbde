//! Where a webhook may go: the public internet, and those private networks that were allowed by name.
//!
//! Always true here: a name is looked up once per connection, every address it has must be allowed, and the connection is made
//! to exactly those addresses; an address written in a URL is judged the same way.

use futures::future::BoxFuture;
use ipnet::IpNet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use url::{Host, Url};

/// Looks names up.
pub trait Names: Send + Sync + std::fmt::Debug {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemNames;

impl Names for SystemNames {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|address| address.ip()).collect()) })
    }
}

/// The target is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} leads to {address}, which is not a public address and not on the list of allowed networks")]
pub struct Refused {
    pub host: String,
    pub address: IpAddr,
}

#[derive(Debug, Clone)]
pub struct Guard {
    names: Arc<dyn Names>,
    allowed: Arc<[IpNet]>,
}

impl Guard {
    pub fn new(names: Arc<dyn Names>, allowed: Vec<IpNet>) -> Self {
        Self { names, allowed: allowed.into() }
    }

    /// Judges a URL that names an address itself; such a one never reaches the resolver.
    pub fn check_url(&self, url: &Url) -> Result<(), Refused> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            Some(Host::Domain(_)) | None => return Ok(()),
        };
        self.check(&address.to_string(), address)
    }

    fn check(&self, host: &str, address: IpAddr) -> Result<(), Refused> {
        if is_public(address)
            || self.allowed.iter().any(|net| net.contains(&address) || net.contains(&unmapped(address)))
        {
            return Ok(());
        }
        Err(Refused { host: host.to_owned(), address })
    }

    async fn resolve(self, host: String) -> Result<Vec<SocketAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let addresses = self.names.lookup(host.clone()).await?;
        if addresses.is_empty() {
            return Err(format!("{host} has no address").into());
        }
        for address in &addresses {
            self.check(&host, *address)?;
        }
        Ok(addresses.into_iter().map(|address| SocketAddr::new(address, 0)).collect())
    }
}

/// The client dials what this returns, and nothing else.
impl reqwest::dns::Resolve for Guard {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        let guard = self.clone();
        let host = name.as_str().to_owned();
        Box::pin(async move {
            let addresses = guard.resolve(host).await?;
            Ok(Box::new(addresses.into_iter()) as reqwest::dns::Addrs)
        })
    }
}

fn unmapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether anybody on the internet could mean the same host by this address.
fn is_public(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

/// Networks of IANA's special-purpose registry, and multicast.
const SPECIAL_V4: &[([u8; 4], u32)] = &[
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 31, 196, 0], 24),
    ([192, 52, 193, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([192, 175, 48, 0], 24),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = u32::from(address);
    !SPECIAL_V4.iter().any(|(net, length)| (bits ^ u32::from(Ipv4Addr::from(*net))) >> (32 - length) == 0)
}

/// Only global unicast (2000::/3) without its special parts: what tunnels to IPv4, documentation, protocol assignments.
fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, ..] = address.segments();
    let global = a & 0xe000 == 0x2000;
    let protocols = a == 0x2001 && b < 0x0200;
    let documentation = (a == 0x2001 && b == 0x0db8) || (a == 0x3fff && b < 0x1000);
    let six_to_four = a == 0x2002;
    global && !protocols && !documentation && !six_to_four
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard(allowed: &[&str]) -> Guard {
        Guard::new(Arc::new(SystemNames), allowed.iter().map(|net| net.parse().unwrap()).collect())
    }

    #[test]
    fn every_spelling_of_a_private_address_is_refused() {
        for host in [
            "127.0.0.1",
            "127.1",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "127.0.0.1.",
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "239.255.255.255",
            "255.255.255.255",
            "240.0.0.1",
            "[::]",
            "[::1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:a9fe:a9fe]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[64:ff9b:1::a00:1]",
            "[2002:7f00:1::]",
            "[2001::1]",
            "[2001:db8::1]",
            "[fc00::1]",
            "[fdff::1]",
            "[fe80::1]",
            "[febf::1]",
            "[fec0::1]",
            "[ff02::1]",
            "[100::1]",
            "[3fff::1]",
        ] {
            let url = Url::parse(&format!("http://{host}/")).unwrap();
            assert!(guard(&[]).check_url(&url).is_err(), "{host}");
        }
    }

    #[test]
    fn public_addresses_pass() {
        for host in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "[2606:4700::1111]",
            "[::ffff:8.8.8.8]",
        ] {
            let url = Url::parse(&format!("http://{host}/")).unwrap();
            assert_eq!(guard(&[]).check_url(&url), Ok(()), "{host}");
        }
    }

    #[test]
    fn an_allowed_network_opens_itself_and_nothing_else() {
        let guard = guard(&["10.1.0.0/16"]);
        let check = |host: &str| guard.check_url(&Url::parse(&format!("http://{host}/")).unwrap());
        assert_eq!(check("10.1.2.3"), Ok(()));
        assert_eq!(check("[::ffff:10.1.2.3]"), Ok(()));
        assert!(check("10.2.0.1").is_err());
    }

    #[derive(Debug)]
    struct Fixed(Vec<IpAddr>);
    impl Names for Fixed {
        fn lookup(&self, _: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
            let addresses = self.0.clone();
            Box::pin(async move { Ok(addresses) })
        }
    }

    #[tokio::test]
    async fn one_private_address_among_public_ones_refuses_the_name() {
        let names = Fixed(vec!["1.1.1.1".parse().unwrap(), "::ffff:10.0.0.1".parse().unwrap()]);
        let error = Guard::new(Arc::new(names), vec![]).resolve("mixed.example".into()).await.unwrap_err();
        assert!(error.to_string().contains("10.0.0.1"), "{error}");
    }

    #[tokio::test]
    async fn a_name_without_addresses_is_an_error() {
        Guard::new(Arc::new(Fixed(vec![])), vec![]).resolve("nowhere.example".into()).await.unwrap_err();
    }
}
