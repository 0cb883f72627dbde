//! Secrets are typed: they print as `[REDACTED]`, are wiped on drop, and must be asked for by name.

pub use secrecy::{ExposeSecret, SecretBox, SecretString};

use rand::RngExt as _;

const ALPHABET: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// A random text of `length` characters a person can read aloud (no 0/O, 1/l/I): about 5.8 bits each.
pub fn generate(length: usize) -> SecretString {
    let mut rng = rand::rng();
    let text: String = (0..length).map(|_| ALPHABET[rng.random_range(0..ALPHABET.len())] as char).collect();
    SecretString::from(text)
}

/// 32 random bytes, for keys.
pub fn key() -> [u8; 32] {
    rand::random()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_print_itself() {
        let secret = generate(24);
        assert_eq!(secret.expose_secret().len(), 24);
        assert!(!format!("{secret:?}").contains(secret.expose_secret()));
    }
}
