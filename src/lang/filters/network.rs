//! An address with the prefix of its network, IPv4 or IPv6.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address in its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Network {
    pub(super) is_six: bool,
    pub(super) value: u128,
    pub(super) prefix: u32,
}

/// Not reachable from everywhere: the special-purpose registries of IANA, as netaddr has them.
const NOT_GLOBAL: &[&str] = &[
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "240.0.0.0/4",
    "::1/128",
    "::/128",
    "::ffff:0:0/96",
    "64:ff9b:1::/48",
    "100::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "fc00::/7",
    "fe80::/10",
];
/// What is all the same.
const GLOBAL: &[&str] = &[
    "192.0.0.9/32",
    "192.0.0.10/32",
    "2001:1::1/128",
    "2001:1::2/128",
    "2001:3::/32",
    "2001:4:112::/48",
    "2001:20::/28",
    "2001:30::/28",
];

impl Network {
    /// An address, alone or with a prefix, a netmask or a hostmask after a slash.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (address, after) = match text.split_once('/') {
            Some((address, after)) => (address, Some(after)),
            None => (text, None),
        };
        let address = Self::of(address.parse().ok()?);
        let prefix = match after {
            None => address.width(),
            Some(after) => match after.parse() {
                Ok(prefix) => prefix,
                Err(_) => {
                    let mask = Self::of(after.parse().ok()?);
                    if mask.is_six != address.is_six {
                        return None;
                    }
                    if mask.is_netmask() {
                        mask.value.count_ones()
                    } else if mask.is_hostmask() {
                        address.width() - mask.value.count_ones()
                    } else {
                        return None;
                    }
                }
            },
        };
        (prefix <= address.width()).then_some(Self { prefix, ..address })
    }

    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(four) => Self { is_six: false, value: u32::from(four).into(), prefix: 32 },
            IpAddr::V6(six) => Self { is_six: true, value: six.into(), prefix: 128 },
        }
    }

    /// The address of a number: IPv4 if it fits and IPv6 is not wanted.
    pub(super) fn of_number(value: u128, prefix: Option<u32>, six: bool) -> Option<Self> {
        let is_six =
            six || value > u128::from(u32::MAX) || prefix.is_some_and(|prefix| prefix > 32);
        let width = if is_six { 128 } else { 32 };
        let prefix = prefix.unwrap_or(width);
        (prefix <= width).then_some(Self { is_six, value, prefix })
    }

    pub(super) fn width(self) -> u32 {
        if self.is_six { 128 } else { 32 }
    }

    fn all(self) -> u128 {
        u128::MAX >> (128 - self.width())
    }

    pub(super) fn hostmask(self) -> u128 {
        self.all().checked_shr(self.prefix).unwrap_or(0)
    }

    pub(super) fn netmask(self) -> u128 {
        self.all() ^ self.hostmask()
    }

    pub(super) fn first(self) -> u128 {
        self.value & self.netmask()
    }

    pub(super) fn last(self) -> u128 {
        self.value | self.hostmask()
    }

    /// How many bits are left for hosts.
    pub(super) fn host_bits(self) -> u32 {
        self.width() - self.prefix
    }

    /// How many addresses it has; none if that is 2^128.
    pub(super) fn size(self) -> Option<u128> {
        self.hostmask().checked_add(1)
    }

    /// The first and last address that hosts may have; none in a network of one.
    pub(super) fn usable(self) -> Option<(u128, u128)> {
        match self.host_bits() {
            0 => None,
            1 => Some((self.first(), self.last())),
            _ => Some((self.first() + 1, self.last() - 1)),
        }
    }

    /// The network without the host's bits.
    pub(super) fn cidr(self) -> Self {
        Self { value: self.first(), ..self }
    }

    pub(super) fn is_first(self) -> bool {
        self.value == self.first()
    }

    /// The text of another address of the same version.
    pub(super) fn text(self, value: u128) -> String {
        match u32::try_from(value) {
            Ok(four) if !self.is_six => Ipv4Addr::from(four).to_string(),
            _ => Ipv6Addr::from(value).to_string(),
        }
    }

    /// The address itself.
    pub(super) fn address(self) -> String {
        self.text(self.value)
    }

    /// An address so many further, if there is one.
    pub(super) fn plus(self, amount: i128) -> Option<u128> {
        let moved = self.value.checked_add_signed(amount)?;
        (moved <= self.all()).then_some(moved)
    }

    /// The address at an index of the network; negative ones count from its end.
    pub(super) fn nth(self, index: i128) -> Option<u128> {
        let distance = if index < 0 { index.unsigned_abs() - 1 } else { index.unsigned_abs() };
        match index {
            _ if distance > self.hostmask() => None,
            ..0 => Some(self.last() - distance),
            _ => Some(self.first() + distance),
        }
    }

    /// Whether all of another network is in it.
    pub(super) fn contains(self, other: Self) -> bool {
        self.is_six == other.is_six
            && self.prefix <= other.prefix
            && self.first() == other.value & self.netmask()
    }

    fn is_in(self, networks: &[&str]) -> bool {
        networks.iter().filter_map(|text| Self::parse(text)).any(|one| one.contains(self))
    }

    pub(super) fn alone(self) -> Self {
        Self { prefix: self.width(), ..self }
    }

    pub(super) fn is_global(self) -> bool {
        !self.alone().is_in(NOT_GLOBAL) || self.alone().is_in(GLOBAL)
    }

    pub(super) fn is_loopback(self) -> bool {
        self.alone().is_in(&["127.0.0.0/8", "::1/128"])
    }

    pub(super) fn is_link_local(self) -> bool {
        self.alone().is_in(&["169.254.0.0/16", "fe80::/10"])
    }

    pub(super) fn is_multicast(self) -> bool {
        self.is_in(&["224.0.0.0/4", "ff00::/8"])
    }

    pub(super) fn is_netmask(self) -> bool {
        let rest = self.value ^ self.all();
        rest & rest.wrapping_add(1) == 0
    }

    pub(super) fn is_hostmask(self) -> bool {
        self.value & self.value.wrapping_add(1) == 0
    }

    /// Its name in the reverse zones of DNS.
    pub(super) fn reverse_name(self) -> String {
        if self.is_six {
            let digits = format!("{:032x}", self.value);
            let digits: Vec<String> = digits.chars().rev().map(String::from).collect();
            return format!("{}.ip6.arpa.", digits.join("."));
        }
        let address = self.address();
        let parts: Vec<&str> = address.rsplit('.').collect();
        format!("{}.in-addr.arpa.", parts.join("."))
    }

    /// The fewest networks that cover the same addresses, by version and address.
    pub(super) fn merged(networks: &[Self]) -> Vec<Self> {
        let mut ranges: Vec<(bool, u128, u128)> =
            networks.iter().map(|one| (one.is_six, one.first(), one.last())).collect();
        ranges.sort_unstable();
        let mut joined: Vec<(bool, u128, u128)> = Vec::new();
        for (is_six, first, last) in ranges {
            match joined.last_mut() {
                Some(range) if range.0 == is_six && first <= range.2.saturating_add(1) => {
                    range.2 = range.2.max(last);
                }
                _ => joined.push((is_six, first, last)),
            }
        }
        let mut found = Vec::new();
        for (is_six, mut first, last) in joined {
            let width = if is_six { 128 } else { 32 };
            loop {
                // The largest network that begins here and does not go further.
                let mut bits = first.trailing_zeros().min(width);
                let end = |bits: u32| match 1_u128.checked_shl(bits) {
                    Some(size) => first.checked_add(size - 1),
                    None => Some(u128::MAX),
                };
                while end(bits).is_none_or(|end| end > last) {
                    bits -= 1;
                }
                found.push(Self { is_six, value: first, prefix: width - bits });
                match end(bits) {
                    Some(end) if end < last => first = end + 1,
                    _ => break,
                }
            }
        }
        found
    }

    /// The smallest network that has all of these; none if there are none, or of both versions.
    pub(super) fn spanning(networks: &[Self]) -> Option<Self> {
        let lowest = networks.iter().min_by_key(|one| (one.is_six, one.first()))?;
        let highest = networks.iter().max_by_key(|one| (one.is_six, one.last()))?;
        let mut span = Self { value: highest.last(), ..*highest };
        while span.prefix > 0 && span.value > lowest.first() {
            span.prefix -= 1;
            span.value = span.first();
        }
        (lowest.is_six == highest.is_six).then(|| span.cidr())
    }
}

