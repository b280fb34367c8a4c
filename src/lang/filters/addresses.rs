//! Addresses and networks: the filters of the collection ansible.utils.

use minijinja::value::ValueKind;
use minijinja::{Error, Value};

use super::network::Network;
use super::{Arguments, Filter, filter, list, wrong};

/// Filters of addresses, networks and hardware addresses.
pub(super) const FILTERS: &[Filter] = &[
    filter("ipaddr", QUERY, |value, arguments| {
        queried(value, &arguments.text("query", ""), arguments.integer("version")?)
    }),
    filter("ipv4", QUERY, |value, arguments| queried(value, &arguments.text("query", ""), Some(4))),
    filter("ipv6", QUERY, |value, arguments| queried(value, &arguments.text("query", ""), Some(6))),
    filter("ipwrap", QUERY, |value, arguments| {
        let query = arguments.text("query", "");
        let wrapped = |one: &Value| match queried(one, &query, None) {
            Ok(found) if found.is_true() => queried(&found, "wrap", None).unwrap_or(one.clone()),
            _ => one.clone(),
        };
        Ok(match items(value)? {
            Some(items) => items.iter().map(wrapped).collect(),
            None => wrapped(value),
        })
    }),
    filter("ipsubnet", &["query", "index"], ipsubnet),
    filter("ipmath", &["amount"], |value, arguments| {
        let network = needed(value)?;
        let moved = network.plus(integer(arguments, "amount")?);
        let moved = moved.ok_or_else(|| wrong("there is no such address"))?;
        Ok(Value::from(network.text(moved)))
    }),
    filter("ipcut", &["amount"], ipcut),
    filter("nthhost", &["query"], |value, arguments| {
        let network = read(value).map(|given| given.network);
        let found = network.zip(arguments.integer("query")?);
        let found = found.and_then(|(network, nth)| Some(network.text(network.nth(nth.into())?)));
        Ok(found.map_or(Value::from(false), Value::from))
    }),
    filter("next_nth_usable", &["offset"], |value, arguments| {
        nth_usable(value, integer(arguments, "offset")?)
    }),
    filter("previous_nth_usable", &["offset"], |value, arguments| {
        nth_usable(value, -integer(arguments, "offset")?)
    }),
    filter("network_in_network", &["test"], |value, arguments| {
        let test = arguments.needed("test")?;
        Ok(Value::from(read(value).zip(read(&test)).is_some_and(|(outer, inner)| {
            is_within(range(outer.network), inner.network, outer.network)
        })))
    }),
    filter("network_in_usable", &["test"], |value, arguments| {
        let test = arguments.needed("test")?;
        Ok(Value::from(read(value).zip(read(&test)).is_some_and(|(outer, inner)| {
            let usable = outer.network.usable().unwrap_or(range(outer.network));
            is_within(usable, inner.network, outer.network)
        })))
    }),
    filter("reduce_on_network", &["network"], |value, arguments| {
        let network = needed(&arguments.needed("network")?)?;
        let inside = |one: &Value| {
            read(one).is_some_and(|one| is_within(range(network), one.network, network))
        };
        Ok(list("reduce_on_network", value)?.into_iter().filter(inside).collect())
    }),
    filter("cidr_merge", &["action"], cidr_merge),
    filter("slaac", &["query"], |value, arguments| {
        let network = read(value).map(|given| given.network).filter(|network| network.is_six);
        let hardware = hardware(&arguments.text("query", ""));
        Ok(network.zip(hardware).map_or(Value::from(false), |(network, hardware)| {
            let (high, low) = (hardware >> 24, hardware & 0xff_ffff);
            let identifier = (high << 40 | 0xff_fe00_0000 | low) ^ 1 << 57;
            Value::from(network.text(network.first().wrapping_add(identifier.into())))
        }))
    }),
    filter("hwaddr", &["query", "alias"], hwaddr),
    filter("macaddr", &["query"], hwaddr),
    filter("ip4_hex", &["delimiter"], |value, arguments| {
        let network = needed(value)?;
        if network.is_six {
            return Err(wrong("`ip4_hex` takes an IPv4 address"));
        }
        let bytes: Vec<String> =
            network.value.to_be_bytes()[12..].iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Value::from(bytes.join(&arguments.text("delimiter", ""))))
    }),
    filter("ipv6form", &["format"], |value, arguments| {
        let network = needed(value)?;
        let words: Vec<u16> = (0..8).map(|at| (network.value >> (112 - 16 * at)) as u16).collect();
        let joined = |word: fn(&u16) -> String| {
            Value::from(words.iter().map(word).collect::<Vec<_>>().join(":"))
        };
        match arguments.text("format", "").as_str() {
            _ if !network.is_six => Ok(Value::from(network.address())),
            "expand" => Ok(joined(|word| format!("{word:04x}"))),
            "x509" => Ok(joined(|word| format!("{word:x}"))),
            "compress" => Ok(Value::from(network.address())),
            other => Err(wrong(format!("`ipv6form` knows no form `{other}`"))),
        }
    }),
    filter("usable_range", &[], |value, _| {
        const LIMIT: u128 = 1 << 16;
        let network = needed(value)?;
        let size = network.size().filter(|size| *size <= LIMIT).filter(|_| network.is_first());
        let size =
            size.ok_or_else(|| wrong(format!("this is not a network of up to {LIMIT} addresses")))?;
        let all: Value = (0..size).map(|at| network.text(network.first() + at)).collect();
        Ok(Value::from_pairs([("usable_ips", all), ("number_of_ips", Value::from(size))]))
    }),
];

