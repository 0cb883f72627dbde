//! A cron expression on the local calendar of a zone, where clocks are set forward and back.
//!
//! Always true here: an expression without `*` in its seconds, minutes and hours means fixed times: each local time counts
//! once, the first time round when it is repeated, and at the end of the gap when it is skipped. One with `*` there goes on
//! evenly in real time: in a repeated hour it runs both times, in a gap there is nothing to run.

use super::Slot;
use chrono::{DateTime, MappedLocalTime, NaiveDateTime, SubsecRound as _, TimeZone as _, Utc};
use chrono_tz::{GapInfo, Tz};
use croner::Cron;

/// When, in a zone's local time.
#[derive(Debug, Clone)]
pub struct LocalTimes {
    cron: Box<Cron>,
    zone: Tz,
    fixed: bool,
}

impl LocalTimes {
    /// `text` is the expression that `cron` was read from.
    pub(super) fn new(cron: Cron, text: &str, zone: Tz) -> Self {
        Self { cron: Box::new(cron), zone, fixed: names_fixed_times(text) }
    }

    /// The first slot strictly after `last`.
    pub(super) fn after(&self, last: DateTime<Utc>) -> Option<Slot> {
        // Cron knows whole seconds: a moment between two stands for the one before it.
        let last = last.trunc_subsecs(0);
        let local = last.with_timezone(&self.zone);
        if !self.fixed {
            return self.cron.find_next_occurrence(&local, false).ok().map(|next| next.with_timezone(&Utc));
        }
        // Slots rise with the local time they stand for, so the first one that is late enough is the answer.
        let mut wall = local.naive_local();
        loop {
            wall = self.cron.find_next_occurrence(&wall.and_utc(), false).ok()?.naive_utc();
            let slot = self.slot(wall)?;
            if slot > last {
                return Some(slot);
            }
        }
    }

    /// The last slot before `moment`, or at it if `inclusive`.
    pub(super) fn before(&self, moment: DateTime<Utc>, inclusive: bool) -> Option<Slot> {
        // A whole second before a moment between two is before it.
        let whole = moment.trunc_subsecs(0);
        let inclusive = inclusive || whole < moment;
        let local = whole.with_timezone(&self.zone);
        if !self.fixed {
            let slot = self.cron.find_previous_occurrence(&local, inclusive).ok()?.with_timezone(&Utc);
            return (slot <= moment).then_some(slot);
        }
        let mut wall = local.naive_local();
        if let MappedLocalTime::Ambiguous(first, second) = self.zone.from_local_datetime(&wall)
            && whole == second
        {
            // The second time round: local times later than now were already run the first time.
            wall += second - first;
        }
        let mut at_wall = true;
        loop {
            wall = self.cron.find_previous_occurrence(&wall.and_utc(), at_wall).ok()?.naive_utc();
            at_wall = false;
            let slot = self.slot(wall)?;
            if slot < whole || (inclusive && slot == whole) {
                return Some(slot);
            }
        }
    }

    /// The moment at which a fixed local time runs.
    fn slot(&self, wall: NaiveDateTime) -> Option<Slot> {
        match self.zone.from_local_datetime(&wall) {
            MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => Some(at.with_timezone(&Utc)),
            MappedLocalTime::None => Some(GapInfo::new(&wall, &self.zone)?.end?.with_timezone(&Utc)),
        }
    }
}

/// Whether seconds, minutes and hours are given, so that the expression means times and not a rhythm.
fn names_fixed_times(text: &str) -> bool {
    if let Some(name) = text.trim().strip_prefix('@') {
        return !name.eq_ignore_ascii_case("hourly");
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let times = fields.len().saturating_sub(3);
    !fields.iter().take(times).any(|field| field.contains(['*', '?']))
}
