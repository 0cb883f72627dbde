//! Reads along with the HTTP server and refuses any request whose length could be understood in two ways: both
//! `Content-Length` and `Transfer-Encoding`, either of them twice, any coding but `chunked`, a bare line feed, folded lines.
//! The HTTP library resolves such requests silently; what stands before or behind us may resolve them differently.
//!
//! It also holds back everything that follows an upgrade request until that is answered, so that bytes meant as a tunnel are
//! never read as a request, nor the other way round.

use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// The longest request line and header section.
pub const MAX_HEAD: usize = 32 * 1024;

/// Why a request was refused before it was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Violation {
    /// Its head cannot be read in one way only.
    Head(&'static str),
    /// Its body is not what its head says.
    Body(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Head,
    Length(u64),
    ChunkSize {
        digits: u8,
        size: u64,
        extension: u16,
    },
    ChunkSizeLf {
        size: u64,
    },
    ChunkData(u64),
    ChunkEnd,
    ChunkEndLf,
    Trailers {
        line: u16,
        total: u16,
    },
    TrailersLf {
        line: u16,
        total: u16,
    },
    /// An upgrade was asked for and is not answered yet: nothing may follow.
    Undecided,
    /// A tunnel: the bytes are none of our business.
    Tunnel,
}

/// The state of one connection's incoming bytes.
#[derive(Debug)]
pub struct Framing {
    state: State,
    head: Vec<u8>,
    /// How many of the bytes last fed belong to complete requests.
    complete: usize,
}

impl Default for Framing {
    fn default() -> Self {
        Self { state: State::Head, head: Vec::new(), complete: 0 }
    }
}

impl Framing {
    /// Takes the next bytes of the connection, or says what is wrong with them.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        let total = bytes.len();
        self.complete = 0;
        while let Some(&byte) = bytes.first() {
            if self.state == State::Head && self.head.is_empty() {
                self.complete = total - bytes.len();
            }
            match self.state {
                State::Tunnel => return Ok(()),
                State::Undecided => {
                    return Err(Violation::Head("bytes follow an upgrade request that is not answered"));
                }
                State::Length(left) => {
                    let take = left.min(bytes.len() as u64);
                    bytes = bytes.get(take as usize..).unwrap_or_default();
                    self.state = if left == take { State::Head } else { State::Length(left - take) };
                }
                State::ChunkData(left) => {
                    let take = left.min(bytes.len() as u64);
                    bytes = bytes.get(take as usize..).unwrap_or_default();
                    self.state = if left == take { State::ChunkEnd } else { State::ChunkData(left - take) };
                }
                State::Head => {
                    bytes = bytes.get(1..).unwrap_or_default();
                    self.head_byte(byte)?;
                }
                _ => {
                    bytes = bytes.get(1..).unwrap_or_default();
                    self.chunk_byte(byte)?;
                }
            }
        }
        Ok(())
    }

    fn head_byte(&mut self, byte: u8) -> Result<(), Violation> {
        let last = self.head.last().copied();
        match (last, byte) {
            (Some(b'\r'), b'\n') => {}
            (Some(b'\r'), _) => return Err(Violation::Head("a carriage return stands alone")),
            (_, b'\n') => return Err(Violation::Head("a line feed stands alone")),
            (_, 0) => return Err(Violation::Head("a zero byte")),
            _ => {}
        }
        self.head.push(byte);
        if self.head == b"\r\n" {
            // An empty line before the request line is allowed once in a while and means nothing.
            self.head.clear();
            return Ok(());
        }
        if self.head.len() > MAX_HEAD {
            // The server answers 431 by its own limit; nothing beyond it is looked at here.
            return Err(Violation::Head("the header section is too long"));
        }
        if self.head.ends_with(b"\r\n\r\n") {
            self.state = classify(&self.head)?;
            self.head.clear();
        }
        Ok(())
    }

    fn chunk_byte(&mut self, byte: u8) -> Result<(), Violation> {
        const BAD: Violation = Violation::Body("the chunked body is malformed");
        self.state = match self.state {
            State::ChunkSize { digits, size, extension: 0 } if byte.is_ascii_hexdigit() => {
                let value = (byte as char).to_digit(16).unwrap_or_default();
                if digits >= 15 {
                    return Err(BAD);
                }
                State::ChunkSize { digits: digits + 1, size: size << 4 | u64::from(value), extension: 0 }
            }
            State::ChunkSize { digits: 1.., size, .. } if byte == b'\r' => State::ChunkSizeLf { size },
            State::ChunkSize { digits: digits @ 1.., size, extension } => {
                if byte == b'\n' || byte == 0 || extension >= 1024 || (extension == 0 && byte != b';') {
                    return Err(BAD);
                }
                State::ChunkSize { digits, size, extension: extension + 1 }
            }
            State::ChunkSizeLf { size } if byte == b'\n' => {
                if size == 0 {
                    State::Trailers { line: 0, total: 0 }
                } else {
                    State::ChunkData(size)
                }
            }
            State::ChunkEnd if byte == b'\r' => State::ChunkEndLf,
            State::ChunkEndLf if byte == b'\n' => State::ChunkSize { digits: 0, size: 0, extension: 0 },
            State::Trailers { line, total } => match byte {
                b'\r' => State::TrailersLf { line, total },
                b'\n' | 0 => return Err(BAD),
                _ if total >= 8192 => return Err(BAD),
                _ => State::Trailers { line: line + 1, total: total + 1 },
            },
            State::TrailersLf { line: 0, .. } if byte == b'\n' => State::Head,
            State::TrailersLf { total, .. } if byte == b'\n' => State::Trailers { line: 0, total },
            _ => return Err(BAD),
        };
        Ok(())
    }
}