const QUERY: &[&str] = &["query", "version", "alias"];

/// What a filter is given.
struct Given {
    network: Network,
    /// Whether it was written with a prefix.
    has_prefix: bool,
    /// What a query gives back that only asks for something.
    value: Value,
}

/// An address, a network, a number, or a number with a prefix.
fn read(value: &Value) -> Option<Given> {
    read_as(value, false)
}

fn read_as(value: &Value, six: bool) -> Option<Given> {
    if matches!(value.kind(), ValueKind::Bool | ValueKind::None) {
        return None;
    }
    let text = value.to_string();
    let number = |digits: &str| -> Option<u128> {
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    if let Some(number) = number(&text).filter(|number| *number > 0 || value.as_str().is_some()) {
        let network = Network::of_number(number, None, six)?;
        return Some(Given { network, has_prefix: false, value: network.to_string().into() });
    }
    if let Some(network) = Network::parse(&text) {
        return Some(Given { network, has_prefix: text.contains('/'), value: value.clone() });
    }
    let (address, prefix) = text.split_once('/')?;
    let network = Network::of_number(number(address)?, Some(prefix.parse().ok()?), false)?;
    Some(Given { network, has_prefix: true, value: network.to_string().into() })
}

fn needed(value: &Value) -> Result<Network, Error> {
    read(value)
        .map(|given| given.network)
        .ok_or_else(|| wrong(format!("`{value}` is neither an address nor a network")))
}

fn integer(arguments: &Arguments, name: &str) -> Result<i128, Error> {
    arguments.needed(name).and_then(i128::try_from)
}

fn items(value: &Value) -> Result<Option<Vec<Value>>, Error> {
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => list("ipaddr", value).map(Some),
        _ => Ok(None),
    }
}

/// What `ipaddr` says: what was asked for; false for what is no address, and nothing for one that is
/// not what was asked for.
fn queried(value: &Value, query: &str, version: Option<i64>) -> Result<Value, Error> {
    if let Some(items) = items(value)? {
        let mut found = Vec::new();
        for item in items {
            found.push(queried(&item, query, version)?);
        }
        found.retain(Value::is_true);
        return Ok(Value::from(found));
    }
    let given = read_as(value, version == Some(6));
    let is_wanted = |given: &Given| version.is_none_or(|six| (six == 6) == given.network.is_six);
    match given.filter(is_wanted) {
        Some(given) => Ok(match answer(&given, query)? {
            Some(answer) => answer,
            None => Value::from(()),
        }),
        None => Ok(Value::from(false)),
    }
}

