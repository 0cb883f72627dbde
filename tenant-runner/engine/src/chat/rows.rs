//! The only SQL of conversations.

use super::{ChatEvent, ChatEventKind, ChatMessage, ChatSession};
use crate::error::{EngineError, Result};
use crate::model::{Message, Role};
use crate::store::from_micros;
use nexaas_common::id::BootId;
use rusqlite::{Connection, OptionalExtension as _, Row, params};
use std::collections::VecDeque;
use uuid::Uuid;

const PAGE: u32 = 256;
/// Messages that are read back as history; fewer may fit.
const MOST_HISTORY: u32 = 200;

/// A turn that was just begun.
#[derive(Debug)]
pub(super) struct Begun {
    pub session_id: String,
    pub agent: String,
    pub last_seq: u64,
    pub history: Vec<Message>,
}

const SELECT: &str =
    "SELECT id, agent, title, created_at, updated_at, last_seq, turn_boot IS NOT NULL FROM chat_sessions";

fn session_row(r: &Row<'_>) -> rusqlite::Result<ChatSession> {
    Ok(ChatSession {
        id: r.get(0)?,
        agent: r.get(1)?,
        title: r.get(2)?,
        created_at: from_micros(r.get(3)?),
        updated_at: from_micros(r.get(4)?),
        last_seq: r.get(5)?,
        running: r.get(6)?,
        messages: Vec::new(),
    })
}

pub(super) fn session(c: &Connection, id: &str) -> Result<ChatSession> {
    let found = c.prepare_cached(&format!("{SELECT} WHERE id = ?1"))?.query_row([id], session_row).optional()?;
    found.ok_or_else(|| EngineError::not_found("The chat session"))
}