/// How the body that follows `head` is delimited.
fn classify(head: &[u8]) -> Result<State, Violation> {
    let (mut length, mut chunked, mut upgrade) = (None, false, false);
    let mut lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let request_line = lines.next().unwrap_or_default();
    for line in lines.filter(|line| !line.is_empty()) {
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Violation::Head("a folded header line"));
        }
        let Some(colon) = line.iter().position(|b| *b == b':') else {
            return Err(Violation::Head("a header line without a colon"));
        };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.is_empty() || name.iter().any(|b| b.is_ascii_whitespace() || b.is_ascii_control()) {
            return Err(Violation::Head("white space in a header name"));
        }
        if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value)
                .ok()
                .filter(|v| !v.is_empty() && v.len() <= 18 && v.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|v| v.parse::<u64>().ok())
                .ok_or(Violation::Head("Content-Length is not a number"))?;
            if length.replace(number).is_some() {
                return Err(Violation::Head("Content-Length comes twice"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Head("a transfer coding other than chunked"));
            }
            if std::mem::replace(&mut chunked, true) {
                return Err(Violation::Head("Transfer-Encoding comes twice"));
            }
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            upgrade = true;
        }
    }
    if request_line.starts_with(b"CONNECT ") {
        return Err(Violation::Head("CONNECT"));
    }
    match (length, chunked) {
        (Some(_), true) => Err(Violation::Head("both Content-Length and Transfer-Encoding")),
        (_, true) if !request_line.ends_with(b" HTTP/1.1") => Err(Violation::Head("Transfer-Encoding before HTTP/1.1")),
        (Some(1..), _) | (_, true) if upgrade => Err(Violation::Head("an upgrade request with a body")),
        (None, true) => Ok(State::ChunkSize { digits: 0, size: 0, extension: 0 }),
        (Some(length @ 1..), false) => Ok(State::Length(length)),
        (Some(0) | None, false) if upgrade => Ok(State::Undecided),
        (Some(0) | None, false) => Ok(State::Head),
    }
}

/// What the service and the reader of one connection tell each other.
#[derive(Debug, Default, Clone)]
pub struct Connection {
    inner: Arc<Mutex<Shared>>,
}

#[derive(Debug, Default)]
struct Shared {
    framing: Framing,
    waker: Option<Waker>,
}

