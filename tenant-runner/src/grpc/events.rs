//! Schedules and triggers, and the stream of what happens.

use super::convert::{given, json, limit, maybe_time, parse_time, time};
use super::{Service, guard, status, wire};
use crate::principal::stream_end;
use futures::StreamExt as _;
use futures::future::ready;
use futures::stream::BoxStream;
use nexaas_engine::bus::{BusEvent, kind_matches};
use nexaas_engine::event::{Event, EventFilter, Upserted};
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::events_server::Events for Service {
    async fn list_events(
        &self,
        request: Request<wire::ListEventsRequest>,
    ) -> Result<Response<wire::ListEventsResponse>, Status> {
        let request = request.into_inner();
        let filter = EventFilter {
            status: given(request.status),
            kind: given(request.r#type),
            agent: given(request.agent),
            limit: Some(request.limit).filter(|limit| *limit > 0),
        };
        let events = self.app.engine().events().list(filter).await.map_err(status::of)?;
        Ok(Response::new(wire::ListEventsResponse { events: events.into_iter().map(event).collect() }))
    }

    async fn get_event(&self, request: Request<wire::GetEventRequest>) -> Result<Response<wire::Event>, Status> {
        let found = self.app.engine().events().get(&request.get_ref().id).await.map_err(status::of)?;
        Ok(Response::new(event(found)))
    }

    async fn upsert_event(
        &self,
        request: Request<wire::UpsertEventRequest>,
    ) -> Result<Response<wire::UpsertEventResponse>, Status> {
        let body = serde_json::from_str(&request.get_ref().event_json)
            .map_err(|e| status::invalid("event_json", &format!("must be JSON: {e}")))?;
        let (id, action) = self.app.engine().events().upsert(body).await.map_err(status::of)?;
        let action = match action {
            Upserted::Created => "created",
            Upserted::Updated => "updated",
        };
        Ok(Response::new(wire::UpsertEventResponse { id, action: action.to_owned() }))
    }

    async fn delete_event(
        &self,
        request: Request<wire::DeleteEventRequest>,
    ) -> Result<Response<wire::DeleteEventResponse>, Status> {
        self.app.engine().events().delete(&request.get_ref().id).await.map_err(status::of)?;
        Ok(Response::new(wire::DeleteEventResponse {}))
    }

    async fn pause_event(&self, request: Request<wire::PauseEventRequest>) -> Result<Response<wire::Event>, Status> {
        let paused = self.app.engine().events().pause(&request.get_ref().id).await.map_err(status::of)?;
        Ok(Response::new(event(paused)))
    }

    async fn resume_event(&self, request: Request<wire::ResumeEventRequest>) -> Result<Response<wire::Event>, Status> {
        let resumed = self.app.engine().events().resume(&request.get_ref().id).await.map_err(status::of)?;
        Ok(Response::new(event(resumed)))
    }

    async fn trigger_event(
        &self,
        request: Request<wire::TriggerEventRequest>,
    ) -> Result<Response<wire::TriggerEventResponse>, Status> {
        let job = self.app.engine().events().trigger(&request.get_ref().id).await.map_err(status::of)?;
        Ok(Response::new(wire::TriggerEventResponse { job_id: job.to_string() }))
    }

    async fn list_bus_events(
        &self,
        request: Request<wire::ListBusEventsRequest>,
    ) -> Result<Response<wire::ListBusEventsResponse>, Status> {
        let wire::ListBusEventsRequest { before_seq, limit: asked, kinds, since } = request.into_inner();
        let since = parse_time("since", &since)?;
        let (before, most) = (Some(before_seq).filter(|seq| *seq > 0), limit(asked, 100, 1000));
        let found = self.app.engine().bus().history(before, since, most, kinds).await.map_err(status::of)?;
        let full = found.len() == most as usize;
        let next_before_seq = found.last().filter(|_| full).map(|event| event.seq).unwrap_or_default();
        Ok(Response::new(wire::ListBusEventsResponse {
            events: found.into_iter().map(fact).collect(),
            next_before_seq,
        }))
    }

    async fn watch_bus(
        &self,
        request: Request<wire::WatchBusRequest>,
    ) -> Result<Response<BoxStream<'static, Result<wire::BusEvent, Status>>>, Status> {
        let kinds = request.get_ref().kinds.clone();
        let after = Some(request.get_ref().after_seq).filter(|seq| *seq > 0);
        let end = stream_end(self.app.clone(), guard::credential(&request));
        let stream = self
            .app
            .engine()
            .bus()
            .subscribe(after)
            .filter(move |event| ready(kind_matches(&event.kind, &kinds)))
            .map(|event| Ok(fact(event)))
            .take_until(end);
        Ok(Response::new(stream.boxed()))
    }
}

fn fact(event: BusEvent) -> wire::BusEvent {
    wire::BusEvent {
        seq: event.seq,
        r#type: event.kind,
        source: event.source,
        data_json: json(&event.data),
        created_at: time(event.created_at),
    }
}

fn event(e: Event) -> wire::Event {
    let metadata_json = e.shown_metadata().as_ref().map(json).unwrap_or_default();
    wire::Event {
        id: e.id,
        r#type: e.kind,
        condition_type: e.condition_type.as_str().to_owned(),
        condition_expr: e.condition_expr,
        next_eval_at: maybe_time(e.next_eval_at),
        action_type: e.action_type.as_str().to_owned(),
        action_config_json: json(&e.action_config),
        status: e.status.as_str().to_owned(),
        priority: e.priority,
        concurrency_key: e.concurrency_key.unwrap_or_default(),
        max_retries: e.max_retries,
        agent: e.agent.unwrap_or_default(),
        description: e.description.unwrap_or_default(),
        last_result: e.last_result.unwrap_or_default(),
        last_run_at: maybe_time(e.last_run_at),
        run_count: e.run_count,
        fail_count: e.fail_count,
        created_at: time(e.created_at),
        updated_at: time(e.updated_at),
        expires_at: maybe_time(e.expires_at),
        retry_backoff_minutes: e.retry_backoff_minutes,
        timezone: e.timezone.unwrap_or_default(),
        overlap: e.overlap.as_str().to_owned(),
        jitter_s: e.jitter_s,
        starts_at: maybe_time(e.starts_at),
        pause_after_failures: e.pause_after_failures.unwrap_or_default(),
        failures_in_row: e.failures_in_row,
        paused_reason: e.paused_reason.unwrap_or_default(),
        catch_up: e.catch_up.as_ref().map(json).unwrap_or_default(),
        job_json: e.job.as_ref().map(json).unwrap_or_default(),
        metadata_json,
    }
}
