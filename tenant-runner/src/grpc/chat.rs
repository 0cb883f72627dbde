//! Conversations with agents. A turn goes on when the caller leaves; `Resume` replays what was missed.

use super::convert::{given, limit, time};
use super::{Service, guard, status, wire};
use crate::principal::stream_end;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use nexaas_engine::chat::{ChatSession, ChatStream};
use tonic::{Request, Response, Status};

type Events = BoxStream<'static, Result<wire::ChatEvent, Status>>;

#[tonic::async_trait]
impl wire::chat_server::Chat for Service {
    async fn send(&self, request: Request<wire::ChatRequest>) -> Result<Response<Events>, Status> {
        let end = stream_end(self.app.clone(), guard::credential(&request));
        let wire::ChatRequest { agent, message, session_id } = request.into_inner();
        let turn =
            self.app.engine().chat().send(&agent, &message, given(session_id).as_deref()).await.map_err(status::of)?;
        Ok(Response::new(events(turn, end)))
    }

    async fn resume(&self, request: Request<wire::ResumeChatRequest>) -> Result<Response<Events>, Status> {
        let end = stream_end(self.app.clone(), guard::credential(&request));
        let wire::ResumeChatRequest { session_id, after_seq } = request.into_inner();
        let turn = self.app.engine().chat().resume(&session_id, after_seq).await.map_err(status::of)?;
        Ok(Response::new(events(turn, end)))
    }

    async fn list_sessions(
        &self,
        request: Request<wire::ListSessionsRequest>,
    ) -> Result<Response<wire::ListSessionsResponse>, Status> {
        let wire::ListSessionsRequest { agent, limit: asked } = request.into_inner();
        let found = self.app.engine().chat().sessions(given(agent).as_deref(), limit(asked, 50, 500)).await;
        let sessions = found.map_err(status::of)?.into_iter().map(session).collect();
        Ok(Response::new(wire::ListSessionsResponse { sessions }))
    }

    async fn get_session(
        &self,
        request: Request<wire::GetSessionRequest>,
    ) -> Result<Response<wire::ChatSession>, Status> {
        let found = self.app.engine().chat().session(&request.get_ref().session_id).await.map_err(status::of)?;
        Ok(Response::new(session(found)))
    }
}

fn events(turn: ChatStream, end: impl Future<Output = ()> + Send + 'static) -> Events {
    turn.map(|e| {
        Ok(wire::ChatEvent {
            session_id: e.session_id,
            seq: e.seq,
            r#type: e.kind.as_str().to_owned(),
            content: e.content,
        })
    })
    .take_until(end)
    .boxed()
}

fn session(s: ChatSession) -> wire::ChatSession {
    let messages = s.messages.into_iter().map(|m| wire::ChatMessage {
        role: m.role,
        content: m.content,
        created_at: time(m.created_at),
    });
    wire::ChatSession {
        id: s.id,
        agent: s.agent,
        title: s.title,
        created_at: time(s.created_at),
        updated_at: time(s.updated_at),
        messages: messages.collect(),
        last_seq: s.last_seq,
    }
}
