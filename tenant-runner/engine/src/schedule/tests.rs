use super::*;
use chrono_tz::Tz;
use proptest::prelude::*;

fn utc(text: &str) -> DateTime<Utc> {
    DateTime::parse_from_rfc3339(text).unwrap().with_timezone(&Utc)
}

fn cron_in(expression: &str, zone: Tz) -> Schedule {
    Schedule::parse(ConditionType::Cron, expression, zone, utc("2026-01-01T00:00:00Z")).unwrap()
}

fn slots(schedule: &Schedule, from: &str, count: usize) -> Vec<String> {
    let mut last = utc(from);
    (0..count)
        .map(|_| {
            last = schedule.next_after(last).unwrap();
            last.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
        })
        .collect()
}

#[test]
fn a_fixed_local_time_inside_the_gap_runs_at_its_end() {
    for (zone, from, expected) in [
        (Tz::Europe__Berlin, "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"),
        (Tz::America__New_York, "2026-03-07T12:00:00Z", "2026-03-08T07:00:00Z"),
        // Half an hour only.
        (Tz::Australia__Lord_Howe, "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z"),
    ] {
        let schedule = cron_in(if zone == Tz::Australia__Lord_Howe { "15 2 * * *" } else { "30 2 * * *" }, zone);
        assert_eq!(slots(&schedule, from, 1), [expected], "{zone}");
    }
}

#[test]
fn a_fixed_local_time_that_is_repeated_runs_once() {
    let schedule = cron_in("30 2 * * *", Tz::Europe__Berlin);
    assert_eq!(slots(&schedule, "2026-10-24T12:00:00Z", 2), ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
    let schedule = cron_in("30 1 * * *", Tz::America__New_York);
    assert_eq!(slots(&schedule, "2026-10-31T12:00:00Z", 2), ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]);
}

#[test]
fn nine_o_clock_stays_nine_o_clock_over_a_change() {
    let schedule = cron_in("0 9 * * *", Tz::Europe__Berlin);
    assert_eq!(
        slots(&schedule, "2026-03-27T12:00:00Z", 3),
        ["2026-03-28T08:00:00Z", "2026-03-29T07:00:00Z", "2026-03-30T07:00:00Z"]
    );
}

#[test]
fn every_quarter_of_an_hour_is_even_in_real_time_over_both_changes() {
    for (zone, from) in [
        (Tz::Europe__Berlin, "2026-03-28T23:00:00Z"),
        (Tz::Europe__Berlin, "2026-10-24T23:00:00Z"),
        (Tz::America__New_York, "2026-11-01T04:00:00Z"),
        (Tz::America__St_Johns, "2026-11-01T03:00:00Z"),
    ] {
        let schedule = cron_in("*/15 * * * *", zone);
        let mut last = schedule.next_after(utc(from)).unwrap();
        for _ in 0..24 {
            let next = schedule.next_after(last).unwrap();
            assert_eq!(next - last, Duration::minutes(15), "{zone} at {last}");
            last = next;
        }
    }
}

