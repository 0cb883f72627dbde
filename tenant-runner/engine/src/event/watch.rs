//! Events that wait for facts on the bus.
//!
//! Always true here: an event answers each fact that fits and was told after the event began to wait, once: its answer, the
//! job and the place reached on the bus are stored in one transaction. It never answers facts of its own jobs, nor those of
//! another event of this kind, paused or not, unless its condition names that one, so that events which merely look on cannot
//! set each other off; circles that name each other end when too many jobs have led to one another. With nobody waiting,
//! nothing wakes.

use super::fire::Occasion;
use super::{Event, Events, pause, watches};
use crate::bus::BusEvent;
use crate::error::{EngineError, Kind, Result};
use crate::queue::JobId;
use crate::schedule::{Condition, ConditionType, FactRule, Rule, Schedule};
use futures::StreamExt as _;
use nexaas_common::backoff::Backoff;
use nexaas_common::task::{OnExit, Supervisor};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RETRY: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
/// Facts looked at together.
const PAGE: usize = 256;
/// Answers stored in one transaction.
const AT_ONCE: usize = 64;
/// The place on the bus is stored at least this often; what lies behind it is looked at again after a restart.
const PLACE_EVERY: u64 = 10_000;
/// Answers kept behind the place, for whoever wants to know; the place alone keeps them from being given again.
const KEPT: u64 = 10_000;

pub(crate) fn start(events: Events, supervisor: &Supervisor) {
    supervisor.spawn("bus-triggers", OnExit::Shutdown, |token| run(events, token));
}

pub(super) async fn run(events: Events, token: CancellationToken) {
    let mut changed = events.watchers.listen();
    let mut failures = 0;
    loop {
        let error = tokio::select! {
            () = token.cancelled() => return,
            ended = watch(&events, &mut changed, &mut failures) => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        tracing::error!(error = error.chain(), "events that wait for facts cannot be answered");
        failures += 1;
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep(RETRY.delay(failures - 1)) => {}
        }
    }
}

/// One event that waits.
#[derive(Debug)]
struct Watcher {
    id: String,
    rule: FactRule,
    from: u64,
}

/// All that wait, and up to where the bus was looked at.
#[derive(Debug)]
struct Watchers {
    list: Vec<Watcher>,
    /// When the last of them began to wait: whoever begins later is not in the list.
    newest: u64,
    place: u64,
}

/// A fact, and whose condition it fits.
#[derive(Debug)]
struct Hit {
    fact: BusEvent,
    fits: Vec<Fit>,
}

#[derive(Debug)]
struct Fit {
    id: String,
    /// The condition names the event that the fact comes of.
    named: bool,
}

/// Follows the bus until the set of waiting events changes.
async fn watch(events: &Events, changed: &mut watch::Receiver<u64>, failures: &mut u32) -> Result<()> {
    // Marked as seen before reading, so that what changes meanwhile is not missed.
    changed.borrow_and_update();
    let watchers = events.store.read(Watchers::load).await?;
    if watchers.list.is_empty() {
        *failures = 0;
        changed.changed().await.map_err(EngineError::internal)?;
        return Ok(());
    }
    let mut place = watchers.place;
    let mut facts = Box::pin(events.bus.subscribe(Some(place)).ready_chunks(PAGE));
    loop {
        let page = tokio::select! {
            biased;
            told = changed.changed() => return told.map_err(EngineError::internal),
            page = facts.next() => page,
        };
        let Some(page) = page else { return Err(EngineError::unavailable("The bus cannot be followed")) };
        match events.look_at(&watchers, place, page).await? {
            Some(reached) => place = reached,
            None => return Ok(()),
        }
        *failures = 0;
    }
}

