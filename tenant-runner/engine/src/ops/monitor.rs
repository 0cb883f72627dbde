//! The look: measure, judge, keep the alerts, take remedies, tell others.
//!
//! How often: at most once per interval, and only while there is something to measure. After a look that finds nothing running
//! the monitor sleeps until something happens. Some trouble makes no noise, though: a disk that others fill, a certificate that
//! ends, a backup that does not come, a timer that died. For these it looks once per idle interval (a quarter of an hour),
//! without using the network; that is a thousandth of a wake-up a second, against hours in which nobody would know. Where an
//! alert is open, it also wakes when time alone changes something: an escalation, a silence that ends.

use super::alerts::{self, Alert, Reconciled};
use super::breaker::{self, Answer};
use super::check::{CHECKS, Judged};
use super::measure::{Reach, integrity};
use super::policy::{Finding, Severity, Verdict};
use super::reading::Readings;
use super::remedy::{MONITOR, Remedy};
use super::snapshots::{self, Figures};
use super::{CheckView, Ops, Status, checks, outbox};
use crate::error::Result;
use chrono::{DateTime, Utc};
use nexaas_common::task::{OnExit, Supervisor};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time alone changes something, but nobody needs to know to the second.
const SOONEST: Duration = Duration::from_secs(5);

pub(super) fn start(ops: Ops, supervisor: &Supervisor) {
    supervisor.spawn("ops-monitor", OnExit::Shutdown, |token| run(ops, token));
}

/// A log of this size is emptied when nothing happens: it takes up room, and a restart has to read it.
const LARGE_LOG: u64 = 1 << 20;

/// What a look found.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Another look is worth while even if nothing happens.
    pub busy: bool,
    pub open: Vec<Alert>,
    /// When time alone changes something.
    pub next: Option<DateTime<Utc>>,
    /// The database was not examined for a day.
    pub examine: bool,
    pub wal_bytes: u64,
}

async fn run(ops: Ops, token: CancellationToken) {
    let mut happened = ops.sources.bus.listen();
    let mut reach = Reach::Probe;
    loop {
        let started = Instant::now();
        let seen = tokio::select! {
            () = token.cancelled() => return,
            seen = ops.look(reach) => seen,
        };
        let seen = seen.unwrap_or_else(|error| {
            tracing::error!(error = error.chain(), "the ops monitor cannot keep what it found");
            Seen { busy: true, ..Seen::default() }
        });
        // What the look itself published is no reason for another one.
        happened.borrow_and_update();
        reach = Reach::Probe;
        if !seen.busy {
            if seen.wal_bytes > LARGE_LOG
                && let Err(error) = ops.checkpoint().await
            {
                tracing::warn!(error = error.chain(), "the database's log cannot be emptied");
            }
            if seen.examine && !ops.examine_while_idle(&token, &mut happened).await {
                return;
            }
            let idle = ops.idle_for(&seen);
            tokio::select! {
                () = token.cancelled() => return,
                Ok(()) = happened.changed() => {}
                // Looked at again, the network is left alone, unless there is trouble with it.
                () = tokio::time::sleep(idle) => reach = ops.idle_reach(&seen),
            }
        }
        tokio::select! {
            () = token.cancelled() => return,
            () = tokio::time::sleep_until(started + ops.config.interval) => {}
        }
    }
}

impl Ops {
    fn idle_for(&self, seen: &Seen) -> Duration {
        let now = self.sources.clock.now();
        let due = seen.next.map_or(Duration::MAX, |at| (at - now).to_std().unwrap_or_default());
        due.max(SOONEST).min(self.config.idle_interval)
    }

    fn idle_reach(&self, seen: &Seen) -> Reach {
        let about_network = |alert: &Alert| matches!(alert.category.as_str(), "model" | "mcp_servers");
        if seen.open.iter().any(about_network) { Reach::Probe } else { Reach::Known }
    }

