//! What `ansible-vault` has encrypted: formats 1.1 and 1.2 (Ansible's documentation, "Encrypting
//! content with Ansible Vault", "Format of files encrypted with Ansible Vault").
//!
//! A header, and hexadecimal of three lines that are hexadecimal themselves: salt, HMAC-SHA256 of
//! the cipher text, cipher text. PBKDF2-HMAC-SHA256 with 10,000 rounds makes of password and salt
//! the key of AES-256-CTR, the key of the HMAC and the first counter; the plain text is padded as
//! PKCS #7 says.

use aes::Aes256;
use aes::cipher::{KeyIvInit, StreamCipher};
use data_encoding::HEXLOWER_PERMISSIVE;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// How a text begins that `ansible-vault` has made.
pub const VAULT_MARK: &str = "$ANSIBLE_VAULT;";

const ROUNDS: u32 = 10_000;
/// Bytes that AES takes at a time, and to a multiple of which the plain text is padded.
const BLOCK: u8 = 16;

/// A text that is encrypted with a password.
pub(super) struct Vault {
    /// Says which password, in format 1.2.
    pub(super) id: Option<String>,
    salt: Vec<u8>,
    mac: Vec<u8>,
    cipher: Vec<u8>,
}

impl Vault {
    /// Takes a text apart; one sentence where it is none.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.trim().lines().map(str::trim);
        let mut header = lines.next().unwrap_or_default().split(';').skip(1);
        let (version, cipher) = (header.next().unwrap_or(""), header.next().unwrap_or(""));
        let id = header.next().map(|id| id.trim().to_owned()).filter(|id| !id.is_empty());
        if !["1.1", "1.2"].contains(&version) || cipher.trim() != "AES256" {
            return Err(format!("the format `{version};{cipher}` of Ansible Vault is not known"));
        }
        let damaged = || String::from("it is damaged");
        let hexadecimal = |text: &[u8]| HEXLOWER_PERMISSIVE.decode(text).map_err(|_| damaged());
        let body = hexadecimal(lines.collect::<String>().as_bytes())?;
        let mut parts = body.split(|byte| *byte == b'\n');
        let mut part = || hexadecimal(parts.next().ok_or_else(damaged)?);
        Ok(Self { id, salt: part()?, mac: part()?, cipher: part()? })
    }

    /// What is in it; none if that is not its password, or it was changed.
    pub(super) fn decrypt(&self, password: &[u8]) -> Option<Vec<u8>> {
        let mut derived = [0; 80];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, &self.salt, ROUNDS, &mut derived);
        let (key, rest) = derived.split_at(32);
        let (mac_key, counter) = rest.split_at(32);
        let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(mac_key).ok()?;
        mac.update(&self.cipher);
        mac.verify_slice(&self.mac).ok()?;
        let mut plain = self.cipher.clone();
        ctr::Ctr128BE::<Aes256>::new_from_slices(key, counter).ok()?.apply_keystream(&mut plain);
        let padding = *plain.last()?;
        let length = plain.len().checked_sub(usize::from(padding))?;
        let padded = (1..=BLOCK).contains(&padding);
        if !padded || plain[length..].iter().any(|byte| *byte != padding) {
            return None;
        }
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `ansible-vault encrypt` and `ansible-vault encrypt_string` of ansible-core 2.19.
    const FILE: &str = include_str!("../../tests/secrets/vault.yml");
    const LABELLED: &str = include_str!("../../tests/secrets/labelled.txt");

    #[test]
    fn what_ansible_has_encrypted_is_read() {
        let vault = Vault::parse(FILE).unwrap();
        assert_eq!(vault.id, None);
        let plain = String::from_utf8(vault.decrypt(b"correct horse").unwrap()).unwrap();
        assert!(plain.starts_with("database:\n  user: shop\n  password: tr0ub4dor&3\n"), "{plain}");
        let vault = Vault::parse(LABELLED).unwrap();
        assert_eq!(vault.id.as_deref(), Some("prod"));
        assert_eq!(vault.decrypt(b"staple").unwrap(), b"hunter2-hunter2");
    }

    #[test]
    fn a_wrong_password_and_a_changed_text_give_nothing() {
        let vault = Vault::parse(FILE).unwrap();
        assert!(vault.decrypt(b"wrong").is_none());
        let mut vault = vault;
        vault.cipher[3] ^= 1;
        assert!(vault.decrypt(b"correct horse").is_none());
        for text in [
            "$ANSIBLE_VAULT;1.0;AES\n00",
            "$ANSIBLE_VAULT;1.1;AES256\nzz",
            "$ANSIBLE_VAULT;1.1;AES256\n3030",
            "$ANSIBLE_VAULT;1.1;AES256",
            "",
        ] {
            assert!(Vault::parse(text).is_err(), "{text}");
        }
    }
}
