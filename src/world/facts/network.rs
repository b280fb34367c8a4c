use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

/// A route that is in use, and one that refuses (`RTF_UP`, `RTF_REJECT` of linux/route.h).
const UP: u32 = 0x1;
const REJECT: u32 = 0x200;
/// An address for privacy, and one that is about to go (`IFA_F_*` of linux/if_addr.h).
const TEMPORARY: u32 = 0x01;
const DEPRECATED: u32 = 0x20;

/// The kernel's tables as text (proc_net(5)), and the devices with their hardware addresses.
pub(super) struct Tables<'a> {
    pub(super) route: &'a str,
    pub(super) fib_trie: &'a str,
    pub(super) if_inet6: &'a str,
    pub(super) ipv6_route: &'a str,
    pub(super) devices: Vec<(String, Option<String>)>,
}

/// What is known of the network.
pub(super) struct Network {
    /// `address`, `interface` and `gateway` of the default route.
    pub(super) ipv4: Value,
    /// The same of IPv6.
    pub(super) ipv6: Value,
    /// By name: the lists `ipv4` and `ipv6`, and `mac`.
    pub(super) interfaces: Value,
}

#[derive(Default)]
struct Interface {
    ipv4: Vec<Ipv4Addr>,
    ipv6: Vec<Address6>,
    mac: Option<String>,
}

struct Address6 {
    address: Ipv6Addr,
    /// It is good for connections from elsewhere.
    lasting: bool,
}

pub(super) fn gather(tables: &Tables<'_>) -> Network {
    let routes = routes4(tables.route);
    let mut interfaces: BTreeMap<String, Interface> = BTreeMap::new();
    for (name, mac) in &tables.devices {
        interfaces.entry(name.clone()).or_default().mac.clone_from(mac);
    }
    for address in local_addresses(tables.fib_trie) {
        if let Some(name) = interface_of(address, &routes) {
            interfaces.entry(name.to_owned()).or_default().ipv4.push(address);
        }
    }
    for (name, address) in addresses6(tables.if_inet6) {
        interfaces.entry(name).or_default().ipv6.push(address);
    }
    let ipv4 = default4(&routes, &interfaces);
    let ipv6 = default6(tables.ipv6_route, &interfaces);
    let interfaces = interfaces
        .into_iter()
        .map(|(name, interface)| {
            let ipv4: Vec<String> = interface.ipv4.iter().map(Ipv4Addr::to_string).collect();
            let ipv6: Vec<String> =
                interface.ipv6.iter().map(|address| address.address.to_string()).collect();
            (name, json!({ "ipv4": ipv4, "ipv6": ipv6, "mac": interface.mac }))
        })
        .collect();
    Network { ipv4, ipv6, interfaces: Value::Object(interfaces) }
}

/// The default route; without one, the only interface that has an address beside loopback.
fn default4(routes: &[Route4], interfaces: &BTreeMap<String, Interface>) -> Value {
    let route = routes
        .iter()
        .filter(|route| route.destination == 0 && route.mask == 0)
        .min_by_key(|route| route.metric);
    let addresses =
        |name: &str| interfaces.get(name).map(|one| one.ipv4.as_slice()).unwrap_or_default();
    if let Some(route) = route {
        let addresses = addresses(&route.interface);
        let near = |address: &&Ipv4Addr| {
            routes.iter().any(|link| {
                link.interface == route.interface
                    && link.mask != 0
                    && link.covers(route.gateway)
                    && link.covers(u32::from(**address))
            })
        };
        let address = addresses.iter().find(near).or_else(|| addresses.first());
        let gateway = (route.gateway != 0).then(|| Ipv4Addr::from(route.gateway).to_string());
        return json!({
            "address": address.map(Ipv4Addr::to_string),
            "interface": route.interface,
            "gateway": gateway,
        });
    }
    let mut candidates =
        interfaces.iter().filter(|(_, one)| one.ipv4.iter().any(|address| !address.is_loopback()));
    let only = match (candidates.next(), candidates.next()) {
        (Some((name, interface)), None) => interface.ipv4.first().map(|address| (name, address)),
        _ => None,
    };
    json!({
        "address": only.map(|(_, address)| address.to_string()),
        "interface": only.map(|(name, _)| name),
        "gateway": null,
    })
}

