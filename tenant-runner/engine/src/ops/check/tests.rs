use super::super::policy::Reading;
use super::super::policy::Severity::{Critical, Info, Warning};
use super::super::reading::{
    Backup, Disk, Ended, Files, Integrity, Jobs, Jump, McpServer, Memory, Model, Paused, Readings,
};
use super::super::remedy::Remedy;
use super::*;
use chrono::TimeDelta;
use std::time::Duration;

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Fingerprint, severity and remedy of everything that is found.
fn found(readings: &Readings, config: &OpsConfig) -> Vec<(String, Severity, Option<Remedy>)> {
    let findings = CHECKS.iter().flat_map(|check| {
        let judged = (check.judge)(readings, config);
        judged.verdict.findings().to_vec()
    });
    findings.map(|f| (f.fingerprint, f.severity, f.remedy)).collect()
}

#[test]
fn a_healthy_engine_has_no_findings() {
    assert_eq!(found(&Readings::fine(), &OpsConfig::default()), []);
}

#[test]
fn names_differ_and_every_finding_carries_its_checks_name() {
    let mut names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), CHECKS.len());
}

#[test]
fn each_trouble_is_found_with_its_severity_and_remedy() {
    let fine = Readings::fine;
    let now = fine().now;
    let ago = |s: i64| now - TimeDelta::seconds(s);
    let files = |database_bytes, wal_bytes, free_bytes| Readings {
        files: Reading::Known(Files { database_bytes, wal_bytes, free_bytes }),
        ..fine()
    };
    let jobs = |change: fn(&mut Jobs)| {
        let mut jobs = Jobs::default();
        change(&mut jobs);
        Readings::with_jobs(jobs)
    };
    let memory = |used| Readings { memory: Reading::Known(Memory { used, limit: Some(100) }), ..fine() };
    let disk = |free| Readings { disk: Reading::Known(Disk { free, total: 100 }), ..fine() };
    let clock = |times: &[i64]| Readings {
        clock: Reading::Known(times.iter().map(|s| Jump { at: ago(*s), seconds: 3600 }).collect()),
        ..fine()
    };
    let model = |model| Readings { model: Reading::Known(model), ..fine() };
    let certificate = |days| Readings { certificate: Some(now + TimeDelta::days(days)), ..fine() };
    let backup = |max_age, last: Option<i64>| Readings { backup: Backup { max_age, last: last.map(ago) }, ..fine() };
    let broken = McpServer { name: "mail".into(), found: Reading::Known(Err("no such command".into())) };
    let day = Some(seconds(86_400));
    let gib = 1 << 30;
    for (readings, fingerprint, severity, remedy) in [
        (Readings { tasks_running: false, ..fine() }, "engine", Critical, None),
        (Readings { database: Reading::unknown("disk full"), ..fine() }, "database", Critical, None),
        (Readings { database: Reading::Known(seconds(2)), ..fine() }, "database", Warning, None),
        (files(3 * gib, 0, 0), "database_size", Warning, Some(Remedy::RunRetention)),
        (files(3 * gib, 0, gib), "database_size", Warning, Some(Remedy::Vacuum)),
        (files(5 * gib, 0, 0), "database_size", Critical, Some(Remedy::RunRetention)),
        (files(0, gib, 0), "wal", Warning, Some(Remedy::Checkpoint)),
        (
            Readings {
                integrity: Reading::Known(Integrity { at: now, fault: Some("page 7 is odd".into()) }),
                ..fine()
            },
            "integrity",
            Critical,
            None,
        ),
        (
            Readings { earliest_due: Reading::Known(Some(ago(61))), ..fine() },
            "scheduler",
            Warning,
            Some(Remedy::WakeScheduler),
        ),
        (
            Readings {
                paused: Reading::Known(vec![Paused { event_id: "e1".into(), reason: "failed 3 times".into() }]),
                ..fine()
            },
            "paused_schedules:e1",
            Warning,
            None,
        ),
        (Readings { workers_alive: 3, ..fine() }, "workers", Warning, None),
        (Readings { workers_alive: 0, ..fine() }, "workers", Critical, None),
        (jobs(|j| j.pending = 10_001), "backlog", Warning, None),
        (jobs(|j| j.oldest_ready = Some(seconds(901))), "backlog:age", Warning, Some(Remedy::WakeWorkers)),
        (
            jobs(|j| {
                j.oldest_ready = Some(seconds(901));
                j.running = 4;
            }),
            "backlog:age",
            Warning,
            None,
        ),
        (jobs(|j| j.stuck = vec!["a".into()]), "stuck_jobs", Warning, None),
        (jobs(|j| j.failed_last_hour = 11), "job_failures", Warning, None),
        (jobs(|j| j.failed_last_hour = 51), "job_failures", Critical, None),
        (jobs(|j| j.ended = Ended { succeeded: 9, failed: 11 }), "job_failures:ratio", Warning, None),
        (disk(9), "disk", Warning, None),
        (disk(2), "disk", Critical, Some(Remedy::RunRetention)),
        (memory(86), "memory", Warning, None),
        (memory(96), "memory", Critical, None),
        (clock(&[0]), "clock", Info, Some(Remedy::WakeScheduler)),
        (clock(&[60]), "clock", Info, None),
        (clock(&[90, 60, 30]), "clock", Warning, None),
        (model(Model::Asked { answered: 0, failed: 3 }), "model", Warning, None),
        (model(Model::Probed(Err("no route".into()))), "model", Warning, None),
        (Readings { mcp: Reading::Known(vec![broken]), ..fine() }, "mcp_servers:mail", Info, None),
        (certificate(20), "certificate", Warning, None),
        (certificate(2), "certificate", Critical, None),
        (certificate(-1), "certificate", Critical, None),
        (backup(day, None), "backup", Warning, None),
        (backup(day, Some(90_000)), "backup", Warning, None),
        (backup(day, Some(900_000)), "backup", Critical, None),
    ] {
        let expected = vec![(fingerprint.to_owned(), severity, remedy)];
        assert_eq!(found(&readings, &OpsConfig::default()), expected);
    }
}

