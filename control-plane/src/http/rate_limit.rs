//! A ceiling per address on everything the panel answers, so that no caller alone can keep it busy. Logins have their own,
//! tighter limits in the operator service. The table of addresses is bounded.

use super::RemoteAddr;
use crate::error::{Error, Kind};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

const MAX_ADDRESSES: usize = 20_000;

#[derive(Debug, Clone)]
pub struct AddressLimit {
    limiter: Arc<DefaultKeyedRateLimiter<IpAddr>>,
}

impl AddressLimit {
    /// `per_second` sustained, `burst` at once.
    pub fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { limiter: Arc::new(RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst))) }
    }

    pub fn check(&self, address: IpAddr) -> Result<(), Error> {
        if self.limiter.len() > MAX_ADDRESSES {
            self.limiter.retain_recent();
            if self.limiter.len() > MAX_ADDRESSES {
                return Err(refusal(1));
            }
        }
        self.limiter.check_key(&bucket(address)).map_err(|until| {
            let wait = until.wait_time_from(DefaultClock::default().now());
            refusal(wait.as_secs().saturating_add(1))
        })
    }
}

/// One IPv6 subscriber holds a whole /64, so it counts as one.
fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        v4 @ IpAddr::V4(_) => v4,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

fn refusal(retry_after_s: u64) -> Error {
    Error::new(Kind::RateLimited { retry_after_s }, "Too many requests from this address; wait a moment and try again")
}

pub async fn enforce(State(limit): State<AddressLimit>, request: Request, next: Next) -> Response {
    if let Some(RemoteAddr(address)) = request.extensions().get::<RemoteAddr>().copied()
        && let Err(error) = limit.check(address)
    {
        return error.into_response();
    }
    next.run(request).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_is_held_back_and_its_neighbour_is_not() {
        let one = NonZeroU32::MIN;
        let limit = AddressLimit::new(one, NonZeroU32::new(3).unwrap());
        let (a, b) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        for _ in 0..3 {
            limit.check(a).unwrap();
        }
        assert!(matches!(limit.check(a).unwrap_err().kind, Kind::RateLimited { retry_after_s: 1.. }));
        limit.check(b).unwrap();
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        assert_eq!(bucket("2001:db8::1".parse().unwrap()), bucket("2001:db8::ffff".parse().unwrap()));
        assert_ne!(bucket("2001:db8::1".parse().unwrap()), bucket("2001:db8:0:1::1".parse().unwrap()));
        assert_eq!(bucket("::ffff:192.0.2.1".parse().unwrap()), "192.0.2.1".parse::<IpAddr>().unwrap());
    }
}
