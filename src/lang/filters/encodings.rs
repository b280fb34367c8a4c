//! Text as bytes: encodings, Base64, digests.

use blake2::{Blake2b512, Blake2s256};
use data_encoding::{BASE64, BASE64URL, HEXLOWER};
use minijinja::{Error, Value};
use sha2::Digest;

use super::{Arguments, Filter, filter, wrong};

/// Filters between text and bytes.
pub(super) const FILTERS: &[Filter] = &[
    filter("b64encode", &["encoding", "urlsafe"], |value, arguments| {
        let bytes = match value.as_bytes() {
            Some(bytes) if value.as_str().is_none() => bytes.to_vec(),
            _ => encoded(&value.to_string(), &arguments.text("encoding", "utf-8"))?,
        };
        let base = if arguments.flag("urlsafe", false) { &BASE64URL } else { &BASE64 };
        Ok(Value::from(base.encode(&bytes)))
    }),
    filter("b64decode", &["encoding", "urlsafe"], b64decode),
    filter("hash", &["hashtype"], |value, arguments| {
        digest(value, &arguments.text("hashtype", "sha1"))
    }),
    filter("checksum", &[], |value, _| digest(value, "sha1")),
    filter("sha1", &[], |value, _| digest(value, "sha1")),
    filter("md5", &[], |value, _| digest(value, "md5")),
];

/// The bytes of a text in an encoding that goes by its name in Python.
pub(super) fn encoded(text: &str, encoding: &str) -> Result<Vec<u8>, Error> {
    let narrow = |limit: u32| -> Option<Vec<u8>> {
        let byte = |one: char| u8::try_from(u32::from(one)).ok().filter(|_| u32::from(one) < limit);
        text.chars().map(byte).collect()
    };
    let wide = |bytes: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(bytes).collect();
    let bytes = match named(encoding).as_str() {
        "utf8" => Some(text.as_bytes().to_vec()),
        "ascii" | "usascii" => narrow(0x80),
        "latin1" | "iso88591" => narrow(0x100),
        "utf16" => Some([vec![0xff, 0xfe], wide(u16::to_le_bytes)].concat()),
        "utf16le" => Some(wide(u16::to_le_bytes)),
        "utf16be" => Some(wide(u16::to_be_bytes)),
        _ => return Err(wrong(format!("there is no encoding `{encoding}`"))),
    };
    bytes.ok_or_else(|| wrong(format!("the encoding `{encoding}` does not have all characters")))
}

/// The text that bytes are in an encoding.
pub(super) fn decoded(bytes: &[u8], encoding: &str) -> Result<String, Error> {
    let wide = |bytes: &[u8], unit: fn([u8; 2]) -> u16| -> Option<String> {
        let (units, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = units.iter().copied().map(unit).collect();
        String::from_utf16(&units).ok().filter(|_| rest.is_empty())
    };
    let text = match named(encoding).as_str() {
        "utf8" => String::from_utf8(bytes.to_vec()).ok(),
        "ascii" | "usascii" if bytes.is_ascii() => String::from_utf8(bytes.to_vec()).ok(),
        "ascii" | "usascii" => None,
        "latin1" | "iso88591" => Some(bytes.iter().copied().map(char::from).collect()),
        "utf16" => match bytes {
            [0xfe, 0xff, rest @ ..] => wide(rest, u16::from_be_bytes),
            [0xff, 0xfe, rest @ ..] | rest => wide(rest, u16::from_le_bytes),
        },
        "utf16le" => wide(bytes, u16::from_le_bytes),
        "utf16be" => wide(bytes, u16::from_be_bytes),
        _ => return Err(wrong(format!("there is no encoding `{encoding}`"))),
    };
    text.ok_or_else(|| wrong(format!("these bytes are no text in the encoding `{encoding}`")))
}

fn named(encoding: &str) -> String {
    encoding.to_lowercase().replace(['-', '_', ' '], "")
}

fn b64decode(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let mut text: Vec<u8> = value.to_string().into_bytes();
    text.retain(|byte| !byte.is_ascii_whitespace());
    let base = if arguments.flag("urlsafe", false) { &BASE64URL } else { &BASE64 };
    let bytes =
        base.decode(&text).map_err(|error| wrong(format!("`b64decode` got no Base64: {error}")))?;
    decoded(&bytes, &arguments.text("encoding", "utf-8")).map(Value::from)
}

fn digest(value: &Value, algorithm: &str) -> Result<Value, Error> {
    fn of<D: Digest>(bytes: &[u8]) -> String {
        HEXLOWER.encode(&D::digest(bytes))
    }
    let text = value.to_string();
    let bytes = value.as_bytes().unwrap_or(text.as_bytes());
    let digest = match algorithm {
        "md5" => HEXLOWER.encode(&md5::compute(bytes).0),
        "sha1" => of::<sha1::Sha1>(bytes),
        "sha224" => of::<sha2::Sha224>(bytes),
        "sha256" => of::<sha2::Sha256>(bytes),
        "sha384" => of::<sha2::Sha384>(bytes),
        "sha512" => of::<sha2::Sha512>(bytes),
        "sha3_224" => of::<sha3::Sha3_224>(bytes),
        "sha3_256" => of::<sha3::Sha3_256>(bytes),
        "sha3_384" => of::<sha3::Sha3_384>(bytes),
        "sha3_512" => of::<sha3::Sha3_512>(bytes),
        "blake2b" => of::<Blake2b512>(bytes),
        "blake2s" => of::<Blake2s256>(bytes),
        _ => return Err(wrong(format!("`hash` knows no `{algorithm}`"))),
    };
    Ok(Value::from(digest))
}