/// One look at all that was told until now, for whoever takes one step after another.
#[cfg(test)]
pub(crate) async fn look(events: &Events) -> Result<()> {
    let end = events.bus.last_seq();
    loop {
        let watchers = events.store.read(Watchers::load).await?;
        let (mut seen, mut place) = (watchers.place, Some(watchers.place));
        if watchers.list.is_empty() {
            return Ok(());
        }
        let mut facts = Box::pin(events.bus.subscribe(Some(seen)).ready_chunks(PAGE));
        while let Some(from) = place
            && seen < end
        {
            let page = facts.next().await.unwrap_or_default();
            let page: Vec<BusEvent> = page.into_iter().filter(|fact| fact.seq <= end).collect();
            seen = page.last().map_or(end, |fact| fact.seq);
            place = events.look_at(&watchers, from, page).await?;
        }
        if place.is_some() {
            return Ok(());
        }
    }
}

impl Watchers {
    fn load(connection: &Connection) -> Result<Self> {
        let place: u64 = connection.query_row("SELECT seq FROM event_cursor", [], |row| row.get(0))?;
        let mut statement = connection.prepare_cached(
            "SELECT id, condition_expr, watch_from FROM events WHERE condition_type = 'bus' AND status = 'active'",
        )?;
        let mut rows = statement.query([])?;
        let mut list = Vec::new();
        while let Some(row) = rows.next()? {
            let (id, expression): (String, String) = (row.get(0)?, row.get(1)?);
            match rule(&expression) {
                Some(rule) => list.push(Watcher { id, rule, from: row.get::<_, Option<u64>>(2)?.unwrap_or(0) }),
                None => tracing::error!(event = id, "the condition of an event cannot be read any more"),
            }
        }
        // What was told while nobody waited is nobody's.
        let oldest = list.iter().map(|watcher| watcher.from).min().unwrap_or(0);
        Ok(Self { newest: list.iter().map(|watcher| watcher.from).max().unwrap_or(0), place: place.max(oldest), list })
    }

    fn hit(&self, fact: BusEvent) -> Option<Hit> {
        let origin = origin(&fact);
        let fits = |watcher: &&Watcher| {
            watcher.from < fact.seq && origin != Some(watcher.id.as_str()) && watcher.rule.matches(&fact)
        };
        let named = |watcher: &Watcher| origin.is_some_and(|origin| watcher.rule.names_event(origin));
        let fit = |watcher: &Watcher| Fit { id: watcher.id.clone(), named: named(watcher) };
        let fits: Vec<Fit> = self.list.iter().filter(fits).map(fit).collect();
        (!fits.is_empty()).then_some(Hit { fact, fits })
    }
}

fn rule(expression: &str) -> Option<FactRule> {
    let condition = Condition { kind: ConditionType::Bus, expression, timezone: None, catch_up: None };
    match Schedule::of(&condition, chrono_tz::Tz::UTC).ok()?.rule {
        Rule::OnFact(rule) => Some(*rule),
        Rule::Cron(_) | Rule::Every(_) | Rule::Once(_) | Rule::OnDemand => None,
    }
}

/// The event whose job, or which itself, the fact tells of.
fn origin(fact: &BusEvent) -> Option<&str> {
    fact.data.get("event_id").and_then(Value::as_str).or_else(|| fact.source.strip_prefix("event:"))
}

/// Whether there is an event of this id that waits for facts, be it active or not.
fn on_bus(tx: &Connection, id: &str) -> Result<bool> {
    Ok(tx.prepare_cached("SELECT 1 FROM events WHERE id = ?1 AND condition_type = 'bus'")?.exists([id])?)
}

impl Events {
    /// Answers the facts of a page. The place up to which answers are stored now; none, when the set of waiting events is no
    /// longer this one.
    async fn look_at(&self, watchers: &Watchers, place: u64, page: Vec<BusEvent>) -> Result<Option<u64>> {
        let Some(last) = page.last().map(|fact| fact.seq) else { return Ok(Some(place)) };
        let hits: Vec<Hit> = page.into_iter().filter_map(|fact| watchers.hit(fact)).collect();
        if hits.is_empty() && last - place < PLACE_EVERY {
            return Ok(Some(place));
        }
        Ok(self.answer_all(hits, last, watchers.newest).await?.then_some(last))
    }

