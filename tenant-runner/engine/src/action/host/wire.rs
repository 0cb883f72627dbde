//! What runner, keeper and starter say to each other: JSON behind its length, over a socket pair that nobody else holds.

use super::super::script::Limits;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;

/// A byte that asks the keeper to end the script, with a grace. Closing the socket ends it at once.
pub const STOP: u8 = b'S';
/// Nothing that is said is longer.
const LONGEST: usize = 64 * 1024 * 1024;

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    pub limits: Limits,
}

/// How the program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    Exit(i32),
    Signal(i32),
    NotStarted(String),
}

/// Why the keeper ended the script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    Asked,
    Processes,
    Memory,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    pub end: End,
    pub stopped: Option<Stopped>,
    /// Processes that outlived the program and were ended.
    pub left: usize,
    /// The kernel ended something because the script's memory was used up.
    pub out_of_memory: bool,
    /// The kernel refused a further process.
    pub out_of_processes: bool,
    /// What holds the script to its limits, for the log.
    pub confined: String,
}

/// From the starter, before it becomes the program, and once more if it cannot.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starting {
    Confined { signals: bool },
    Failed(String),
}

/// What the starter is told.
#[derive(Debug, Serialize, Deserialize)]
pub struct Start {
    pub order: Order,
    pub keeper: i32,
    /// The kernel counts processes for us already.
    pub counted: bool,
}

pub fn send(to: &mut impl Write, what: &impl Serialize) -> Result<()> {
    send_bytes(to, &serde_json::to_vec(what)?)
}

pub fn send_bytes(to: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let length = u32::try_from(bytes.len()).map_err(|_| Error::from(ErrorKind::InvalidInput))?;
    to.write_all(&length.to_le_bytes())?;
    to.write_all(bytes)
}

pub fn receive<T: DeserializeOwned>(from: &mut impl Read) -> Result<T> {
    Ok(serde_json::from_slice(&receive_bytes(from)?)?)
}

pub fn receive_bytes(from: &mut impl Read) -> Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > LONGEST {
        return Err(Error::from(ErrorKind::InvalidData));
    }
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The socket that came as standard input.
pub fn control() -> Result<UnixStream> {
    Ok(UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?))
}
