//! Cron against a model that walks the calendar minute by minute, over zones drawn by a seed, around their changes of clocks.

use super::*;
use chrono::{Datelike as _, MappedLocalTime, NaiveDateTime, Offset as _, TimeZone as _, Timelike as _};
use chrono_tz::{TZ_VARIANTS, Tz};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::BTreeSet;

/// Without `*` in minute and hour: fixed times.
const FIXED: &[&str] = &[
    "0 0 * * *",
    "30 2 * * *",
    "15 1,2,3 * * *",
    "0,30 0-3 * * *",
    "45 23 * * *",
    "30 23 * * 6",
    "0 0 1 * *",
    "10 2 * * 0",
    "59 23 28-31 * *",
    "5 0 13 * 5",
    "0 3 * 3,10 *",
];
/// With `*` there: a rhythm.
const RHYTHMS: &[&str] =
    &["* * * * *", "*/15 * * * *", "7 * * * *", "*/7 1-3 * * *", "30 */2 * * *", "0 */6 * * 0", "*/20 0 1 * *"];
/// Where clocks do odd things: at midnight, before it, by half an hour, twice a year for Ramadan.
const ODD: &[Tz] = &[
    Tz::America__Nuuk,
    Tz::America__Scoresbysund,
    Tz::Australia__Lord_Howe,
    Tz::Africa__Casablanca,
    Tz::Africa__Cairo,
    Tz::Asia__Beirut,
    Tz::America__Santiago,
    Tz::America__Havana,
    Tz::Pacific__Chatham,
    Tz::America__St_Johns,
    Tz::Antarctica__Troll,
    Tz::Europe__Berlin,
    Tz::UTC,
];

/// One field of five: which numbers it allows, and whether it is a plain `*`.
struct Field {
    allowed: BTreeSet<u32>,
    any: bool,
}

impl Field {
    fn read(text: &str, least: u32, most: u32) -> Self {
        let mut allowed = BTreeSet::new();
        for part in text.split(',') {
            let (range, step) = part.split_once('/').map_or((part, 1), |(range, step)| (range, step.parse().unwrap()));
            let (from, to) = match range.split_once('-') {
                _ if range == "*" => (least, most),
                Some((from, to)) => (from.parse().unwrap(), to.parse().unwrap()),
                None => (range.parse().unwrap(), range.parse().unwrap()),
            };
            allowed.extend((from..=to).step_by(step));
        }
        Self { allowed, any: text == "*" }
    }
}

struct Model {
    fields: [Field; 5],
    fixed: bool,
    zone: Tz,
}

impl Model {
    fn new(expression: &str, zone: Tz) -> Self {
        let texts: Vec<&str> = expression.split(' ').collect();
        let limits = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 6)];
        let fields = std::array::from_fn(|n| Field::read(texts[n], limits[n].0, limits[n].1));
        Self { fields, fixed: !texts[0].contains('*') && !texts[1].contains('*'), zone }
    }

    fn fits(&self, at: NaiveDateTime) -> bool {
        let [minute, hour, day, month, weekday] = &self.fields;
        let (of_month, of_week) =
            (day.allowed.contains(&at.day()), weekday.allowed.contains(&at.weekday().num_days_from_sunday()));
        let date = if day.any || weekday.any { of_month && of_week } else { of_month || of_week };
        minute.allowed.contains(&at.minute())
            && hour.allowed.contains(&at.hour())
            && month.allowed.contains(&at.month())
            && date
    }

    /// All slots in `from..to`.
    fn slots(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> BTreeSet<Slot> {
        let minutes = (to - from).num_minutes();
        if !self.fixed {
            let all = (0..minutes).map(|n| from + Duration::minutes(n));
            return all.filter(|at| self.fits(at.with_timezone(&self.zone).naive_local())).collect();
        }
        let margin = 26 * 60;
        let walls = (-margin..minutes + margin).map(|n| from.naive_utc() + Duration::minutes(n));
        walls
            .filter(|wall| self.fits(*wall))
            .map(|wall| self.moment(wall))
            .filter(|at| (from..to).contains(at))
            .collect()
    }

    fn moment(&self, mut wall: NaiveDateTime) -> Slot {
        loop {
            match self.zone.from_local_datetime(&wall) {
                MappedLocalTime::Single(at) | MappedLocalTime::Ambiguous(at, _) => return at.to_utc(),
                MappedLocalTime::None => wall += Duration::minutes(1),
            }
        }
    }
}

/// Moments of a year at which the zone's clocks are changed, to the hour.
fn changes(zone: Tz, year: i32) -> Vec<DateTime<Utc>> {
    let start = Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap();
    let offset = |at: DateTime<Utc>| zone.offset_from_utc_datetime(&at.naive_utc()).fix();
    (0..366 * 24)
        .map(|n| start + Duration::hours(n))
        .filter(|at| offset(*at) != offset(*at + Duration::hours(1)))
        .collect()
}