/// The answer to a query, if there is one.
fn answer(given: &Given, query: &str) -> Result<Option<Value>, Error> {
    let network = given.network;
    let bits = network.host_bits();
    let is_host = !network.is_first();
    let text = |text: String| Some(Value::from(text));
    let at = |value: u128| text(network.text(value));
    let with = |other: u128| text(format!("{} {}", network.address(), network.text(other)));
    let first_with =
        |other: u128| text(format!("{} {}", network.text(network.first()), network.text(other)));
    let value_if = |holds: bool| holds.then(|| given.value.clone());
    let no = Some(Value::from(false));
    let usable = || match given.has_prefix {
        true => Ok(network.usable()),
        false => Err(wrong(format!("`{}` is an address, not a network", network.address()))),
    };
    let next_to = |amount: i128| -> Result<Option<Value>, Error> {
        let moved = usable()?.zip(network.plus(amount));
        let moved = moved.filter(|((first, last), moved)| (first..=last).contains(&moved));
        Ok(moved.and_then(|(_, moved)| at(moved)))
    };
    Ok(match query {
        "" if given.has_prefix => text(network.to_string()),
        "" => text(network.address()),
        "6to4" if network.is_six => {
            let inside = Network::parse("2002::/16").is_some_and(|of| of.contains(network.alone()));
            if inside && (!given.has_prefix || is_host) { Some(given.value.clone()) } else { no }
        }
        "6to4" if bits > 0 && !is_host || network.is_global() && network.is_multicast() => no,
        "6to4" => {
            let (high, low) = (network.value >> 16, network.value & 0xffff);
            text(format!("2002:{high:04x}:{low:04x}::1/48"))
        }
        "address" | "ip" => {
            (bits < 2 || is_host || network.is_six).then(|| network.address().into())
        }
        "address/prefix" | "gateway" | "gw" | "host/prefix" | "hostnet" | "router" => {
            let edge = network.value == network.first() || network.value == network.last();
            if bits > 1 && edge { no } else { text(network.to_string()) }
        }
        "bool" => Some(Value::from(true)),
        "broadcast" if bits > 1 => at(network.last()),
        "cidr" => text(network.to_string()),
        "first_usable" => usable()?.and_then(|(first, _)| at(first)),
        "last_usable" => usable()?.and_then(|(_, last)| at(last)),
        "range_usable" => usable()?.and_then(|(first, last)| {
            text(format!("{}-{}", network.text(first), network.text(last)))
        }),
        "next_usable" => next_to(1)?,
        "previous_usable" => next_to(-1)?,
        "host" => (bits < 2 || is_host).then(|| network.to_string().into()),
        "hostmask" | "wildcard" => at(network.hostmask()),
        "int" if given.has_prefix => text(format!("{}/{}", network.value, network.prefix)),
        "int" => Some(Value::from(network.value)),
        "ip/prefix" if bits == 1 || bits > 0 && is_host => text(network.to_string()),
        "ip_netmask" if bits == 1 || bits > 0 && is_host => with(network.netmask()),
        "ipv4" | "v4" if network.is_six => {
            let mapped = network.value.checked_sub(0xffff_0000_0000);
            let value = if network.value <= u32::MAX.into() { Some(network.value) } else { mapped };
            let value = value.filter(|value| *value <= u32::MAX.into());
            let prefix = network.prefix.checked_sub(96);
            match value.zip(prefix) {
                Some((value, prefix)) => text(Network { is_six: false, value, prefix }.to_string()),
                None => no,
            }
        }
        "ipv6" | "v6" if !network.is_six => {
            let value = network.value + 0xffff_0000_0000;
            text(Network { is_six: true, value, prefix: network.prefix + 96 }.to_string())
        }
        "ipv4" | "v4" | "ipv6" | "v6" => Some(given.value.clone()),
        "link-local" => value_if(network.is_link_local()),
        "lo" | "loopback" => value_if(network.is_loopback()),
        "multicast" => value_if(network.is_multicast()),
        "unicast" => value_if(!network.is_multicast()),
        "net" if bits > 0 && !is_host => text(network.to_string()),
        "netmask" => at(network.netmask()),
        "network" | "network_id" => at(network.first()),
        "network/prefix" | "subnet" => text(network.cidr().to_string()),
        "network_netmask" => first_with(network.netmask()),
        "network_wildcard" => first_with(network.hostmask()),
        "peer" => {
            usable()?;
            match (bits, network.value % 4) {
                (1, _) => at(network.value ^ 1),
                (2, 1 | 2) => at(network.value ^ 3),
                (2, _) => return Err(wrong("the first and last address of a /30 have no peer")),
                _ => return Err(wrong("this is not a point-to-point network")),
            }
        }
        "prefix" => Some(Value::from(network.prefix)),
        "private" => value_if(!network.is_global()),
        "public" => {
            let address = network.alone();
            let mask = address.is_netmask() || address.is_hostmask();
            let reached = address.is_global() && !address.is_loopback();
            value_if(reached && !address.is_multicast() && !mask)
        }
        "revdns" => text(network.reverse_name()),
        "size" => Some(Value::from(counted(network)?)),
        "size_usable" => Some(Value::from(match bits {
            0 => 0,
            1 => 2,
            _ => counted(network)? - 2,
        })),
        "type" if bits == 0 || is_host => text(String::from("address")),
        "type" => text(String::from("network")),
        "version" => Some(Value::from(if network.is_six { 6 } else { 4 })),
        "wrap" if !network.is_six => Some(given.value.clone()),
        "wrap" if given.has_prefix => text(format!("[{}]/{}", network.address(), network.prefix)),
        "wrap" => text(format!("[{}]", network.address())),
        "broadcast" | "ip/prefix" | "ip_netmask" | "net" => None,
        other => return asked_otherwise(given, other),
    })
}

