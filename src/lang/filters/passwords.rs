//! `password_hash`: passwords as `/etc/shadow` has them.
//!
//! The forms are those of <https://www.akkadia.org/drepper/SHA-crypt.txt>, the numbers of rounds
//! passlib's, which Ansible uses.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use data_encoding::{BitOrder, Specification};
use minijinja::{Error, Value};
use sha_crypt::{Params, sha256_crypt, sha512_crypt};

use super::{Arguments, Filter, filter, wrong};

/// The filter.
pub(super) const FILTERS: &[Filter] = &[filter(
    "password_hash",
    &["hashtype", "salt", "salt_size", "rounds", "ident"],
    password_hash,
)];

const SYMBOLS: &str = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const SALT_LIMIT: usize = 16;
/// The rounds that a hash has if it does not say so.
const UNSAID_ROUNDS: u32 = 5000;

/// Hashes are slow on purpose, and each host and both passes ask for the same ones; by a digest of
/// what was asked.
static KNOWN: LazyLock<Mutex<HashMap<blake3::Hash, String>>> = LazyLock::new(Mutex::default);

fn password_hash(value: &Value, arguments: &Arguments) -> Result<Value, Error> {
    let Some(password) = value.as_str() else {
        return Err(wrong("`password_hash` takes a text: a number may have lost its zeros"));
    };
    let (prefix, rounds) = match arguments.text("hashtype", "sha512").as_str() {
        "sha512" | "sha512_crypt" => ("6", 656_000),
        "sha256" | "sha256_crypt" => ("5", 535_000),
        other => {
            let message = format!("`password_hash` knows sha512 and sha256, not `{other}`");
            return Err(wrong(message));
        }
    };
    let Some(salt) = arguments.get("salt").filter(|salt| !salt.is_none()) else {
        return Err(wrong(
            "`password_hash` needs a `salt` here, or no two plans would agree: \
             `password_hash('sha512', (inventory_hostname | hash('sha256'))[:16])`",
        ));
    };
    let salt = salt.to_string();
    if salt.len() > SALT_LIMIT || salt.is_empty() || !salt.chars().all(|one| SYMBOLS.contains(one))
    {
        return Err(wrong("a salt has 1 to 16 of the characters `./0-9A-Za-z`"));
    }
    let rounds = arguments.integer("rounds")?.map_or(Some(rounds), |given| given.try_into().ok());
    let params = rounds.and_then(|rounds| Params::new(rounds).ok());
    let (Some(rounds), Some(params)) = (rounds, params) else {
        return Err(wrong("`rounds` is a number from 1000 to 999999999"));
    };
    let asked = format!("{prefix}\0{rounds}\0{salt}\0{password}");
    let asked = blake3::hash(asked.as_bytes());
    if let Some(known) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&asked) {
        return Ok(Value::from(known.as_str()));
    }
    let (password, bytes) = (password.as_bytes(), salt.as_bytes());
    let digest = match prefix {
        "6" => mixed::<21>(&sha512_crypt(password, bytes, params), |at| at),
        _ => mixed::<10>(&sha256_crypt(password, bytes, params), |at| 2 * at),
    };
    let mut encoding = Specification::new();
    encoding.symbols.push_str(SYMBOLS);
    encoding.bit_order = BitOrder::LeastSignificantFirst;
    let encoding = encoding.encoding().map_err(|error| wrong(error.to_string()))?;
    let said = if rounds == UNSAID_ROUNDS { String::new() } else { format!("rounds={rounds}$") };
    let hash = format!("${prefix}${said}{salt}${}", encoding.encode(&digest));
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.insert(asked, hash.clone());
    Ok(Value::from(hash))
}

/// The bytes of a digest in the order in which they are written: the thirds interleaved, each group
/// turned by so much.
fn mixed<const THIRD: usize>(digest: &[u8], turned: fn(usize) -> usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(digest.len());
    for at in 0..THIRD {
        let mut group = [at, at + THIRD, at + 2 * THIRD];
        group.rotate_left(turned(at) % 3);
        bytes.extend(group.iter().rev().map(|index| digest[*index]));
    }
    bytes.extend(&digest[3 * THIRD..]);
    bytes
}