fn compare(expression: &str, zone: Tz, from: DateTime<Utc>, to: DateTime<Utc>) {
    let wanted: Vec<Slot> = Model::new(expression, zone).slots(from, to).into_iter().collect();
    let schedule = Schedule::parse(ConditionType::Cron, expression, zone, from).unwrap();
    let mut found = Vec::new();
    let mut last = from - Duration::seconds(1);
    while let Some(next) = schedule.next_after(last).filter(|next| *next < to) {
        found.push(next);
        last = next;
    }
    assert_eq!(found, wanted, "'{expression}' in {zone} from {from} to {to}");
    // Backwards, the same ones are found.
    let mut before = to;
    let mut back = Vec::new();
    while let Some(slot) = schedule.previous(before, false).filter(|slot| *slot >= from) {
        back.push(slot);
        before = slot;
    }
    back.reverse();
    assert_eq!(back, wanted, "backwards: '{expression}' in {zone} from {from} to {to}");
}

#[test]
fn cron_agrees_with_walking_the_calendar_minute_by_minute() {
    let seed =
        std::env::var("NEXAAS_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(rand::random::<u64>);
    println!("seed {seed} (NEXAAS_TEST_SEED replays it)");
    let mut rng = StdRng::seed_from_u64(seed);
    let mut windows = 0;
    let zones: Vec<Tz> = ODD.iter().chain(TZ_VARIANTS.sample(&mut rng, 40)).copied().collect();
    for zone in zones {
        let year = rng.random_range(2024..=2028);
        let mut middles = changes(zone, year);
        middles.push(Utc.with_ymd_and_hms(year, rng.random_range(1..=12), 1, 0, 0, 0).unwrap());
        for middle in middles {
            let (from, to) = (middle - Duration::hours(30), middle + Duration::hours(30));
            for expression in [FIXED.choose(&mut rng), FIXED.choose(&mut rng), RHYTHMS.choose(&mut rng)] {
                compare(expression.unwrap(), zone, from, to);
                windows += 1;
            }
        }
    }
    println!("{windows} windows of 60 hours agree");
}

#[test]
fn every_expression_agrees_where_clocks_do_odd_things() {
    for zone in ODD {
        for middle in changes(*zone, 2026) {
            for expression in FIXED.iter().chain(RHYTHMS) {
                compare(expression, *zone, middle - Duration::hours(26), middle + Duration::hours(26));
            }
        }
    }
}

#[test]
fn ends_of_months_and_leap_years() {
    for (expression, from, wanted) in [
        ("0 0 31 * *", "2026-01-31T12:00:00Z", vec!["2026-03-31", "2026-05-31", "2026-07-31", "2026-08-31"]),
        ("0 0 30 * *", "2026-01-30T12:00:00Z", vec!["2026-03-30", "2026-04-30"]),
        ("0 0 29 * *", "2026-01-29T12:00:00Z", vec!["2026-03-29"]),
        ("0 0 29 * *", "2028-01-29T12:00:00Z", vec!["2028-02-29", "2028-03-29"]),
        ("0 0 29 2 *", "2026-01-01T00:00:00Z", vec!["2028-02-29", "2032-02-29"]),
        // 2100 is no leap year.
        ("0 0 29 2 *", "2096-02-29T12:00:00Z", vec!["2104-02-29"]),
        ("0 0 L * *", "2026-01-01T00:00:00Z", vec!["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]),
        ("0 0 L 2 *", "2027-01-01T00:00:00Z", vec!["2027-02-28", "2028-02-29"]),
        ("0 0 * * FRI#L", "2026-01-01T00:00:00Z", vec!["2026-01-30", "2026-02-27"]),
        ("0 0 * * MON#2", "2026-01-01T00:00:00Z", vec!["2026-01-12", "2026-02-09"]),
        ("0 0 1 1 *", "2026-06-01T00:00:00Z", vec!["2027-01-01"]),
        ("0 0 13 * 5", "2026-02-01T00:00:00Z", vec!["2026-02-06", "2026-02-13", "2026-02-20"]),
        ("0 0 1,15 * *", "2026-01-31T00:00:00Z", vec!["2026-02-01", "2026-02-15", "2026-03-01"]),
        ("@monthly", "2026-01-31T00:00:00Z", vec!["2026-02-01", "2026-03-01"]),
        ("@yearly", "2026-01-31T00:00:00Z", vec!["2027-01-01"]),
        ("@annually", "2026-01-31T00:00:00Z", vec!["2027-01-01"]),
        ("@weekly", "2026-01-01T00:00:00Z", vec!["2026-01-04", "2026-01-11"]),
        ("@daily", "2026-02-27T00:00:00Z", vec!["2026-02-28", "2026-03-01"]),
        ("@midnight", "2028-02-28T00:00:00Z", vec!["2028-02-29", "2028-03-01"]),
    ] {
        let from = DateTime::parse_from_rfc3339(from).unwrap().to_utc();
        let schedule = Schedule::parse(ConditionType::Cron, expression, Tz::UTC, from).unwrap();
        let mut last = from;
        for date in wanted {
            last = schedule.next_after(last).unwrap();
            assert_eq!(last.naive_utc().date().to_string(), date, "{expression} from {from}");
        }
    }
}