fn default6(table: &str, interfaces: &BTreeMap<String, Interface>) -> Value {
    let route = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (destination, length) = (fields.next()?, fields.next()?);
            let gateway = address6(fields.nth(2)?)?;
            let metric = u32::from_str_radix(fields.next()?, 16).ok()?;
            let flags = u32::from_str_radix(fields.nth(2)?, 16).ok()?;
            let interface = fields.next()?;
            let default = length == "00" && destination.bytes().all(|digit| digit == b'0');
            let used = flags & UP != 0 && flags & REJECT == 0 && interface != "lo";
            (default && used).then_some((metric, gateway, interface))
        })
        .min_by_key(|(metric, ..)| *metric);
    let Some((_, gateway, interface)) = route else {
        return json!({ "address": null, "interface": null, "gateway": null });
    };
    let address = interfaces.get(interface).and_then(|found| {
        found.ipv6.iter().find(|address| address.lasting).map(|found| found.address.to_string())
    });
    json!({
        "address": address,
        "interface": interface,
        "gateway": (!gateway.is_unspecified()).then(|| gateway.to_string()),
    })
}

/// A route of IPv4 that is in use; addresses in host order.
struct Route4 {
    interface: String,
    destination: u32,
    gateway: u32,
    mask: u32,
    metric: u32,
}

impl Route4 {
    fn covers(&self, address: u32) -> bool {
        address & self.mask == self.destination
    }
}

fn routes4(table: &str) -> Vec<Route4> {
    // The kernel prints the four bytes in network order as one number of its own order.
    let address = |hexadecimal: &str| {
        let number = u32::from_str_radix(hexadecimal, 16).ok()?;
        Some(u32::from_be_bytes(number.to_ne_bytes()))
    };
    let route = |line: &str| {
        let mut fields = line.split_whitespace();
        let interface = fields.next()?.to_owned();
        let (destination, gateway) = (address(fields.next()?)?, address(fields.next()?)?);
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let metric = fields.nth(2)?.parse().ok()?;
        let mask = address(fields.next()?)?;
        (flags & UP != 0 && flags & REJECT == 0).then_some(Route4 {
            interface,
            destination,
            gateway,
            mask,
            metric,
        })
    };
    table.lines().skip(1).filter_map(route).collect()
}

/// The host's own addresses, each once.
fn local_addresses(fib_trie: &str) -> Vec<Ipv4Addr> {
    let mut addresses = Vec::new();
    let mut leaf = None;
    for line in fib_trie.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            leaf = address.parse().ok();
        } else if line.starts_with("/32 host LOCAL")
            && let Some(address) = leaf
            && !addresses.contains(&address)
        {
            addresses.push(address);
        }
    }
    addresses
}

/// The interface whose own network has an address.
fn interface_of(address: Ipv4Addr, routes: &[Route4]) -> Option<&str> {
    if address.is_loopback() {
        return Some("lo");
    }
    routes
        .iter()
        .filter(|route| route.gateway == 0 && route.mask != 0 && route.covers(u32::from(address)))
        .max_by_key(|route| route.mask.count_ones())
        .map(|route| route.interface.as_str())
}

fn address6(hexadecimal: &str) -> Option<Ipv6Addr> {
    if hexadecimal.len() != 32 {
        return None;
    }
    u128::from_str_radix(hexadecimal, 16).ok().map(Ipv6Addr::from)
}