impl Connection {
    fn lock(&self) -> std::sync::MutexGuard<'_, Shared> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An upgrade request was answered: `true` with 101, `false` with anything else.
    pub fn decide(&self, tunnel: bool) {
        let mut shared = self.lock();
        if shared.framing.state == State::Undecided {
            shared.framing.state = if tunnel { State::Tunnel } else { State::Head };
            if let Some(waker) = shared.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A client's connection, read through [`Framing`]. A client that stops taking our answer is let go after a while, or it would
/// hold its place for ever.
#[derive(Debug)]
pub struct Guarded<T> {
    io: T,
    connection: Connection,
    violated: bool,
    /// What the server still gets of the head that it must refuse.
    poison: &'static [u8],
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
    ended: bool,
    /// What is thrown away while closing, and until when.
    linger: Option<(usize, Pin<Box<Sleep>>)>,
}

/// No request head may contain this.
const POISON: &[u8] = b"\0\r\n\r\n";

/// How long and how much a closing connection still listens. Closing with bytes unread resets the connection, and the client
/// may then lose the very answer that told it why.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 1 << 20;

impl<T> Guarded<T> {
    pub fn new(io: T, connection: Connection, patience: Duration) -> Self {
        Self { io, connection, violated: false, poison: &[], patience, stalled: None, ended: false, linger: None }
    }

    fn patiently<R>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let patience = self.patience;
        let sleep = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(sleep.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer")))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Guarded<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.poison.is_empty() {
            let (now, later) = this.poison.split_at(this.poison.len().min(buf.remaining()));
            buf.put_slice(now);
            this.poison = later;
            return Poll::Ready(Ok(()));
        }
        if this.violated {
            return Poll::Ready(Ok(()));
        }
        {
            let mut shared = this.connection.lock();
            if shared.framing.state == State::Undecided {
                shared.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        this.ended = buf.filled().len() == before;
        let (fed, complete) = {
            let mut shared = this.connection.lock();
            let fed = shared.framing.feed(buf.filled().get(before..).unwrap_or_default());
            (fed, shared.framing.complete)
        };
        let Err(violation) = fed else { return Poll::Ready(Ok(())) };
        tracing::debug!(?violation, "a request was refused by its framing");
        metrics::counter!("nexaas_edge_framing_violations_total").increment(1);
        this.violated = true;
        match violation {
            Violation::Head(_) => {
                // Complete requests before it are served. Of the bad head the server has seen at most a part; what it gets
                // instead completes it and makes it invalid, so it answers 400 and closes; the end of the stream follows.
                buf.set_filled(before + complete);
                let (now, later) = POISON.split_at(POISON.len().min(buf.remaining()));
                buf.put_slice(now);
                this.poison = later;
                Poll::Ready(Ok(()))
            }
            Violation::Body(why) => {
                buf.set_filled(before);
                Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, why)))
            }
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guarded<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, buf);
        self.patiently(cx, written)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.patiently(cx, written)
    }
    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(Pin::new(&mut this.io).poll_shutdown(cx))?;
        if this.ended {
            return Poll::Ready(Ok(()));
        }
        let (discarded, deadline) = this.linger.get_or_insert_with(|| (0, Box::pin(tokio::time::sleep(LINGER))));
        let mut scratch = [0; 4096];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut this.io).poll_read(cx, &mut buf) {
                Poll::Ready(Ok(())) if !buf.filled().is_empty() && *discarded < LINGER_BYTES => {
                    *discarded += buf.filled().len();
                }
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => {
                    ready!(deadline.as_mut().poll(cx));
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn feed(text: &str) -> Result<State, Violation> {
        let mut framing = Framing::default();
        framing.feed(text.as_bytes())?;
        Ok(framing.state)
    }

    #[test]
    fn well_formed_requests_follow_each_other_on_one_connection() {
        let text = "\r\nPOST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello\
                    POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                    5;ext=\"1\"\r\nhello\r\n1F\r\n0123456789012345678901234567890\r\n0\r\nTrailer: x\r\n\r\n\
                    GET /c HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(feed(text), Ok(State::Head));
        let mut slowly = Framing::default();
        for byte in text.as_bytes() {
            slowly.feed(&[*byte]).unwrap();
        }
        assert_eq!(slowly.state, State::Head);
    }

    #[test]
    fn whatever_can_be_read_in_two_ways_is_refused() {
        for bad in [
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 5, 5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 0x5\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\nContent-Length: 3\r\n\r\nabc",
            "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n",
            "CONNECT acme:443 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
        ] {
            assert!(matches!(feed(bad), Err(Violation::Head(_))), "{bad:?}");
        }
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for bad in
            ["5\nhello\r\n", "\r\n", "g\r\n", "5\r\nhelloX", "-1\r\n", "5 \r\n", "ffffffffffffffffff\r\n", "0\r\n\n"]
        {
            assert!(matches!(feed(&format!("{chunked}{bad}")), Err(Violation::Body(_))), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn how_the_bytes_arrive_makes_no_difference(bytes in "(GET|POST| |/|HTTP/1.1|\r\n|Content-Length: 3|Transfer-Encoding: chunked|abc|0|;|:|\n){0,24}", cut in 0usize..200) {
            let mut whole = Framing::default();
            let mut parts = Framing::default();
            let bytes = bytes.as_bytes();
            let (a, b) = bytes.split_at(cut.min(bytes.len()));
            let first = whole.feed(bytes);
            let second = parts.feed(a).and_then(|()| parts.feed(b));
            prop_assert_eq!(first, second);
            prop_assert_eq!(whole.state, parts.state);
        }
    }
}
