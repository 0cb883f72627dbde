//! Usage, health, alerts and repairs.

use super::convert::{given, json, limit, maybe_time, parse_time, time};
use super::{Service, guard, status, wire};
use nexaas_engine::ops::{Alert, AlertFilter, CheckView, Severity, Silence, SilenceSpec, Snapshot, Taken};
use nexaas_engine::usage::{UsageBucket, UsageFilter};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::ops_server::Ops for Service {
    async fn get_usage(&self, request: Request<wire::GetUsageRequest>) -> Result<Response<wire::UsageReport>, Status> {
        let wire::GetUsageRequest { agent, source, since, until } = request.into_inner();
        let filter = UsageFilter {
            agent: given(agent),
            source: given(source),
            since: given(since),
            until: given(until),
            ..UsageFilter::default()
        };
        let report = self.app.engine().usage().report(filter).await.map_err(status::of)?;
        let buckets = |list: &[UsageBucket]| list.iter().map(bucket).collect();
        Ok(Response::new(wire::UsageReport {
            total_calls: report.total_calls,
            total_input_tokens: report.total_input_tokens,
            total_output_tokens: report.total_output_tokens,
            total_cache_read_tokens: report.total_cache_read_tokens,
            total_cache_creation_tokens: report.total_cache_creation_tokens,
            total_cost_usd: report.total_cost_usd,
            by_model: buckets(&report.by_model),
            by_agent: buckets(&report.by_agent),
            by_source: buckets(&report.by_source),
            daily: buckets(&report.daily),
        }))
    }

    async fn get_health(&self, _: Request<wire::GetHealthRequest>) -> Result<Response<wire::OpsHealth>, Status> {
        let h = self.app.engine().ops().health().await;
        Ok(Response::new(wire::OpsHealth {
            engine_running: h.engine_running,
            worker_count: h.worker_count,
            workers_alive: h.workers_alive,
            pending_jobs: h.pending_jobs,
            failed_jobs_last_hour: h.failed_jobs_last_hour,
            stale_locks: h.stale_locks,
            db_ok: h.db_ok,
            snapshot_at: time(h.snapshot_at),
            running_jobs: h.running_jobs,
            oldest_ready_s: h.oldest_ready_s,
            database_bytes: h.database_bytes,
            wal_bytes: h.wal_bytes,
            disk_free_bytes: h.disk_free_bytes,
            memory_bytes: h.memory_bytes,
            open_alerts_info: h.open_alerts.info,
            open_alerts_warning: h.open_alerts.warning,
            open_alerts_critical: h.open_alerts.critical,
        }))
    }

    async fn list_alerts(
        &self,
        request: Request<wire::ListAlertsRequest>,
    ) -> Result<Response<wire::ListAlertsResponse>, Status> {
        let wire::ListAlertsRequest { limit: asked, severity, category, open } = request.into_inner();
        let filter = AlertFilter {
            severity: given(severity).map(|text| text.parse::<Severity>()).transpose().map_err(status::of)?,
            category: given(category),
            open,
            limit: Some(limit(asked, 50, 500)),
        };
        let found = self.app.engine().ops().alerts(filter).await;
        let alerts = found.map_err(status::of)?.into_iter().map(alert).collect();
        Ok(Response::new(wire::ListAlertsResponse { alerts }))
    }

    async fn acknowledge_alert(
        &self,
        request: Request<wire::AcknowledgeAlertRequest>,
    ) -> Result<Response<wire::Alert>, Status> {
        let who = guard::principal(&request)?.name();
        let found = self.app.engine().ops().acknowledge(&request.get_ref().id, &who).await.map_err(status::of)?;
        Ok(Response::new(alert(found)))
    }

    async fn heal(&self, request: Request<wire::HealRequest>) -> Result<Response<wire::HealResponse>, Status> {
        let who = admin(&request)?;
        let done = self.app.engine().ops().heal(&request.get_ref().action, &who).await.map_err(status::of)?;
        Ok(Response::new(wire::HealResponse { action: done.action, result: done.result }))
    }

    async fn silence_alert(
        &self,
        request: Request<wire::SilenceAlertRequest>,
    ) -> Result<Response<wire::Silence>, Status> {
        let who = admin(&request)?;
        let wire::SilenceAlertRequest { id, for_s, until, reason } = request.into_inner();
        let spec = spec(for_s, &until, reason)?;
        let made = self.app.engine().ops().silence_alert(&id, spec, &who).await.map_err(status::of)?;
        Ok(Response::new(silence(made)))
    }

    async fn unsilence_alert(
        &self,
        request: Request<wire::UnsilenceAlertRequest>,
    ) -> Result<Response<wire::UnsilenceAlertResponse>, Status> {
        let who = admin(&request)?;
        let ended = self.app.engine().ops().unsilence_alert(&request.get_ref().id, &who).await.map_err(status::of)?;
        Ok(Response::new(wire::UnsilenceAlertResponse { ended }))
    }

    async fn create_silence(
        &self,
        request: Request<wire::CreateSilenceRequest>,
    ) -> Result<Response<wire::Silence>, Status> {
        let who = admin(&request)?;
        let wire::CreateSilenceRequest { category, fingerprint, for_s, until, reason } = request.into_inner();
        let subject = spec(for_s, &until, reason)?;
        let spec = SilenceSpec { category: given(category), fingerprint: given(fingerprint), ..subject };
        let made = self.app.engine().ops().silence(spec, &who).await.map_err(status::of)?;
        Ok(Response::new(silence(made)))
    }

    async fn end_silence(&self, request: Request<wire::EndSilenceRequest>) -> Result<Response<wire::Silence>, Status> {
        let who = admin(&request)?;
        let ended = self.app.engine().ops().end_silence(&request.get_ref().id, &who).await.map_err(status::of)?;
        Ok(Response::new(silence(ended)))
    }

    async fn list_silences(
        &self,
        request: Request<wire::ListSilencesRequest>,
    ) -> Result<Response<wire::ListSilencesResponse>, Status> {
        let found = self.app.engine().ops().silences(limit(request.get_ref().limit, 100, 1000)).await;
        let silences = found.map_err(status::of)?.into_iter().map(silence).collect();
        Ok(Response::new(wire::ListSilencesResponse { silences }))
    }

    async fn list_checks(
        &self,
        _: Request<wire::ListChecksRequest>,
    ) -> Result<Response<wire::ListChecksResponse>, Status> {
        let checks = self.app.engine().ops().checks().await.map_err(status::of)?.into_iter().map(check).collect();
        Ok(Response::new(wire::ListChecksResponse { checks }))
    }

    async fn list_snapshots(
        &self,
        request: Request<wire::ListSnapshotsRequest>,
    ) -> Result<Response<wire::ListSnapshotsResponse>, Status> {
        let wire::ListSnapshotsRequest { since, limit: asked } = request.into_inner();
        let since = parse_time("since", &since)?;
        let found = self.app.engine().ops().snapshots(since, limit(asked, 500, 5000)).await;
        let snapshots = found.map_err(status::of)?.into_iter().map(snapshot).collect();
        Ok(Response::new(wire::ListSnapshotsResponse { snapshots }))
    }

    async fn list_remedies(
        &self,
        request: Request<wire::ListRemediesRequest>,
    ) -> Result<Response<wire::ListRemediesResponse>, Status> {
        let found = self.app.engine().ops().remedies(limit(request.get_ref().limit, 50, 1000)).await;
        let remedies = found.map_err(status::of)?.into_iter().map(taken).collect();
        Ok(Response::new(wire::ListRemediesResponse { remedies }))
    }
}

