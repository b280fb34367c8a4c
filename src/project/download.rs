use std::time::Duration;

use data_encoding::{BASE64, HEXLOWER_PERMISSIVE};
use sha1::Sha1;
use sha2::{Digest, Sha256};

use crate::lang::Fetch;

/// Largest content that is fetched, in bytes.
const SIZE_LIMIT: u64 = 1 << 30;
/// How long one download may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Fetches over HTTP and HTTPS, and gives only what is what was meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Download;

/// Gives nothing for every address: for those to whom contents do not matter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nothing;

impl Fetch for Nothing {
    fn fetch(&self, _url: &str, _checksum: &str) -> Result<Vec<u8>, String> {
        Ok(Vec::new())
    }
}

impl Fetch for Download {
    fn fetch(&self, url: &str, checksum: &str) -> Result<Vec<u8>, String> {
        let (method, wanted) =
            checksum.split_once(':').ok_or("a checksum is written as `sha256:HEX`")?;
        let wanted: String = wanted.split_whitespace().collect();
        let wanted = HEXLOWER_PERMISSIVE
            .decode(wanted.as_bytes())
            .map_err(|_| "a checksum is written in hexadecimal")?;
        let identify: fn(&[u8]) -> Option<Vec<u8>> = match method {
            "sha256" => |bytes| Some(Sha256::digest(bytes).to_vec()),
            "openpgp" => fingerprint,
            other => return Err(format!("unknown checksum `{other}`; there is sha256")),
        };
        let bytes = get(url)?;
        match identify(&bytes) {
            Some(found) if found == wanted => Ok(bytes),
            Some(found) => {
                let found = HEXLOWER_PERMISSIVE.encode(&found);
                Err(format!("what is there has {method}:{found}, which is not what is declared"))
            }
            None => Err(String::from("what is there is not an OpenPGP public key")),
        }
    }
}

fn get(url: &str) -> Result<Vec<u8>, String> {
    let agent: ureq::Agent =
        ureq::Agent::config_builder().timeout_global(Some(PATIENCE)).build().into();
    let mut response = agent.get(url).call().map_err(|error| error.to_string())?;
    let body = response.body_mut().with_config().limit(SIZE_LIMIT);
    body.read_to_vec().map_err(|error| error.to_string())
}

/// The fingerprint of the first public key, armored or not (RFC 9580, 5.5.4; version 4 keys).
fn fingerprint(bytes: &[u8]) -> Option<Vec<u8>> {
    let binary = match std::str::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN PGP PUBLIC KEY BLOCK-----") => dearmor(text)?,
        _ => bytes.to_vec(),
    };
    let body = public_key(&binary)?;
    if body.first() != Some(&4) {
        return None;
    }
    let length = u16::try_from(body.len()).ok()?;
    let mut hasher = Sha1::new();
    hasher.update([0x99]);
    hasher.update(length.to_be_bytes());
    hasher.update(body);
    Some(hasher.finalize().to_vec())
}

/// The bytes between the armor's headers and its checksum (RFC 9580, 6.2).
fn dearmor(text: &str) -> Option<Vec<u8>> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.starts_with("-----BEGIN"));
    lines.next()?;
    let encoded: String = lines
        .skip_while(|line| line.contains(": "))
        .take_while(|line| !line.starts_with("-----END") && !line.starts_with('='))
        .collect();
    BASE64.decode(encoded.as_bytes()).ok()
}

/// The body of the first packet, if it is a public key (RFC 9580, 4.2).
fn public_key(bytes: &[u8]) -> Option<&[u8]> {
    let (first, rest) = bytes.split_first()?;
    let octets = |count: usize| -> Option<(usize, &[u8])> {
        let (length, rest) = rest.split_at_checked(count)?;
        let length = length.iter().fold(0_usize, |sum, octet| sum << 8 | usize::from(*octet));
        Some((length, rest))
    };
    let (kind, (length, rest)) = if first & 0x40 == 0 {
        ((first >> 2) & 0x0f, octets(1 << (first & 3)).filter(|_| first & 3 != 3)?)
    } else {
        let length = match *rest.first()? {
            one @ 0..192 => (usize::from(one), rest.get(1..)?),
            two @ 192..224 => {
                let low = usize::from(*rest.get(1)?);
                ((usize::from(two) - 192) * 256 + low + 192, rest.get(2..)?)
            }
            255 => {
                let length: [u8; 4] = rest.get(1..5)?.try_into().ok()?;
                (usize::try_from(u32::from_be_bytes(length)).ok()?, rest.get(5..)?)
            }
            _ => return None,
        };
        (first & 0x3f, length)
    };
    if kind == 6 { rest.get(..length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    /// Made for this test with `gpg --quick-generate-key`; its secret half was thrown away.
    const KEY: &str = include_str!("download_test_key.asc");
    const FINGERPRINT: &str = "E25488C2CEAA742630FBD77E8860F2B398CCC54E";

    /// Answers one request on loopback.
    fn serve(body: &'static [u8]) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}/x", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(body).unwrap();
        });
        address
    }

    #[test]
    fn what_is_fetched_has_to_be_what_was_meant() {
        let sum = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        assert_eq!(Download.fetch(&serve(b"hello"), sum).unwrap(), b"hello");
        let error = Download.fetch(&serve(b"other"), sum).unwrap_err();
        assert!(error.contains("not what is declared"), "{error}");
        assert!(Download.fetch("http://127.0.0.1:1/", sum).is_err());
        assert!(Download.fetch("http://127.0.0.1:1/", "md5:00").unwrap_err().contains("sha256"));
    }

    #[test]
    fn a_key_is_known_by_its_fingerprint() {
        assert_eq!(
            fingerprint(KEY.as_bytes()),
            HEXLOWER_PERMISSIVE.decode(FINGERPRINT.as_bytes()).ok()
        );
        let spaced = format!("openpgp:{} {}", &FINGERPRINT[..20], &FINGERPRINT[20..]);
        assert!(Download.fetch(&serve(KEY.as_bytes()), &spaced).is_ok());
        assert_eq!(fingerprint(b"nothing of the kind"), None);
        assert_eq!(fingerprint(&[0xc6, 0xff]), None);
    }
}