#[test]
fn six_fields_and_names_are_understood() {
    let schedule = cron_in("15 30 8 * * MON", Tz::UTC);
    assert_eq!(slots(&schedule, "2026-01-01T00:00:00Z", 1), ["2026-01-05T08:30:15Z"]);
    let schedule = cron_in("@daily", Tz::UTC);
    assert_eq!(slots(&schedule, "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00Z"]);
    let schedule = cron_in(r#"{"expr":"@hourly","timezone":"Asia/Kolkata"}"#, Tz::UTC);
    assert_eq!(slots(&schedule, "2026-01-01T00:00:00Z", 1), ["2026-01-01T00:30:00Z"]);
}

#[test]
fn a_leap_day_is_found_years_ahead() {
    let schedule = cron_in("0 0 29 2 *", Tz::UTC);
    assert_eq!(slots(&schedule, "2026-01-01T00:00:00Z", 1), ["2028-02-29T00:00:00Z"]);
}

#[test]
fn a_bad_expression_is_refused_with_its_field() {
    let now = utc("2026-01-01T00:00:00Z");
    for (condition, text) in [
        (ConditionType::Cron, ""),
        (ConditionType::Cron, "* * *"),
        (ConditionType::Cron, "61 * * * *"),
        (ConditionType::Cron, ", * * * *"),
        (ConditionType::Cron, "0 9 * * 1,"),
        (ConditionType::Cron, "0 0 30 2 *"),
        (ConditionType::Cron, "0 0 0 1 1 * 2030"),
        (ConditionType::Cron, r#"{"expr":"@daily","timezone":"Mars/Olympus"}"#),
        (ConditionType::Cron, r#"{"expr":"@daily","zone":"UTC"}"#),
        (ConditionType::Cron, r#"{"expr":"@daily","catch_up":{"all":0}}"#),
        (ConditionType::Cron, r#"{"expr":"#),
        (ConditionType::Interval, "0"),
        (ConditionType::Interval, "-5"),
        (ConditionType::Interval, "1e3"),
        (ConditionType::Interval, "99999999999999999999"),
        (ConditionType::Once, "tomorrow"),
        (ConditionType::Once, "2026-01-01T00:00:00"),
    ] {
        let error = Schedule::parse(condition, text, Tz::UTC, now).unwrap_err();
        assert_eq!(error.field(), Some("condition_expr"), "{text:?}: {error}");
    }
}

#[test]
fn catching_up_follows_the_policy() {
    let now = utc("2026-01-01T05:30:00Z");
    let expected = utc("2026-01-01T01:00:00Z");
    let hour = |h: u32| utc(&format!("2026-01-01T0{h}:00:00Z"));
    for rule in [cron_in("0 * * * *", Tz::UTC).rule, Rule::Every(Duration::hours(1))] {
        for (catch_up, run) in [
            (CatchUp::Skip, vec![]),
            (CatchUp::Latest, vec![hour(5)]),
            (CatchUp::All { max: 3 }, vec![hour(3), hour(4), hour(5)]),
            (CatchUp::All { max: 100 }, (1..=5).map(hour).collect()),
        ] {
            let due = Schedule { rule: rule.clone(), catch_up }.due(expected, now);
            assert_eq!(due, Due { slots: run, next: Some(hour(6)) }, "{catch_up:?}");
        }
    }
}

#[test]
fn skip_still_runs_a_slot_that_is_only_just_due() {
    let schedule = Schedule { rule: Rule::Every(Duration::hours(1)), catch_up: CatchUp::Skip };
    let at = utc("2026-01-01T01:00:00Z");
    assert_eq!(schedule.due(at, at + Duration::seconds(2)).slots, [at]);
}

#[test]
fn once_runs_however_late_and_then_never() {
    let at = utc("2026-01-01T01:00:00Z");
    let schedule = Schedule { rule: Rule::Once(at), catch_up: CatchUp::Latest };
    assert_eq!(schedule.first(utc("2027-01-01T00:00:00Z"), None), Some(at));
    assert_eq!(schedule.due(at, utc("2027-01-01T00:00:00Z")), Due { slots: vec![at], next: None });
}

#[test]
fn a_week_of_missed_seconds_costs_no_more_than_one() {
    let schedule = Schedule { catch_up: CatchUp::All { max: 2 }, ..cron_in("* * * * * *", Tz::UTC) };
    let now = utc("2026-01-08T00:00:00Z");
    let due = schedule.due(utc("2026-01-01T00:00:00Z"), now);
    assert_eq!(due, Due { slots: vec![now - Duration::seconds(1), now], next: Some(now + Duration::seconds(1)) });
}

fn zones() -> impl Strategy<Value = Tz> {
    prop::sample::select(vec![
        Tz::UTC,
        Tz::Europe__Berlin,
        Tz::Europe__London,
        Tz::America__New_York,
        Tz::America__St_Johns,
        Tz::Australia__Lord_Howe,
        Tz::Asia__Kathmandu,
        Tz::Africa__Casablanca,
        Tz::Pacific__Chatham,
    ])
}

fn expressions() -> impl Strategy<Value = String> {
    prop_oneof![
        (0u32..60, 0u32..24).prop_map(|(m, h)| format!("{m} {h} * * *")),
        (1u32..31).prop_map(|n| format!("*/{n} * * * *")),
        (0u32..60, 0u32..24, 0u32..7).prop_map(|(m, h, d)| format!("{m} {h} * * {d}")),
        (0u32..60, 1u32..12).prop_map(|(m, n)| format!("{m} */{n} * * *")),
        (0u32..60, 0u32..60, 0u32..24, 1u32..29).prop_map(|(s, m, h, d)| format!("{s} {m} {h} {d} * *")),
    ]
}

/// Any second of 2025 to 2027, so that every change of clocks is met.
fn moments() -> impl Strategy<Value = DateTime<Utc>> {
    (1_735_689_600i64..1_830_297_600).prop_map(|s| DateTime::from_timestamp(s, 0).unwrap())
}

/// Moments around the changes of clocks of several zones, where mistakes live.
fn moments_near_changes() -> impl Strategy<Value = DateTime<Utc>> {
    let changes = [
        "2026-03-29T01:00:00Z",
        "2026-10-25T01:00:00Z",
        "2026-03-08T07:00:00Z",
        "2026-11-01T06:00:00Z",
        "2026-10-03T15:30:00Z",
        "2026-04-04T15:00:00Z",
    ];
    (prop::sample::select(changes.to_vec()), -10_800i64..10_800).prop_map(|(at, s)| utc(at) + Duration::seconds(s))
}

proptest! {
    #[test]
    fn the_next_slot_is_strictly_later_and_depends_on_nothing_else(
        expression in expressions(), zone in zones(), at in prop_oneof![moments(), moments_near_changes()],
    ) {
        let schedule = cron_in(&expression, zone);
        let next = schedule.next_after(at).unwrap();
        prop_assert!(next > at);
        prop_assert_eq!(schedule.next_after(at), Some(next));
        // Nothing lies between: from anywhere in between, the same slot follows.
        let between = at + (next - at) / 2;
        if between < next {
            prop_assert_eq!(schedule.next_after(between), Some(next));
        }
    }

    #[test]
    fn catching_up_finds_exactly_the_slots_that_walking_forward_finds(
        expression in expressions(), zone in zones(), at in prop_oneof![moments(), moments_near_changes()],
        ahead_s in 0i64..200_000, max in 1u32..20,
    ) {
        let schedule = Schedule { catch_up: CatchUp::All { max }, ..cron_in(&expression, zone) };
        let expected = schedule.next_after(at).unwrap();
        let now = at + Duration::seconds(ahead_s);
        let mut walked = Vec::new();
        let mut slot = expected;
        while slot <= now {
            walked.push(slot);
            slot = schedule.next_after(slot).unwrap();
        }
        let due = schedule.due(expected, now);
        prop_assert_eq!(due.next, Some(slot));
        let tail = walked.len().saturating_sub(max as usize);
        prop_assert_eq!(&due.slots, &walked[tail..]);
    }

    #[test]
    fn an_interval_never_drifts(period_s in 1i64..100_000, at in moments(), ahead_s in 0i64..1_000_000) {
        let schedule = Schedule { rule: Rule::Every(Duration::seconds(period_s)), catch_up: CatchUp::Latest };
        let now = at + Duration::seconds(ahead_s);
        let due = schedule.due(at, now);
        let next = due.next.unwrap();
        prop_assert!(next > now && next - now <= Duration::seconds(period_s));
        prop_assert_eq!((next - at).num_seconds() % period_s, 0);
        prop_assert_eq!(due.slots, vec![next - Duration::seconds(period_s)]);
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in "\\PC{0,60}") {
        for condition in [ConditionType::Cron, ConditionType::Interval, ConditionType::Once] {
            let _ = Schedule::parse(condition, &text, Tz::UTC, utc("2026-01-01T00:00:00Z"));
        }
    }
}