fn counted(network: Network) -> Result<u128, Error> {
    network.size().ok_or_else(|| wrong("the network has too many addresses to count"))
}

/// A query that is a number or a network.
fn asked_otherwise(given: &Given, query: &str) -> Result<Option<Value>, Error> {
    let network = given.network;
    if let Ok(index) = query.parse::<i128>() {
        return Ok(Some(match (network.host_bits(), network.nth(index)) {
            (0, _) if given.has_prefix => Value::from(network.to_string()),
            (0, _) => Value::from(network.address()),
            (_, Some(nth)) => Value::from(format!("{}/{}", network.text(nth), network.prefix)),
            (_, None) => Value::from(false),
        }));
    }
    match Network::parse(query) {
        Some(of) => Ok(of.contains(network).then(|| given.value.clone())),
        None => Err(wrong(format!("`ipaddr` knows no query `{query}`"))),
    }
}

/// First and last address; a network of two counts as its first, as in Ansible.
fn range(network: Network) -> (u128, u128) {
    let first = network.first();
    (first, if network.host_bits() > 1 { network.last() } else { first })
}

fn is_within((first, last): (u128, u128), inner: Network, outer: Network) -> bool {
    let (low, high) = range(inner);
    inner.is_six == outer.is_six && first <= low && high <= last
}

fn nth_usable(value: &Value, offset: i128) -> Result<Value, Error> {
    let Some(Given { network, .. }) = read(value) else { return Ok(Value::from(false)) };
    let moved = network.usable().zip(network.plus(offset));
    let moved = moved.filter(|((first, last), moved)| (first..=last).contains(&moved));
    Ok(moved.map_or(Value::from(()), |(_, moved)| Value::from(network.text(moved))))
}

fn ipsubnet(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let Some(network) = read(value).map(|given| given.network.cidr()) else {
        return Ok(Value::from(false));
    };
    let query = arguments.text("query", "");
    let index = arguments.integer("index")?;
    let text = |network: Network| Ok(Value::from(network.to_string()));
    if query.is_empty() {
        return text(network);
    }
    let too_small = || wrong(format!("`{network}` has no subnets of /{query}"));
    let Ok(prefix) = query.parse::<u32>() else {
        let of = needed(&Value::from(query.as_str()))?;
        if !of.contains(network) {
            return Err(wrong(format!("`{network}` is not in the subnet `{}`", of.cidr())));
        }
        let number = network.value & of.hostmask();
        return Ok(Value::from(
            number.checked_shr(network.host_bits()).unwrap_or(0).saturating_add(1).to_string(),
        ));
    };
    if prefix > network.width() {
        return Ok(Value::from(false));
    }
    if network.host_bits() == 0 {
        // The networks around an address, from the largest one on.
        let count = i64::from(network.prefix.saturating_sub(prefix));
        let index = index.unwrap_or(0);
        let at = if index < 0 { index + count } else { index };
        let further = u32::try_from(at).ok().filter(|_| at < count).ok_or_else(too_small)?;
        return text(Network { prefix: prefix + further, ..network }.cidr());
    }
    let further = prefix.checked_sub(network.prefix).ok_or_else(too_small)?;
    let count = 1_u128.checked_shl(further).ok_or_else(too_small)?;
    let Some(index) = index else { return Ok(Value::from(count.to_string())) };
    let at = if index < 0 {
        count.checked_sub(index.unsigned_abs().into())
    } else {
        Some(index.unsigned_abs().into()).filter(|at| *at < count)
    };
    let step = network.width() - prefix;
    Ok(at.map_or(Value::from(false), |at| {
        let value = network.value + at.checked_shl(step).unwrap_or(0);
        Value::from(Network { value, prefix, ..network }.to_string())
    }))
}

