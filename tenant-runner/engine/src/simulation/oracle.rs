//! When a schedule is due, worked out anew and without any cron library: what the engine does is measured against this.
//! A fixed local time that a change of clocks repeats counts once (the first time), one that is skipped counts at the end of
//! the gap; a wildcard runs evenly in real time.

use super::firing::Wanted;
use chrono::{DateTime, Datelike as _, Duration, NaiveDate, NaiveTime, Offset as _, TimeZone as _, Utc};
use chrono_tz::Tz;
use serde_json::{Value, json};

#[derive(Debug, Clone, PartialEq)]
pub enum Rule {
    /// Each day at this local time.
    Daily {
        hour: u32,
        minute: u32,
        zone: Tz,
    },
    /// Each hour at this minute. Only for zones whose offset changes by whole hours.
    Hourly {
        minute: u32,
        zone: Tz,
    },
    /// Every 15 or 30 minutes of the hour.
    Quarters {
        minutes: i64,
        zone: Tz,
    },
    /// On one day of the week.
    Weekly {
        day: u32,
        hour: u32,
        zone: Tz,
    },
    Every {
        seconds: i64,
    },
    Once {
        at: DateTime<Utc>,
    },
    /// When such a fact is told on the bus.
    Fact(Wanted),
    /// Only when something asks for it.
    Asked,
}

impl Rule {
    pub fn condition(&self) -> (&'static str, Value) {
        let cron = |expr: String, zone: &Tz| ("cron", json!({"expr": expr, "timezone": zone.name()}));
        match self {
            Self::Daily { hour, minute, zone } => cron(format!("{minute} {hour} * * *"), zone),
            Self::Hourly { minute, zone } => cron(format!("{minute} * * * *"), zone),
            Self::Quarters { minutes, zone } => cron(format!("*/{minutes} * * * *"), zone),
            Self::Weekly { day, hour, zone } => cron(format!("0 {hour} * * {day}"), zone),
            Self::Every { seconds } => ("interval", json!({"seconds": seconds})),
            Self::Once { at } => ("once", json!({"at": at.to_rfc3339()})),
            Self::Fact(wanted) => ("bus", wanted.condition()),
            Self::Asked => ("webhook", json!({})),
        }
    }

    /// The first slot of a schedule that is planned at `now` and has none before `start`, which may be one itself.
    pub fn first(&self, now: DateTime<Utc>, start: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
        let anchor = start.unwrap_or(now);
        match self {
            Self::Once { at } => Some(*at),
            Self::Every { .. } if anchor > now => Some(anchor),
            _ => self.after(now.max(anchor - Duration::microseconds(1)), anchor),
        }
    }

    /// The slot that follows `last`, for an interval counted from `anchor`.
    pub fn after(&self, last: DateTime<Utc>, anchor: DateTime<Utc>) -> Option<DateTime<Utc>> {
        match self {
            Self::Every { seconds } => {
                let gone = (last - anchor).num_microseconds().unwrap().div_euclid(seconds * 1_000_000);
                Some(anchor + Duration::microseconds((gone + 1) * seconds * 1_000_000))
            }
            Self::Once { at } => (last < *at).then_some(*at),
            Self::Fact(_) | Self::Asked => None,
            _ => (1..).map(|days| self.between(last, last + Duration::days(8 * days))).find_map(|s| s.first().copied()),
        }
    }

    /// The cron slots in `(after, until]`.
    fn between(&self, after: DateTime<Utc>, until: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        let inside = |at: &DateTime<Utc>| *at > after && *at <= until;
        let days = |zone: &Tz| {
            let first = after.with_timezone(zone).date_naive() - Duration::days(1);
            let last = until.with_timezone(zone).date_naive();
            first.iter_days().take_while(move |day| *day <= last)
        };
        match self {
            Self::Daily { hour, minute, zone } => {
                days(zone).map(|day| local(zone, day, *hour, *minute)).filter(inside).collect()
            }
            Self::Weekly { day, hour, zone } => days(zone)
                .filter(|date| date.weekday().num_days_from_sunday() == *day)
                .map(|date| local(zone, date, *hour, 0))
                .filter(inside)
                .collect(),
            Self::Hourly { minute, zone } => {
                // Every hour of real time, at the minute that the zone's offset makes of it.
                let offset = i64::from(zone.offset_from_utc_datetime(&after.naive_utc()).fix().local_minus_utc()) / 60;
                let base = (i64::from(*minute) - offset).rem_euclid(60) * 60;
                grid(after, until, 3600, base).collect()
            }
            Self::Quarters { minutes, zone } => grid(after, until, 900, 0)
                .filter(|at| {
                    let local = at.with_timezone(zone);
                    i64::from(chrono::Timelike::minute(&local)) % minutes == 0
                })
                .collect(),
            Self::Every { .. } | Self::Once { .. } | Self::Fact(_) | Self::Asked => Vec::new(),
        }
    }

    /// All slots from `expected`, which is one, to `now`.
    pub fn due(&self, expected: DateTime<Utc>, now: DateTime<Utc>) -> Vec<DateTime<Utc>> {
        if expected > now {
            return Vec::new();
        }
        let mut slots = vec![expected];
        match self {
            Self::Every { seconds } => {
                while *slots.last().unwrap() + Duration::seconds(*seconds) <= now {
                    slots.push(*slots.last().unwrap() + Duration::seconds(*seconds));
                }
            }
            Self::Once { .. } | Self::Fact(_) | Self::Asked => {}
            _ => slots.extend(self.between(expected, now)),
        }
        slots
    }
}

fn grid(after: DateTime<Utc>, until: DateTime<Utc>, step: i64, base: i64) -> impl Iterator<Item = DateTime<Utc>> {
    let first = (after.timestamp() - base).div_euclid(step) * step + base;
    (0..)
        .map(move |n| Utc.timestamp_opt(first + n * step, 0).unwrap())
        .skip_while(move |at| *at <= after)
        .take_while(move |at| *at <= until)
}

fn local(zone: &Tz, day: NaiveDate, hour: u32, minute: u32) -> DateTime<Utc> {
    let wanted = day.and_time(NaiveTime::from_hms_opt(hour, minute, 0).unwrap());
    match zone.from_local_datetime(&wanted).earliest() {
        Some(at) => at.with_timezone(&Utc),
        // In the gap: the first minute after it.
        None => (1..)
            .find_map(|minutes| zone.from_local_datetime(&(wanted + Duration::minutes(minutes))).earliest())
            .unwrap()
            .with_timezone(&Utc),
    }
}