#[test]
fn what_is_within_its_limits_is_fine() {
    let fine = Readings::fine;
    let now = fine().now;
    for readings in [
        Readings { earliest_due: Reading::Known(Some(now + TimeDelta::seconds(5))), ..fine() },
        Readings { earliest_due: Reading::Known(Some(now - TimeDelta::seconds(60))), ..fine() },
        Readings { memory: Reading::Known(Memory { used: u64::MAX, limit: None }), ..fine() },
        Readings { model: Reading::Known(Model::Asked { answered: 1, failed: 50 }), ..fine() },
        Readings { model: Reading::Known(Model::Asked { answered: 0, failed: 2 }), ..fine() },
        Readings { backup: Backup { max_age: None, last: Some(now - TimeDelta::days(900)) }, ..fine() },
        Readings { certificate: Some(now + TimeDelta::days(22)), ..fine() },
        Readings::with_jobs(Jobs { ended: Ended { succeeded: 0, failed: 19 }, ..Jobs::default() }),
    ] {
        assert_eq!(found(&readings, &OpsConfig::default()), []);
    }
}

#[test]
fn what_cannot_be_measured_is_unknown_and_no_finding() {
    let why = || Reading::unknown("cannot be read");
    let blind = Readings {
        files: Reading::unknown("x"),
        integrity: Reading::unknown("x"),
        earliest_due: Reading::unknown("x"),
        jobs: Reading::unknown("x"),
        disk: Reading::unknown("x"),
        memory: Reading::unknown("x"),
        clock: Reading::unknown("x"),
        model: Reading::unknown("x"),
        mcp: Reading::Known(vec![McpServer { name: "a".into(), found: why() }]),
        paused: Reading::unknown("x"),
        ..Readings::fine()
    };
    assert_eq!(found(&blind, &OpsConfig::default()), []);
    for check in CHECKS {
        let verdict = (check.judge)(&blind, &OpsConfig::default()).verdict;
        let known = ["engine", "database", "workers", "certificate"].contains(&check.name);
        assert_eq!(matches!(verdict, Verdict::Unknown(_)), !known, "{}: {verdict:?}", check.name);
    }
}

#[test]
fn many_of_one_kind_are_named_up_to_a_bound_and_then_counted() {
    let paused = (0..50).map(|n| Paused { event_id: format!("e{n}"), reason: "failed".into() }).collect();
    let readings = Readings { paused: Reading::Known(paused), ..Readings::fine() };
    let findings = found(&readings, &OpsConfig::default());
    assert_eq!(findings.len(), MOST_FINDINGS);
    assert_eq!(findings.last().unwrap().0, "paused_schedules:others");
}