impl fmt::Display for Network {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address(), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::parse(text).unwrap()).collect()
    }

    #[test]
    fn networks_are_read_as_netaddr_reads_them() {
        let cases = [
            ("10.1.2.3/24", Some("10.1.2.3/24")),
            ("10.0.0.1/0.0.0.255", Some("10.0.0.1/24")),
            ("10.0.0.1/255.255.0.0", Some("10.0.0.1/16")),
            ("::1", Some("::1/128")),
            ("10.0.0.1/255.0.255.0", None),
            ("10.0.0.0/33", None),
            ("010.0.0.1", None),
            ("10/8", None),
            ("10.0.0.1/24/3", None),
            ("10.0.0.1/::", None),
            ("", None),
        ];
        for (text, expected) in cases {
            let read = Network::parse(text).map(|network| network.to_string());
            assert_eq!(read.as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn the_largest_networks_do_not_overflow() {
        for text in ["::/0", "0.0.0.0/0", "ffff::/128", "255.255.255.255/32"] {
            let network = Network::parse(text).unwrap();
            assert_eq!(Network::merged(&[network, network]), [network]);
            assert_eq!(Network::spanning(&[network]).unwrap(), network);
            assert_eq!(network.nth(0), Some(network.first()));
            assert_eq!(network.nth(-1), Some(network.last()));
        }
        assert_eq!(Network::parse("::/0").unwrap().size(), None);
        assert_eq!(Network::parse("10.0.0.0/30").unwrap().nth(4), None);
        let halves = networks(&["0.0.0.0/1", "128.0.0.0/1", "::/1", "8000::/1"]);
        assert_eq!(Network::merged(&halves), networks(&["0.0.0.0/0", "::/0"]));
        let odd = networks(&["10.0.0.1", "10.0.0.2", "10.0.0.3"]);
        assert_eq!(Network::merged(&odd), networks(&["10.0.0.1/32", "10.0.0.2/31"]));
    }
}
