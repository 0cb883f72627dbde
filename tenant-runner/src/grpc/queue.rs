//! The queue and its jobs.

use super::convert::{maybe_time, time};
use super::{Service, status, wire};
use nexaas_engine::queue::{Job, JobId};
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
        ..Default::default()
    }
}