fn ipcut(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let network = needed(value)?;
    let amount = arguments.needed("amount").and_then(i64::try_from)?;
    let width = usize::try_from(network.width()).unwrap_or(128);
    let bits = format!("{:0width$b}", network.value);
    let count = usize::try_from(amount.unsigned_abs()).unwrap_or(width).min(width);
    let cut = if amount < 0 { &bits[width - count..] } else { &bits[..count] };
    let (size, separator) = if network.is_six { (16, ":") } else { (8, ".") };
    let mut words = Vec::new();
    for at in (0..cut.len()).step_by(size) {
        let word = &cut[at..cut.len().min(at + size)];
        let number = u16::from_str_radix(word, 2).unwrap_or(0);
        words.push(if network.is_six { format!("{number:x}") } else { number.to_string() });
    }
    Ok(Value::from(words.join(separator)))
}

fn cidr_merge(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let networks: Result<Vec<Network>, Error> =
        list("cidr_merge", value)?.iter().map(needed).collect();
    let networks = networks?;
    match arguments.text("action", "merge").as_str() {
        "merge" => Ok(Network::merged(&networks).iter().map(Network::to_string).collect()),
        "span" => match networks.as_slice() {
            [] => Ok(Value::from(())),
            [one] => Ok(Value::from(one.to_string())),
            several => Network::spanning(several)
                .map(|span| Value::from(span.to_string()))
                .ok_or_else(|| wrong("no network spans IPv4 and IPv6")),
        },
        other => Err(wrong(format!("`cidr_merge` knows merge and span, not `{other}`"))),
    }
}

/// The number of a hardware address of 48 bits, in any of the usual forms.
fn hardware(text: &str) -> Option<u64> {
    let parts: Vec<&str> = text.split([':', '-', '.']).collect();
    let width = match parts.len() {
        1 => 12,
        2 => 6,
        3 => 4,
        6 => 2,
        _ => return None,
    };
    let fits = |part: &&str| {
        let short = width == 2 && part.len() == 1;
        (short || part.len() == width) && part.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if !parts.iter().all(fits) {
        return None;
    }
    let digits: String = parts.iter().map(|part| format!("{part:0>width$}")).collect();
    u64::from_str_radix(&digits, 16).ok()
}

fn hwaddr(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let query = arguments.text("query", "");
    let Some(number) = hardware(&value.to_string()) else {
        return match query.as_str() {
            "" | "bool" => Ok(Value::from(())),
            _ => Err(wrong(format!("`{value}` is not a hardware address"))),
        };
    };
    let bytes = &number.to_be_bytes()[2..];
    let joined = |byte: fn(&u8) -> String, separator: &str| {
        Value::from(bytes.iter().map(byte).collect::<Vec<_>>().join(separator))
    };
    Ok(match query.as_str() {
        "" => value.clone(),
        "bool" => Value::from(true),
        "int" => Value::from(number),
        "bare" => joined(|byte| format!("{byte:02X}"), ""),
        "cisco" => Value::from(format!(
            "{:04x}.{:04x}.{:04x}",
            number >> 32,
            number >> 16 & 0xffff,
            number & 0xffff
        )),
        "eui48" | "win" => joined(|byte| format!("{byte:02X}"), "-"),
        "linux" => joined(|byte| format!("{byte:02x}"), ":"),
        "unix" => joined(|byte| format!("{byte:x}"), ":"),
        "pgsql" | "postgresql" | "psql" => {
            Value::from(format!("{:06x}:{:06x}", number >> 24, number & 0xff_ffff))
        }
        other => return Err(wrong(format!("`hwaddr` knows no query `{other}`"))),
    })
}