/// Addresses by interface, in the kernel's order.
fn addresses6(table: &str) -> Vec<(String, Address6)> {
    let address = |line: &str| {
        let mut fields = line.split_whitespace();
        let address = address6(fields.next()?)?;
        let scope = fields.nth(2)?;
        let flags = u32::from_str_radix(fields.next()?, 16).ok()?;
        let lasting = scope == "00" && flags & (TEMPORARY | DEPRECATED) == 0;
        Some((fields.next()?.to_owned(), Address6 { address, lasting }))
    };
    table.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: &str = "\
Iface	Destination	Gateway 	Flags	RefCnt	Use	Metric	Mask		MTU	Window	IRTT
wlan0	00000000	0100A8C0	0003	0	0	600	00000000	0	0	0
eth0	00000000	010200C0	0003	0	0	100	00000000	0	0	0
eth0	000200C0	00000000	0001	0	0	100	00FFFFFF	0	0	0
wlan0	0000A8C0	00000000	0001	0	0	600	00FFFFFF	0	0	0
";
    const FIB_TRIE: &str = "\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 127.0.0.1
        /32 host LOCAL
     |-- 192.0.2.0
        /24 link UNICAST
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 192.168.0.7
        /32 host LOCAL
     |-- 192.0.2.255
        /32 link BROADCAST
Local:
     |-- 192.0.2.2
        /32 host LOCAL
     |-- 203.0.113.9
        /32 host LOCAL
";
    const IF_INET6: &str = "\
fe8000000000000000fc00fffe000001 04 40 20 80     eth0
fd0000000000000000000000000000ff 04 40 00 01     eth0
fd000000000000000000000000000002 04 40 00 82     eth0
00000000000000000000000000000001 01 80 10 80       lo
";
    const IPV6_ROUTE: &str = "\
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fd000000000000000000000000000001 00000400 00000002 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
";

    fn tables<'a>(route: &'a str, fib_trie: &'a str) -> Tables<'a> {
        let mac = Some(String::from("02:fc:00:00:00:01"));
        Tables {
            route,
            fib_trie,
            if_inet6: IF_INET6,
            ipv6_route: IPV6_ROUTE,
            devices: vec![(String::from("eth0"), mac), (String::from("lo"), None)],
        }
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn the_default_route_has_the_lowest_metric() {
        let network = gather(&tables(ROUTE, FIB_TRIE));
        assert_eq!(
            network.ipv4,
            json!({ "address": "192.0.2.2", "interface": "eth0", "gateway": "192.0.2.1" })
        );
        assert_eq!(
            network.ipv6,
            json!({ "address": "fd00::2", "interface": "eth0", "gateway": "fd00::1" })
        );
        assert_eq!(
            network.interfaces,
            json!({
                "eth0": {
                    "ipv4": ["192.0.2.2"],
                    "ipv6": ["fe80::fc:ff:fe00:1", "fd00::ff", "fd00::2"],
                    "mac": "02:fc:00:00:00:01",
                },
                "lo": { "ipv4": ["127.0.0.1"], "ipv6": ["::1"], "mac": null },
                "wlan0": { "ipv4": ["192.168.0.7"], "ipv6": [], "mac": null },
            })
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn without_a_default_route_the_only_network_counts() {
        let head = ROUTE.lines().next().unwrap_or_default();
        let link = "eth0	000200C0	00000000	0001	0	0	0	00FFFFFF	0	0	0";
        let other = "eth1	0000A8C0	00000000	0001	0	0	0	00FFFFFF	0	0	0";
        let one = gather(&tables(&format!("{head}\n{link}\n"), FIB_TRIE)).ipv4;
        assert_eq!(one, json!({ "address": "192.0.2.2", "interface": "eth0", "gateway": null }));
        let two = gather(&tables(&format!("{head}\n{link}\n{other}\n"), FIB_TRIE)).ipv4;
        assert_eq!(two, json!({ "address": null, "interface": null, "gateway": null }));
    }

    #[test]
    fn empty_tables_are_no_error() {
        let network = gather(&Tables {
            route: "",
            fib_trie: "Main:\n  |-- nonsense\n /32 host LOCAL\n",
            if_inet6: "zz 1\n",
            ipv6_route: "\n",
            devices: Vec::new(),
        });
        assert_eq!(network.interfaces, json!({}));
        assert_eq!(network.ipv4["address"], Value::Null);
        assert_eq!(network.ipv6["interface"], Value::Null);
    }
}
