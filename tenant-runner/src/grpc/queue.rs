//! The queue, its jobs and its keys.

use super::convert::{given, maybe_time, time};
use super::{Service, status, wire};
use crate::http::{output, queue as shared};
use nexaas_engine::queue::{Attempt, Job, JobFilter, JobId, KeyView, Step};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::queue_server::Queue for Service {
    async fn get_queue(&self, _: Request<wire::GetQueueRequest>) -> Result<Response<wire::QueueView>, Status> {
        let view = self.app.engine().queue().view().await.map_err(status::of)?;
        Ok(Response::new(wire::QueueView {
            queued: view.counts.queued,
            running: view.counts.running,
            completed: view.counts.completed,
            failed: view.counts.failed,
            recent: view.recent.into_iter().map(job).collect(),
        }))
    }

    async fn get_job(&self, request: Request<wire::GetJobRequest>) -> Result<Response<wire::Job>, Status> {
        let found = self.app.engine().queue().get(known(&request.get_ref().id)?).await.map_err(status::of)?;
        Ok(Response::new(job(found)))
    }

    async fn cancel_job(
        &self,
        request: Request<wire::CancelJobRequest>,
    ) -> Result<Response<wire::CancelJobResponse>, Status> {
        self.app.engine().queue().cancel(known(&request.get_ref().id)?).await.map_err(status::of)?;
        Ok(Response::new(wire::CancelJobResponse {}))
    }

    async fn enqueue_job(
        &self,
        request: Request<wire::EnqueueJobRequest>,
    ) -> Result<Response<wire::EnqueueJobResponse>, Status> {
        let wire::EnqueueJobRequest { job_json, idempotency_key } = request.into_inner();
        let spec =
            serde_json::from_str(&job_json).map_err(|e| status::invalid("job_json", &format!("must be JSON: {e}")))?;
        let done = self.app.engine().enqueue_from(spec, given(idempotency_key), self.app.clock()).await;
        let done = done.map_err(status::of)?;
        Ok(Response::new(wire::EnqueueJobResponse { id: done.id.to_string(), existed: done.existed }))
    }

    async fn list_jobs(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsResponse>, Status> {
        let wire::ListJobsRequest { state, event_id, agent, before, limit } = request.into_inner();
        let filter = JobFilter {
            state: given(state).map(|text| shared::state(&text)).transpose().map_err(status::of)?,
            event_id: given(event_id),
            agent: given(agent),
            before: given(before).map(|text| shared::before(&text)).transpose().map_err(status::of)?,
            limit: Some(limit).filter(|limit| *limit > 0),
        };
        let (jobs, next) = shared::page(&self.app, filter).await.map_err(status::of)?;
        Ok(Response::new(wire::ListJobsResponse {
            jobs: jobs.into_iter().map(job).collect(),
            next_before: next.map(|id| id.to_string()).unwrap_or_default(),
        }))
    }

    async fn retry_job(&self, request: Request<wire::RetryJobRequest>) -> Result<Response<wire::Job>, Status> {
        let (id, queue) = (known(&request.get_ref().id)?, self.app.engine().queue());
        queue.retry(id).await.map_err(status::of)?;
        Ok(Response::new(job(queue.get(id).await.map_err(status::of)?)))
    }

    async fn retry_dead_jobs(
        &self,
        request: Request<wire::RetryDeadJobsRequest>,
    ) -> Result<Response<wire::RetryDeadJobsResponse>, Status> {
        let most = match request.get_ref().limit {
            0 => shared::MOST_RETRIED,
            limit => u64::from(limit).min(shared::MOST_RETRIED),
        };
        let retried = self.app.engine().queue().retry_dead(most).await.map_err(status::of)?;
        Ok(Response::new(wire::RetryDeadJobsResponse { retried }))
    }

    async fn list_attempts(
        &self,
        request: Request<wire::ListAttemptsRequest>,
    ) -> Result<Response<wire::ListAttemptsResponse>, Status> {
        let found = self.app.engine().queue().attempts(known(&request.get_ref().job_id)?).await.map_err(status::of)?;
        Ok(Response::new(wire::ListAttemptsResponse { attempts: found.into_iter().map(attempt).collect() }))
    }

    async fn get_attempt_output(
        &self,
        request: Request<wire::GetAttemptOutputRequest>,
    ) -> Result<Response<wire::AttemptOutput>, Status> {
        let wire::GetAttemptOutputRequest { job_id, attempt, offset, limit } = request.into_inner();
        let limit = if limit == 0 { output::MOST } else { u64::from(limit) };
        let found = output::read(&self.app, known(&job_id)?, attempt, offset, limit).await.map_err(status::of)?;
        Ok(Response::new(wire::AttemptOutput { output: found.bytes, offset: found.offset, total_bytes: found.total }))
    }

    async fn list_steps(
        &self,
        request: Request<wire::ListStepsRequest>,
    ) -> Result<Response<wire::ListStepsResponse>, Status> {
        let (id, queue) = (known(&request.get_ref().job_id)?, self.app.engine().queue());
        queue.get(id).await.map_err(status::of)?;
        let found = queue.steps(id).await.map_err(status::of)?;
        Ok(Response::new(wire::ListStepsResponse { steps: found.into_iter().map(step).collect() }))
    }

    async fn list_keys(&self, _: Request<wire::ListKeysRequest>) -> Result<Response<wire::ListKeysResponse>, Status> {
        let keys = self.app.engine().queue().keys().into_iter().map(key).collect();
        Ok(Response::new(wire::ListKeysResponse { keys }))
    }

    async fn set_key(&self, request: Request<wire::SetKeyRequest>) -> Result<Response<wire::Key>, Status> {
        let wire::SetKeyRequest { key: name, limit, rate_count, rate_per_s } = request.into_inner();
        let limit = if limit == 0 { 1 } else { limit };
        let rate = match rate_count {
            0 => None,
            count => Some(shared::read_rate(count, rate_per_s).map_err(status::of)?),
        };
        self.app.engine().queue().set_key(&name, limit, rate).await.map_err(status::of)?;
        Ok(Response::new(key(shared::set(&self.app, name, limit, rate))))
    }
}

/// A text that is no job's id names no job.
fn known(id: &str) -> Result<JobId, Status> {
    id.parse().map_err(|_| Status::not_found("The job does not exist"))
}

fn job(j: Job) -> wire::Job {
    wire::Job {
        id: j.id.to_string(),
        event_id: j.event_id.unwrap_or_default(),
        action_type: j.action_type,
        description: j.description.unwrap_or_default(),
        agent: j.agent.unwrap_or_default(),
        state: j.state.as_str().to_owned(),
        attempt: j.attempt,
        max_attempts: j.max_attempts,
        result: j.result.unwrap_or_default(),
        error: j.error.unwrap_or_default(),
        created_at: time(j.created_at),
        started_at: maybe_time(j.started_at),
        finished_at: maybe_time(j.finished_at),
        priority: j.priority,
        run_at: time(j.run_at),
        concurrency_key: j.concurrency_key.unwrap_or_default(),
        timeout_ms: j.timeout_ms.unwrap_or_default(),
        slot: maybe_time(j.slot),
        depth: j.depth,
        blocked: j.blocked,
    }
}

fn attempt(a: Attempt) -> wire::Attempt {
    wire::Attempt {
        id: a.id.to_string(),
        number: a.number,
        outcome: a.outcome,
        detail: a.detail.unwrap_or_default(),
        started_at: time(a.started_at),
        finished_at: maybe_time(a.finished_at),
        duration_ms: a.duration_ms.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default(),
    }
}

fn step(s: Step) -> wire::Step {
    wire::Step { name: s.name, result_json: s.result, finished_at: time(s.finished_at), number: s.number }
}

fn key(k: KeyView) -> wire::Key {
    wire::Key {
        key: k.key,
        limit: k.concurrency_limit,
        rate_count: k.rate_limit.map(|rate| rate.count).unwrap_or_default(),
        rate_per_s: k.rate_limit.map(|rate| rate.period.as_secs_f64()).unwrap_or_default(),
        running: k.running.into(),
        waiting: k.blocked.into(),
    }
}
