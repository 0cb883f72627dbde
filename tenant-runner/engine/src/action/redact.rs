//! Takes secret values out of whatever is stored or shown, also when one arrives in pieces.

use crate::config::Settings;
use aho_corasick::{AhoCorasick, MatchKind};
use nexaas_common::secret::ExposeSecret as _;
use std::sync::Arc;

const PUT_INSTEAD: &str = "[REDACTED]";
/// A shorter value would be found in innocent text.
const SHORTEST: usize = 6;

/// The secrets of this moment. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Secrets(Option<Arc<Finder>>);

#[derive(Debug)]
struct Finder {
    automaton: AhoCorasick,
    longest: usize,
}

impl Secrets {
    pub(super) fn of(settings: &Settings) -> Self {
        Self::new(settings.secrets.values().map(|secret| secret.expose_secret()))
    }

    fn new<'a>(values: impl Iterator<Item = &'a str>) -> Self {
        let values: Vec<&str> = values.filter(|value| value.len() >= SHORTEST).collect();
        let Some(longest) = values.iter().map(|value| value.len()).max() else { return Self(None) };
        match AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&values) {
            Ok(automaton) => Self(Some(Arc::new(Finder { automaton, longest }))),
            Err(error) => {
                // Only beyond billions of states; nothing may then be shown.
                tracing::error!(%error, "secrets cannot be looked for");
                Self(None)
            }
        }
    }

    /// `text` without secrets.
    pub(super) fn clean(&self, text: String) -> String {
        match &self.0 {
            Some(finder) if finder.automaton.is_match(&text) => {
                let mut clean = String::with_capacity(text.len());
                finder.automaton.replace_all_with(&text, &mut clean, |_, _, clean| {
                    clean.push_str(PUT_INSTEAD);
                    true
                });
                clean
            }
            _ => text,
        }
    }

    pub(super) fn stream(&self) -> Stream {
        Stream { secrets: self.clone(), held: Vec::new() }
    }
}

/// A stream of bytes from which secrets are taken; it holds back what could still become one.
#[derive(Debug)]
pub(super) struct Stream {
    secrets: Secrets,
    held: Vec<u8>,
}

impl Stream {
    /// Appends to `out` what of the stream is certain after `bytes`.
    pub(super) fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let Some(finder) = self.secrets.0.clone() else {
            out.extend_from_slice(bytes);
            return;
        };
        self.held.extend_from_slice(bytes);
        // Whatever begins before this is here to its end, however long it is.
        let certain = (self.held.len() + 1).saturating_sub(finder.longest);
        self.pass(&finder, certain, out);
    }

    /// The rest, when the stream is over.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        match self.secrets.0.clone() {
            Some(finder) => self.pass(&finder, self.held.len(), out),
            None => out.append(&mut self.held),
        }
    }

    fn pass(&mut self, finder: &Finder, certain: usize, out: &mut Vec<u8>) {
        let mut done = 0;
        for found in finder.automaton.find_iter(&self.held) {
            if found.start() >= certain {
                break;
            }
            out.extend_from_slice(&self.held[done..found.start()]);
            out.extend_from_slice(PUT_INSTEAD.as_bytes());
            done = found.end();
        }
        if done < certain {
            out.extend_from_slice(&self.held[done..certain]);
            done = certain;
        }
        self.held.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn through(secrets: &Secrets, pieces: &[&[u8]]) -> String {
        let (mut stream, mut out) = (secrets.stream(), Vec::new());
        for piece in pieces {
            stream.push(piece, &mut out);
        }
        stream.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_longest_of_two_secrets_with_the_same_beginning_is_taken_whole() {
        let secrets = Secrets::new(["abcdef", "abcdefgh", "12345"].into_iter());
        assert_eq!(secrets.clean("x abcdefgh abcdefg 12345".into()), "x [REDACTED] [REDACTED]g 12345");
        assert_eq!(through(&secrets, &[b"x abcdef", b"gh y"]), "x [REDACTED] y");
        assert_eq!(through(&secrets, &[b"x abcdef"]), "x [REDACTED]");
    }

    #[test]
    fn without_secrets_everything_passes_at_once() {
        let (mut stream, mut out) = (Secrets::default().stream(), Vec::new());
        stream.push(b"abc", &mut out);
        assert_eq!(out, b"abc");
    }

    proptest! {
        #[test]
        fn how_a_stream_is_cut_makes_no_difference(
            text in "(abcdef|abcabc|secret-1|[a-c]{0,9}|[s-t1 -]{0,5}){0,12}",
            cuts in proptest::collection::vec(0usize..80, 0..12),
        ) {
            let secrets = Secrets::new(["abcdef", "abcabcabc", "secret-1", "secret-1-long"].into_iter());
            let whole = secrets.clean(text.clone());
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.sort_unstable();
            let (mut pieces, mut at) = (Vec::new(), 0);
            for cut in cuts {
                pieces.push(&text.as_bytes()[at..cut]);
                at = cut;
            }
            pieces.push(&text.as_bytes()[at..]);
            prop_assert_eq!(through(&secrets, &pieces), whole);
        }
    }
}