    /// Stores the answers to `hits` and that the bus was looked at up to `upto`. False when the set of waiting events is no
    /// longer the one that the hits were found with: what is left is to be looked at again.
    async fn answer_all(&self, hits: Vec<Hit>, upto: u64, newest: u64) -> Result<bool> {
        let mut rest = hits.into_iter().peekable();
        loop {
            let (mut part, mut answers) = (Vec::new(), 0);
            while answers < AT_ONCE
                && let Some(hit) = rest.next()
            {
                answers += hit.fits.len();
                part.push(hit);
            }
            let last = rest.peek().is_none();
            let reached = if last { upto } else { part.last().map_or(upto, |hit| hit.fact.seq) };
            let events = self.clone();
            let current = self.store.write(move |tx| events.answer_in(tx, &part, reached, newest)).await?;
            if !current || last {
                return Ok(current);
            }
        }
    }

    fn answer_in(&self, tx: &Connection, hits: &[Hit], reached: u64, newest: u64) -> Result<bool> {
        let latest: Option<u64> = tx
            .prepare_cached("SELECT max(watch_from) FROM events WHERE condition_type = 'bus' AND status = 'active'")?
            .query_row([], |row| row.get(0))?;
        if latest.is_some_and(|latest| latest > newest) {
            return Ok(false);
        }
        let mut current = true;
        for hit in hits {
            // Decided here, whatever the state of that event, and never again: the place moves on with it.
            let foreign = origin(&hit.fact).map_or(Ok(false), |id| on_bus(tx, id))?;
            for fit in hit.fits.iter().filter(|fit| fit.named || !foreign) {
                current &= self.answer(tx, &fit.id, &hit.fact)?;
            }
        }
        tx.prepare_cached("UPDATE event_cursor SET seq = max(seq, ?1)")?.execute([reached])?;
        tx.prepare_cached("DELETE FROM event_facts WHERE seq < ?1")?.execute([reached.saturating_sub(KEPT)])?;
        Ok(current)
    }

    /// One event's answer to one fact. False when it no longer waits.
    fn answer(&self, tx: &Connection, id: &str, fact: &BusEvent) -> Result<bool> {
        let now = self.clock.now();
        let waiting = Event::load(tx, id)?.filter(|event| watches(event) && event.expires_at.is_none_or(|at| at > now));
        let Some(event) = waiting else { return Ok(false) };
        let given = tx
            .prepare_cached("SELECT 1 FROM event_facts WHERE seq = ?1 AND event_id = ?2")?
            .exists(params![fact.seq, id])?;
        if given || event.watch_from.is_some_and(|from| from >= fact.seq) || event.starts_at.is_some_and(|at| at > now)
        {
            return Ok(true);
        }
        let occasion =
            Occasion { payload: Some(json!(fact)), depth: self.depth_of_cause(tx, fact)?, ..Occasion::default() };
        let (job, outcome) = match self.fire(tx, &event, occasion) {
            Ok(fired) => fired.parts(),
            Err(error) if error.kind == Kind::Unavailable => return Err(error),
            Err(error) if error.field() == Some("depth") => {
                let reason = "its jobs and those of other events set each other off in a circle";
                pause::by_engine(tx, &self.bus, id, reason, 0, now)?;
                return Ok(false);
            }
            Err(error) => {
                self.set_aside(tx, &event, error.public(), now)?;
                return Ok(false);
            }
        };
        tx.prepare_cached("INSERT INTO event_facts (seq, event_id, job_id, outcome) VALUES (?1, ?2, ?3, ?4)")?
            .execute(params![fact.seq, id, job, outcome])?;
        Ok(true)
    }

    /// One more than the depth of the job that the fact tells of.
    fn depth_of_cause(&self, tx: &Connection, fact: &BusEvent) -> Result<u32> {
        let Some(id) = fact.data.get("job_id").and_then(Value::as_str).and_then(|text| text.parse::<JobId>().ok())
        else {
            return Ok(0);
        };
        let depth: Option<u32> = tx
            .prepare_cached("SELECT depth FROM jobs WHERE id = ?1")?
            .query_row([id.uuid().as_bytes()], |row| row.get(0))
            .optional()?;
        Ok(depth.map_or(0, |depth| depth + 1))
    }
}