    /// Examines the whole database until something happens. False: the engine stops.
    async fn examine_while_idle(
        &self,
        token: &CancellationToken,
        happened: &mut tokio::sync::watch::Receiver<u64>,
    ) -> bool {
        let stop = token.child_token();
        let now = self.sources.clock.now();
        let examining = integrity::examine(&self.sources.store, now, &stop);
        tokio::pin!(examining);
        let examined = tokio::select! {
            examined = &mut examining => examined,
            // It is given up, and its reader is waited for.
            _ = happened.changed() => {
                stop.cancel();
                happened.mark_changed();
                examining.await
            }
        };
        match examined {
            Ok(Some(found)) => {
                let fault = found.fault.as_deref();
                tracing::info!(fault, "the database was examined");
                if fault.is_some() {
                    // The next look tells of it.
                    happened.mark_changed();
                }
            }
            Ok(None) => tracing::debug!("the examination of the database was given up: something happened"),
            Err(error) => tracing::error!(error = error.chain(), "the database cannot be examined"),
        }
        !token.is_cancelled()
    }

    /// One look, with what follows from it.
    pub(super) async fn look(&self, reach: Reach) -> Result<Seen> {
        let _one = self.looking.lock().await;
        let (seen, wanted) = self.look_once(reach, true).await?;
        if wanted.is_empty() {
            return Ok(seen);
        }
        for (remedy, fingerprints) in wanted {
            if self.take(remedy, MONITOR, fingerprints.first().map(String::as_str)).await.is_ok() {
                self.sources
                    .store
                    .write(move |tx| fingerprints.iter().try_for_each(|f| alerts::remedied(tx, f, remedy.as_str())))
                    .await?;
            }
        }
        // Whether it helped shows at once, or in the next look.
        Ok(self.look_once(Reach::Known, false).await?.0)
    }

    async fn look_once(&self, reach: Reach, heal: bool) -> Result<(Seen, BTreeMap<Remedy, Vec<String>>)> {
        let now = self.sources.clock.now();
        let readings = self.measure(now, reach).await;
        let judged: Vec<Judged> = CHECKS.iter().map(|check| (check.judge)(&readings, &self.config)).collect();
        let mut findings: Vec<Finding> =
            judged.iter().flat_map(|judged| judged.verdict.findings().iter().cloned()).collect();
        let unknown: BTreeSet<&'static str> = CHECKS
            .iter()
            .zip(&judged)
            .filter(|(_, judged)| matches!(judged.verdict, Verdict::Unknown(_)))
            .map(|(check, _)| check.name)
            .collect();

        let mut breakers = self.breakers().await?;
        let wanted = decide(&mut findings, &mut breakers, heal && self.config.heal, now);

        let stored = self.keep(&readings, &judged, findings, unknown, breakers.clone(), now).await;
        let done = match stored {
            Ok(done) => done,
            Err(error) => {
                self.tell_that_nothing_can_be_stored(&error, now).await;
                return Err(error);
            }
        };
        *self.remembered.lock().await = Some(breakers);
        self.gauges(&readings, &done.open);
        let running = readings.jobs.known().is_none_or(|jobs| jobs.running > 0);
        let examine = integrity::is_due(readings.integrity.known(), now);
        let wal_bytes = readings.files.known().map_or(0, |files| files.wal_bytes);
        Ok((Seen { busy: running, open: done.open, next: done.next, examine, wal_bytes }, wanted))
    }

    /// The breakers as they were stored, or as this process left them.
    async fn breakers(&self) -> Result<BTreeMap<String, breaker::Breaker>> {
        let mut remembered = self.remembered.lock().await;
        if let Some(known) = &*remembered {
            return Ok(known.clone());
        }
        let loaded = self.sources.store.read(breaker::load).await.unwrap_or_else(|error| {
            tracing::error!(error = error.chain(), "the breakers cannot be read; they count as closed");
            BTreeMap::new()
        });
        *remembered = Some(loaded.clone());
        Ok(loaded)
    }

