//! Usage, health, alerts and repairs.

use super::convert::{given, json, limit, time};
use super::{Service, guard, status, wire};
use nexaas_engine::ops::Alert;
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
        }))
    }

    async fn list_alerts(
        &self,
        request: Request<wire::ListAlertsRequest>,
    ) -> Result<Response<wire::ListAlertsResponse>, Status> {
        let wire::ListAlertsRequest { limit: asked, severity } = request.into_inner();
        let found = self.app.engine().ops().alerts(limit(asked, 50, 500), given(severity).as_deref()).await;
        let alerts = found.map_err(status::of)?.into_iter().map(alert).collect();
        Ok(Response::new(wire::ListAlertsResponse { alerts }))
    }

    async fn acknowledge_alert(
        &self,
        request: Request<wire::AcknowledgeAlertRequest>,
    ) -> Result<Response<wire::Alert>, Status> {
        let found = self.app.engine().ops().acknowledge(&request.get_ref().id).await.map_err(status::of)?;
        Ok(Response::new(alert(found)))
    }

    async fn heal(&self, request: Request<wire::HealRequest>) -> Result<Response<wire::HealResponse>, Status> {
        if !guard::principal(&request)?.is_admin() {
            return Err(Status::permission_denied("This needs an admin"));
        }
        let done = self.app.engine().ops().heal(&request.get_ref().action).await.map_err(status::of)?;
        Ok(Response::new(wire::HealResponse { action: done.action, result: done.result }))
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
        severity: a.severity,
        category: a.category,
        message: a.message,
        auto_healed: a.auto_healed,
        acknowledged: a.acknowledged,
        details_json: json(&a.details),
        created_at: time(a.created_at),
    }
}