pub(super) fn sessions(c: &Connection, agent: Option<&str>, limit: u32) -> Result<Vec<ChatSession>> {
    let sql = format!("{SELECT} WHERE ?1 IS NULL OR agent = ?1 ORDER BY updated_at DESC, id DESC LIMIT ?2");
    let mut statement = c.prepare_cached(&sql)?;
    let rows = statement.query_map(params![agent, limit], session_row)?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn messages(c: &Connection, id: &str) -> Result<Vec<ChatMessage>> {
    let mut statement =
        c.prepare_cached("SELECT role, content, created_at FROM chat_messages WHERE session_id = ?1 ORDER BY number")?;
    let rows = statement.query_map([id], |r| {
        Ok(ChatMessage { role: r.get(0)?, content: r.get(1)?, created_at: from_micros(r.get(2)?) })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Takes the session for a turn of this process and stores the user's message.
pub(super) fn begin(
    tx: &Connection,
    session_id: Option<&str>,
    agent: &str,
    message: &str,
    boot: BootId,
    now: i64,
) -> Result<Begun> {
    let begun = match session_id {
        None => {
            let id = Uuid::new_v4().to_string();
            let title: String = message.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(80).collect();
            tx.execute(
                "INSERT INTO chat_sessions (id, agent, title, created_at, updated_at, turn_boot) VALUES (?1, ?2, ?3, ?4, ?4, ?5)",
                params![id, agent, title, now, boot.to_string()],
            )?;
            Begun { session_id: id, agent: agent.to_owned(), last_seq: 0, history: Vec::new() }
        }
        Some(id) => {
            let session = session(tx, id)?;
            if !agent.is_empty() && agent != session.agent {
                return Err(EngineError::invalid(
                    "agent",
                    format!("must be '{}', with whom this session is", session.agent),
                ));
            }
            if session.running {
                return Err(EngineError::conflict("The session's last message is still being answered"));
            }
            tx.execute(
                "UPDATE chat_sessions SET turn_boot = ?2, updated_at = ?3 WHERE id = ?1",
                params![id, boot.to_string(), now],
            )?;
            Begun {
                session_id: session.id,
                agent: session.agent,
                last_seq: session.last_seq,
                history: history(tx, id)?,
            }
        }
    };
    add_message(tx, &begun.session_id, Role::User, message, now)?;
    Ok(begun)
}

fn history(c: &Connection, id: &str) -> Result<Vec<Message>> {
    let mut statement = c.prepare_cached(
        "SELECT role, content FROM chat_messages WHERE session_id = ?1 ORDER BY number DESC LIMIT ?2",
    )?;
    let rows = statement.query_map(params![id, MOST_HISTORY], |r| {
        let role = if r.get::<_, String>(0)? == "user" { Role::User } else { Role::Assistant };
        Ok(Message { role, content: r.get(1)? })
    })?;
    let mut messages: Vec<Message> = rows.collect::<rusqlite::Result<_>>()?;
    messages.reverse();
    Ok(messages)
}

fn add_message(tx: &Connection, id: &str, role: Role, content: &str, now: i64) -> Result<()> {
    tx.prepare_cached(
        "INSERT INTO chat_messages (session_id, number, role, content, created_at)
         VALUES (?1, (SELECT coalesce(max(number), 0) + 1 FROM chat_messages WHERE session_id = ?1), ?2, ?3, ?4)",
    )?
    .execute(params![id, role.as_str(), content, now])?;
    Ok(())
}

pub(super) fn append(tx: &Connection, id: &str, kind: ChatEventKind, content: &str, now: i64) -> Result<u64> {
    let seq: u64 = tx
        .prepare_cached(
            "UPDATE chat_sessions SET last_seq = last_seq + 1, updated_at = ?2 WHERE id = ?1 RETURNING last_seq",
        )?
        .query_row(params![id, now], |r| r.get(0))?;
    tx.prepare_cached(
        "INSERT INTO chat_events (session_id, seq, type, content, created_at) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![id, seq, kind.as_str(), content, now])?;
    Ok(seq)
}

pub(super) fn end(tx: &Connection, id: &str, kind: ChatEventKind, content: &str, answer: &str, now: i64) -> Result<()> {
    if !answer.is_empty() {
        add_message(tx, id, Role::Assistant, answer, now)?;
    }
    append(tx, id, kind, content, now)?;
    tx.execute("UPDATE chat_sessions SET turn_boot = NULL WHERE id = ?1", [id])?;
    Ok(())
}

/// The next events, and whether more may come.
pub(super) fn events_after(c: &Connection, id: &str, after: u64) -> Result<(VecDeque<ChatEvent>, bool)> {
    let mut statement = c.prepare_cached(
        "SELECT seq, type, content FROM chat_events WHERE session_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
    )?;
    let rows = statement.query_map(params![id, i64::try_from(after).unwrap_or(i64::MAX), PAGE], |r| {
        let kind = match r.get::<_, String>(1)?.as_str() {
            "chunk" => ChatEventKind::Chunk,
            "done" => ChatEventKind::Done,
            _ => ChatEventKind::Error,
        };
        Ok(ChatEvent { kind, content: r.get(2)?, session_id: id.to_owned(), seq: r.get(0)? })
    })?;
    let page: VecDeque<ChatEvent> = rows.collect::<rusqlite::Result<_>>()?;
    let running = c
        .prepare_cached("SELECT turn_boot IS NOT NULL FROM chat_sessions WHERE id = ?1")?
        .query_row([id], |r| r.get(0))
        .optional()?;
    Ok((page, running.unwrap_or(false)))
}

/// Ends the turns of other processes. What they had shown becomes the answer, as far as it came.
pub(super) fn recover(tx: &Connection, boot: BootId, now: i64) -> Result<usize> {
    let mut statement = tx.prepare("SELECT id FROM chat_sessions WHERE turn_boot IS NOT NULL AND turn_boot <> ?1")?;
    let left: Vec<String> = statement.query_map([boot.to_string()], |r| r.get(0))?.collect::<rusqlite::Result<_>>()?;
    for id in &left {
        let shown: String = tx.query_row(
            "SELECT coalesce(group_concat(content, '' ORDER BY seq), '') FROM chat_events
             WHERE session_id = ?1 AND type = 'chunk'
               AND seq > (SELECT coalesce(max(seq), 0) FROM chat_events WHERE session_id = ?1 AND type <> 'chunk')",
            [id],
            |r| r.get(0),
        )?;
        end(tx, id, ChatEventKind::Error, "The runner restarted during this answer; please ask again", &shown, now)?;
    }
    Ok(left.len())
}