    /// Everything that a look changes, in one transaction.
    async fn keep(
        &self,
        readings: &Readings,
        judged: &[Judged],
        findings: Vec<Finding>,
        unknown: BTreeSet<&'static str>,
        breakers: BTreeMap<String, breaker::Breaker>,
        now: DateTime<Utc>,
    ) -> Result<Reconciled> {
        let statuses: Vec<(&'static str, Status)> =
            CHECKS.iter().zip(judged).map(|(check, judged)| (check.name, Status::of(&judged.verdict))).collect();
        let (bus, config, tenant) = (self.sources.bus.clone(), self.config.clone(), self.sources.tenant.clone());
        let (filled, readings, outage) = (self.filled.clone(), readings.clone(), self.outage());
        let done = self
            .sources
            .store
            .write(move |tx| {
                if let Some(outage) = &outage {
                    alerts::record_outage(tx, &bus, outage)?;
                }
                let mut done = alerts::reconcile(tx, &bus, &findings, &unknown, now)?;
                if outbox::fill(tx, &config, &tenant, &mut done, now)? {
                    filled.raise();
                }
                checks::save(tx, &statuses, now)?;
                breakers.iter().try_for_each(|(remedy, breaker)| breaker::save(tx, remedy, breaker))?;
                snapshots::add(tx, now, &Figures::of(&readings, &done.open))?;
                Ok(done)
            })
            .await?;
        self.outage_is_over();
        Ok(done)
    }

    fn gauges(&self, readings: &Readings, open: &[Alert]) {
        if let Some(files) = readings.files.known() {
            metrics::gauge!("nexaas_database_bytes").set(files.database_bytes as f64);
            metrics::gauge!("nexaas_database_free_bytes").set(files.free_bytes as f64);
            metrics::gauge!("nexaas_wal_bytes").set(files.wal_bytes as f64);
        }
        if let Some(disk) = readings.disk.known() {
            metrics::gauge!("nexaas_disk_free_bytes").set(disk.free as f64);
        }
        if let Some(memory) = readings.memory.known() {
            metrics::gauge!("nexaas_memory_bytes").set(memory.used as f64);
        }
        for severity in Severity::ALL {
            let count = open.iter().filter(|alert| alert.severity == severity).count();
            metrics::gauge!("nexaas_alerts_open", "severity" => severity.as_str()).set(count as f64);
        }
    }

    /// The checks as they are now. Nothing is stored, and the network is not used.
    pub(super) async fn view_checks(&self) -> Result<Vec<CheckView>> {
        let now = self.sources.clock.now();
        let readings = self.measure(now, Reach::Known).await;
        let known = self.sources.store.read(checks::load).await.unwrap_or_default();
        Ok(CHECKS
            .iter()
            .map(|check| checks::view(check, &(check.judge)(&readings, &self.config), &known, now))
            .collect())
    }
}

/// Which remedies to take, each with the fingerprints it is for. A finding whose remedy did not help becomes critical.
fn decide(
    findings: &mut [Finding],
    breakers: &mut BTreeMap<String, breaker::Breaker>,
    heal: bool,
    now: DateTime<Utc>,
) -> BTreeMap<Remedy, Vec<String>> {
    let mut answers: BTreeMap<Remedy, Answer> = BTreeMap::new();
    let mut wanted: BTreeMap<Remedy, Vec<String>> = BTreeMap::new();
    for finding in findings.iter_mut() {
        let Some(remedy) = finding.remedy.filter(|remedy| remedy.may_run_by_itself()) else { continue };
        let breaker = breakers.entry(remedy.as_str().to_owned()).or_default();
        // A second look in a row only sees whether it helped.
        if !heal {
            if breaker.is_open() {
                gave_up(finding, remedy, None);
            }
            continue;
        }
        match *answers.entry(remedy).or_insert_with(|| breaker.ask(now)) {
            Answer::Run => wanted.entry(remedy).or_default().push(finding.fingerprint.clone()),
            Answer::Open { until } => gave_up(finding, remedy, Some(until)),
        }
    }
    if heal {
        for (name, breaker) in breakers.iter_mut() {
            if !answers.keys().any(|remedy| remedy.as_str() == name) {
                breaker.calm(now);
            }
        }
    }
    wanted
}

fn gave_up(finding: &mut Finding, remedy: Remedy, until: Option<DateTime<Utc>>) {
    finding.severity = Severity::Critical;
    let (most, minutes) = (breaker::MOST, breaker::WINDOW.num_minutes());
    finding
        .message
        .push_str(&format!(". {} ran {most} times within {minutes} minutes and did not help", remedy.as_str()));
    if let Some(until) = until {
        finding.message.push_str(&format!("; it is not tried again before {}", until.format("%H:%M UTC")));
    }
}