/// Who calls, if they may.
fn admin<T>(request: &Request<T>) -> Result<String, Status> {
    let principal = guard::principal(request)?;
    if principal.is_admin() { Ok(principal.name()) } else { Err(Status::permission_denied("This needs an admin")) }
}

fn spec(for_s: u64, until: &str, reason: String) -> Result<SilenceSpec, Status> {
    Ok(SilenceSpec {
        for_s: (for_s > 0).then_some(for_s),
        until: parse_time("until", until)?,
        reason: given(reason),
        ..SilenceSpec::default()
    })
}

fn silence(s: Silence) -> wire::Silence {
    wire::Silence {
        id: s.id,
        kind: s.kind,
        value: s.value,
        until: time(s.until),
        reason: s.reason,
        created_by: s.created_by,
        created_at: time(s.created_at),
        ended_by: s.ended_by.unwrap_or_default(),
        ended_at: maybe_time(s.ended_at),
        active: s.active,
    }
}

fn check(c: CheckView) -> wire::Check {
    wire::Check {
        name: c.name.to_owned(),
        about: c.about.to_owned(),
        status: c.status.as_str().to_owned(),
        reading_json: json(&c.reading),
        messages: c.messages,
        since: maybe_time(c.since),
    }
}

fn snapshot(s: Snapshot) -> wire::Snapshot {
    wire::Snapshot { at: time(s.at), figures_json: json(&s.figures) }
}

fn taken(t: Taken) -> wire::TakenRemedy {
    wire::TakenRemedy {
        seq: t.seq,
        remedy: t.remedy,
        taken_by: t.taken_by,
        fingerprint: t.fingerprint.unwrap_or_default(),
        outcome: t.outcome,
        result: t.result,
        started_at: time(t.started_at),
        finished_at: time(t.finished_at),
    }
}

fn bucket(b: &UsageBucket) -> wire::UsageBucket {
    wire::UsageBucket {
        key: b.key.clone(),
        calls: b.calls,
        input_tokens: b.input_tokens,
        output_tokens: b.output_tokens,
        cost_usd: b.cost_usd,
    }
}

fn alert(a: Alert) -> wire::Alert {
    wire::Alert {
        id: a.id,
        severity: a.severity.as_str().to_owned(),
        category: a.category,
        message: a.message,
        auto_healed: a.auto_healed,
        acknowledged: a.acknowledged,
        details_json: json(&a.details),
        created_at: time(a.created_at),
        resolved_at: maybe_time(a.resolved_at),
        fingerprint: a.fingerprint,
        acknowledged_by: a.acknowledged_by.unwrap_or_default(),
        acknowledged_at: maybe_time(a.acknowledged_at),
        seen_at: time(a.seen_at),
        gone_since: maybe_time(a.gone_since),
        flaps: a.flaps,
        remedy: a.remedy.unwrap_or_default(),
        silenced_until: maybe_time(a.silenced_until),
    }
}
