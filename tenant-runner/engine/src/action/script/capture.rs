//! What a script writes: the beginning and the end of each stream in memory, and all of it in a file once that is not all.
//!
//! Always true here: memory is bounded however much is written; secrets are gone before anything is kept; trouble with the file
//! is no trouble of the script's.

use super::super::outputs::Outputs;
use super::super::redact::{Secrets, Stream};
use crate::queue::JobId;
use std::collections::VecDeque;
use tokio::fs::File;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};

/// Kept of each stream's beginning, and of its end, where errors are explained; with what is said between them, 64 KiB.
const HALF: usize = 32 * 1024 - 128;
const CHUNK: usize = 64 * 1024;

pub(super) struct Capture {
    out: Kept,
    err: Kept,
    log: Log,
}

impl Capture {
    pub(super) fn new(outputs: Outputs, job: JobId, attempt: u32, secrets: &Secrets) -> Self {
        Self {
            out: Kept::new(secrets),
            err: Kept::new(secrets),
            log: Log { outputs, job, attempt, state: State::Waiting(Vec::new()) },
        }
    }

    /// Reads both streams to their ends.
    pub(super) async fn fill(&mut self, out: Option<impl AsyncRead + Unpin>, err: Option<impl AsyncRead + Unpin>) {
        let (mut out, mut err) = (out, err);
        let (mut a, mut b) = (vec![0; CHUNK], vec![0; CHUNK]);
        while out.is_some() || err.is_some() {
            tokio::select! {
                read = read(&mut out, &mut a) => match read {
                    0 => out = None,
                    read => self.out.push(&a[..read], &mut self.log).await,
                },
                read = read(&mut err, &mut b) => match read {
                    0 => err = None,
                    read => self.err.push(&b[..read], &mut self.log).await,
                },
            }
        }
    }

    /// The streams are over, or nobody waits for them any longer.
    pub(super) async fn finish(&mut self) {
        self.out.finish(&mut self.log).await;
        self.err.finish(&mut self.log).await;
        self.log.finish().await;
    }

    /// What was written to standard output.
    pub(super) fn answer(&self) -> String {
        self.out.text(self.log.is_kept())
    }

    /// What was said about a failure.
    pub(super) fn explanation(&self) -> String {
        match self.err.text(self.log.is_kept()) {
            text if text.is_empty() => self.answer(),
            text => text,
        }
    }
}

/// Never ends while there is nothing to read from.
async fn read(stream: &mut Option<impl AsyncRead + Unpin>, buffer: &mut [u8]) -> usize {
    match stream {
        Some(stream) => stream.read(buffer).await.unwrap_or(0),
        None => std::future::pending().await,
    }
}

struct Kept {
    redacted: Stream,
    clean: Vec<u8>,
    head: Vec<u8>,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    fn new(secrets: &Secrets) -> Self {
        let (clean, head, tail) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { redacted: secrets.stream(), clean, head, tail, left_out: 0 }
    }

    async fn push(&mut self, bytes: &[u8], log: &mut Log) {
        self.redacted.push(bytes, &mut self.clean);
        self.pass_on(log).await;
    }

    async fn finish(&mut self, log: &mut Log) {
        self.redacted.finish(&mut self.clean);
        self.pass_on(log).await;
    }

    async fn pass_on(&mut self, log: &mut Log) {
        let (head, tail) = self.clean.split_at(self.clean.len().min(HALF - self.head.len()));
        self.head.extend_from_slice(head);
        // Of a long piece only the end can stay.
        let skipped = tail.len().saturating_sub(HALF);
        self.tail.extend(&tail[skipped..]);
        let excess = self.tail.len().saturating_sub(HALF);
        self.tail.drain(..excess);
        self.left_out += (skipped + excess) as u64;
        log.write(&self.clean, self.left_out > 0).await;
        self.clean.clear();
    }

    fn text(&self, kept: bool) -> String {
        let (front, back) = self.tail.as_slices();
        let text = if self.left_out == 0 {
            String::from_utf8_lossy(&[&self.head, front, back].concat()).into_owned()
        } else {
            let (head, tail) = (String::from_utf8_lossy(&self.head), [front, back].concat());
            let elsewhere = if kept { "; the output of this attempt is kept" } else { "" };
            format!("{head}\n[… {} bytes left out{elsewhere} …]\n{}", self.left_out, String::from_utf8_lossy(&tail))
        };
        text.trim().to_owned()
    }
}

/// The attempt's file. It is made only when something would else be lost.
struct Log {
    outputs: Outputs,
    job: JobId,
    attempt: u32,
    state: State,
}

enum State {
    /// Everything so far; at most what both streams keep.
    Waiting(Vec<u8>),
    Open {
        file: File,
        length: u64,
    },
    Full(File),
    Broken,
}

impl Log {
    async fn write(&mut self, bytes: &[u8], needed: bool) {
        if let Err(error) = self.try_write(bytes, needed).await {
            tracing::warn!(%error, job_id = %self.job, "a script's output cannot be kept");
            self.state = State::Broken;
        }
    }

    async fn try_write(&mut self, bytes: &[u8], needed: bool) -> std::io::Result<()> {
        if let State::Waiting(waiting) = &mut self.state {
            waiting.extend_from_slice(bytes);
            if !needed {
                return Ok(());
            }
            let waiting = std::mem::take(waiting);
            let (file, length) = self.outputs.append(self.job, self.attempt).await?;
            self.state = State::Open { file, length };
            return self.extend(&waiting).await;
        }
        self.extend(bytes).await
    }

    async fn extend(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let State::Open { file, length } = &mut self.state else { return Ok(()) };
        let cap = self.outputs.cap();
        let room = usize::try_from(cap.saturating_sub(*length)).unwrap_or(usize::MAX);
        file.write_all(&bytes[..bytes.len().min(room)]).await?;
        *length += bytes.len().min(room) as u64;
        if bytes.len() > room {
            file.write_all(format!("\n[the output goes on; {cap} bytes of it are kept]\n").as_bytes()).await?;
            if let State::Open { file, .. } = std::mem::replace(&mut self.state, State::Broken) {
                self.state = State::Full(file);
            }
        }
        Ok(())
    }

    async fn finish(&mut self) {
        let flushed = match &mut self.state {
            State::Open { file, .. } | State::Full(file) => file.flush().await,
            State::Waiting(_) | State::Broken => Ok(()),
        };
        if let Err(error) = flushed {
            tracing::warn!(%error, job_id = %self.job, "a script's output cannot be kept");
            self.state = State::Broken;
        }
    }

    fn is_kept(&self) -> bool {
        matches!(self.state, State::Open { .. } | State::Full(_))
    }
}
