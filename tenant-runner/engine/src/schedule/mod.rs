//! When an event is due: a pure function of its expression, its zone and the slot before. No clock and no database here.
//!
//! Always true here: `next_after` lies strictly after what it is given; a fixed local time that a change of clocks repeats
//! counts once, one that is skipped counts at the end of the gap; however long nobody looked, `due` takes bounded work.

mod cache;
pub(crate) mod clock_change;
mod fact;
mod local;
mod parse;

pub mod timer;

#[cfg(test)]
mod reference_tests;
#[cfg(test)]
mod tests;

pub(crate) use cache::Cache;
pub use fact::FactRule;
pub use local::LocalTimes;
pub use parse::ConditionType;
pub(crate) use parse::{Condition, timezone};

use chrono::{DateTime, Duration, Utc};

/// A moment at which something is to run.
pub type Slot = DateTime<Utc>;

/// Most slots that one catch-up may run.
pub const MOST_CAUGHT_UP: u32 = 1000;
/// A slot this late was not missed, merely woken up for.
const PROMPT: Duration = Duration::seconds(60);

/// When.
#[derive(Debug, Clone)]
pub enum Rule {
    /// A cron expression in a zone's local time.
    Cron(LocalTimes),
    /// Every so often, counted from slot to slot, so that delays do not add up.
    Every(Duration),
    /// At one moment.
    Once(Slot),
    /// When such a fact is told on the bus.
    OnFact(Box<FactRule>),
    /// Only when triggered.
    OnDemand,
}

/// What to do about slots that passed while the process was down. Those of a pause are not made up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CatchUp {
    /// They are lost.
    Skip,
    /// The last of them runs.
    Latest,
    /// The last so many of them run.
    All { max: u32 },
}

/// When, and what about the past.
#[derive(Debug, Clone)]
pub struct Schedule {
    pub rule: Rule,
    pub catch_up: CatchUp,
}

/// What is to be done at some moment about a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// To run now, oldest first.
    pub slots: Vec<Slot>,
    /// When to look again; never, if nothing follows.
    pub next: Option<Slot>,
}

impl Schedule {
    /// The first slot of an event that is planned at `now` and has none before `starts_at`.
    pub fn first(&self, now: DateTime<Utc>, starts_at: Option<DateTime<Utc>>) -> Option<Slot> {
        match (&self.rule, starts_at) {
            (Rule::Once(at), _) => Some(*at),
            // An interval counts from its start.
            (Rule::Every(_), Some(start)) if start > now => Some(start),
            (Rule::Every(period), Some(start)) => nth_after(start, *period, now)?.checked_add_signed(*period),
            // A slot exactly at the start belongs to the event.
            (_, Some(start)) if start > now => self.next_after(start - Duration::microseconds(1)),
            _ => self.next_after(now),
        }
    }

    /// The slot that follows `last`.
    pub fn next_after(&self, last: DateTime<Utc>) -> Option<Slot> {
        match &self.rule {
            Rule::Cron(times) => times.after(last),
            Rule::Every(period) => last.checked_add_signed(*period),
            Rule::Once(at) => (last < *at).then_some(*at),
            Rule::OnFact(_) | Rule::OnDemand => None,
        }
    }

    /// What is to be done at `now`, when `expected` is the earliest slot not yet seen to.
    pub fn due(&self, expected: Slot, now: DateTime<Utc>) -> Due {
        if expected > now {
            return Due { slots: Vec::new(), next: Some(expected) };
        }
        // The usual case, a slot that is merely due, costs one search.
        if let (Rule::Cron(_) | Rule::Every(_), Some(next)) = (&self.rule, self.next_after(expected))
            && next > now
        {
            let missed = self.catch_up == CatchUp::Skip && now - expected > PROMPT;
            return Due { slots: if missed { Vec::new() } else { vec![expected] }, next: Some(next) };
        }
        let most = match self.catch_up {
            CatchUp::Skip | CatchUp::Latest => 1,
            CatchUp::All { max } => max.clamp(1, MOST_CAUGHT_UP),
        };
        let mut slots = self.last_slots(expected, now, most as usize);
        if self.catch_up == CatchUp::Skip {
            slots.retain(|slot| now - *slot <= PROMPT);
        }
        let next = match &self.rule {
            Rule::Cron(_) => self.next_after(now),
            Rule::Every(period) => nth_after(expected, *period, now).and_then(|last| last.checked_add_signed(*period)),
            Rule::Once(_) | Rule::OnFact(_) | Rule::OnDemand => None,
        };
        Due { slots, next }
    }

    /// The last `most` slots in `expected..=now`, oldest first. `expected` counts as a slot.
    fn last_slots(&self, expected: Slot, now: DateTime<Utc>, most: usize) -> Vec<Slot> {
        let mut slots = Vec::new();
        let mut latest = match &self.rule {
            Rule::Cron(_) => self.previous(now, true).filter(|slot| *slot >= expected).or(Some(expected)),
            Rule::Every(period) => nth_after(expected, *period, now),
            Rule::Once(_) | Rule::OnFact(_) | Rule::OnDemand => Some(expected),
        };
        while let Some(slot) = latest
            && slots.len() < most
        {
            slots.push(slot);
            latest = match &self.rule {
                Rule::Cron(_) if slot > expected => {
                    Some(self.previous(slot, false).filter(|earlier| *earlier >= expected).unwrap_or(expected))
                }
                Rule::Every(period) => slot.checked_sub_signed(*period).filter(|earlier| *earlier >= expected),
                _ => None,
            };
        }
        slots.reverse();
        slots
    }

    fn previous(&self, before: DateTime<Utc>, inclusive: bool) -> Option<Slot> {
        let Rule::Cron(times) = &self.rule else { return None };
        times.before(before, inclusive)
    }
}

/// The last of `first, first + period, …` that is not after `now`.
fn nth_after(first: Slot, period: Duration, now: DateTime<Utc>) -> Option<Slot> {
    let (gone, step) = ((now - first).num_microseconds()?, period.num_microseconds()?);
    first.checked_add_signed(Duration::microseconds(step.checked_mul(gone.div_euclid(step.max(1)))?))
}
