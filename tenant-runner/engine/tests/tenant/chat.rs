use crate::model::{answer, sse, world};
use crate::support::{PATIENCE, WRITER, World, collect, keep, text};
use futures::StreamExt as _;
use nexaas_common::task::{OnExit, Supervisor};
use nexaas_engine::Kind;
use nexaas_engine::chat::ChatEventKind;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use wiremock::matchers::method;
use wiremock::{Mock, MockServer};

#[tokio::test]
async fn later_turns_send_what_was_said_before() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(answer(&["Answer."])).mount(&server).await;
    let world = world(&server, WRITER).await;
    let chat = world.engine.chat();
    let first = collect(chat.send("writer", "First question", None).await.unwrap()).await;
    let id = first[0].session_id.clone();
    let second = collect(chat.send("", "Second question", Some(&id)).await.unwrap()).await;
    assert!(second.iter().all(|e| e.session_id == id));
    assert!(second[0].seq > first.last().unwrap().seq);
    let requests = server.received_requests().await.unwrap();
    let body = requests[1].body_json::<Value>().unwrap();
    let said: Vec<(&str, &str)> = body["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| (m["role"].as_str().unwrap(), m["content"].as_str().unwrap()))
        .collect();
    assert_eq!(said, [("user", "First question"), ("assistant", "Answer."), ("user", "Second question")]);
    let session = chat.session(&id).await.unwrap();
    assert_eq!((session.messages.len(), session.title.as_str(), session.running), (4, "First question", false));
    assert_eq!(chat.sessions(Some("writer"), 10).await.unwrap().len(), 1);
    assert!(chat.sessions(Some("nobody"), 10).await.unwrap().is_empty());
    world.stop().await;
}

#[tokio::test]
async fn a_session_can_be_replayed_from_any_point() {
    let world = World::new(WRITER).await;
    let chat = world.engine.chat();
    let seen = collect(chat.send("writer", "Hello", None).await.unwrap()).await;
    let id = &seen[0].session_id;
    assert_eq!(collect(chat.resume(id, 0).await.unwrap()).await, seen);
    let rest = collect(chat.resume(id, seen[0].seq).await.unwrap()).await;
    assert_eq!(rest, seen[1..]);
    assert!(collect(chat.resume(id, u64::MAX).await.unwrap()).await.is_empty());
    assert_eq!(chat.resume("ghost", 0).await.err().map(|e| e.kind), Some(Kind::NotFound));
    world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_by_its_field() {
    let world = World::new(WRITER).await;
    let chat = world.engine.chat();
    let error = |r: nexaas_engine::error::Result<_>| -> nexaas_engine::EngineError { r.err().unwrap() };
    assert_eq!(error(chat.send("writer", "  ", None).await).field(), Some("message"));
    assert_eq!(error(chat.send("writer", &"x".repeat(300 * 1024), None).await).field(), Some("message"));
    assert_eq!(error(chat.send("", "Hello", None).await).field(), Some("agent"));
    assert_eq!(error(chat.send("ghost", "Hello", None).await).kind, Kind::NotFound);
    assert_eq!(error(chat.send("writer", "Hello", Some("ghost")).await).kind, Kind::NotFound);
    assert!(chat.sessions(None, 0).await.unwrap().is_empty());
    world.stop().await;
}

/// A model that sends the first half of an answer, and the rest when it is told to.
struct SlowModel {
    url: url::Url,
    go_on: Arc<Notify>,
    supervisor: Supervisor,
}

async fn slow_model() -> SlowModel {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let go_on = Arc::new(Notify::new());
    let told = go_on.clone();
    let event = |e: Value| format!("event: {}\ndata: {e}\n\n", e["type"].as_str().unwrap());
    let delta = move |t: &str| event(json!({"type":"content_block_delta","delta":{"type":"text_delta","text":t}}));
    let first = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n{}{}",
        event(json!({"type":"message_start","message":{"model":"m","usage":{"input_tokens":5}}})),
        delta("First half, "),
    );
    let rest = format!("{}{}", delta("second half."), event(json!({"type":"message_stop"})));
    let supervisor = Supervisor::new();
    supervisor.spawn("slow-model", OnExit::Expected, |_| async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let _ = socket.read(&mut buffer).await.unwrap();
        socket.write_all(first.as_bytes()).await.unwrap();
        told.notified().await;
        // The reader may be gone in the meantime.
        let _ = socket.write_all(rest.as_bytes()).await;
        let _ = socket.shutdown().await;
    });
    SlowModel { url, go_on, supervisor }
}

#[tokio::test]
async fn a_turn_goes_on_when_its_watcher_leaves_and_another_may_join() {
    let model = slow_model().await;
    let url = model.url.clone();
    let world = World::with(WRITER, |c| c.anthropic_base_url = url).await;
    world.with_key();
    let chat = world.engine.chat();
    let mut watching = chat.send("writer", "Hello", None).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, watching.next()).await.unwrap().unwrap();
    assert_eq!(first.content, "First half, ");
    drop(watching);
    let id = first.session_id;
    assert!(chat.session(&id).await.unwrap().running);
    assert_eq!(chat.send("", "And?", Some(&id)).await.err().map(|e| e.kind), Some(Kind::Conflict));
    let joined = chat.resume(&id, 0).await.unwrap();
    model.go_on.notify_one();
    let events = collect(joined).await;
    assert_eq!(text(&events), "First half, second half.");
    assert_eq!(events.last().unwrap().kind, ChatEventKind::Done);
    assert_eq!(chat.session(&id).await.unwrap().messages.last().unwrap().content, "First half, second half.");
    model.supervisor.shutdown(PATIENCE).await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_turn_that_a_stop_cuts_short_says_so_and_the_session_can_go_on() {
    let model = slow_model().await;
    let url = model.url.clone();
    let world = World::with(WRITER, |c| c.anthropic_base_url = url).await;
    world.with_key();
    let mut watching = world.engine.chat().send("writer", "Hello", None).await.unwrap();
    let first = tokio::time::timeout(PATIENCE, watching.next()).await.unwrap().unwrap();
    drop(watching);
    let world = world.restarted(|_| {}).await;
    let chat = world.engine.chat();
    let events = collect(chat.resume(&first.session_id, 0).await.unwrap()).await;
    assert_eq!(events.last().unwrap().kind, ChatEventKind::Error);
    let session = chat.session(&first.session_id).await.unwrap();
    assert!(!session.running);
    assert_eq!(session.messages.last().unwrap().content, "First half, ");
    collect(chat.send("", "Go on", Some(&first.session_id)).await.unwrap()).await;
    model.go_on.notify_one();
    world.stop().await;
}

#[tokio::test]
async fn unknown_events_of_the_model_are_skipped() {
    let server = MockServer::start().await;
    let events = [
        json!({"type":"message_start","message":{"usage":{"input_tokens":1}}}),
        json!({"type":"something_new","x":1}),
        json!({"type":"content_block_delta","delta":{"type":"text_delta","text":"Fine."}}),
        json!({"type":"message_stop"}),
    ];
    Mock::given(method("POST")).respond_with(sse(&events)).mount(&server).await;
    let world = world(&server, WRITER).await;
    assert_eq!(text(&collect(world.engine.chat().send("writer", "Hi", None).await.unwrap()).await), "Fine.");
    world.stop().await;
}

#[tokio::test]
async fn a_turn_that_a_crash_cut_short_ends_at_the_next_start_with_what_was_shown() {
    let world = World::new(WRITER).await;
    let seen = collect(world.engine.chat().send("writer", "Hello", None).await.unwrap()).await;
    let id = seen[0].session_id.clone();
    let last = seen.last().unwrap().seq;
    // What a process leaves behind that dies in the middle of its second turn.
    let session = id.clone();
    world
        .engine
        .store()
        .write(move |tx| {
            tx.execute("UPDATE chat_sessions SET turn_boot = 'another', last_seq = last_seq + 2 WHERE id = ?1", [&session])?;
            for (n, text) in [(1, "One, "), (2, "two")] {
                tx.execute(
                    "INSERT INTO chat_events (session_id, seq, type, content, created_at) VALUES (?1, ?2, 'chunk', ?3, 0)",
                    rusqlite::params![session, last + n, text],
                )?;
            }
            Ok(())
        })
        .await
        .unwrap();
    let world = world.restarted(|_| {}).await;
    let chat = world.engine.chat();
    let after = collect(chat.resume(&id, last).await.unwrap()).await;
    assert_eq!(text(&after), "One, two");
    assert!(after.last().unwrap().content.contains("restarted"), "{after:?}");
    let session = chat.session(&id).await.unwrap();
    assert!(!session.running);
    assert_eq!(session.messages.last().unwrap().content, "One, two");
    world.stop().await;
}

#[tokio::test]
async fn old_sessions_and_the_pieces_of_old_answers_pass_away() {
    let world = World::new(WRITER).await;
    let chat = world.engine.chat();
    let old = collect(chat.send("writer", "Hello", None).await.unwrap()).await[0].session_id.clone();
    world.clock.advance(chrono::Duration::days(8));
    let new = collect(chat.send("writer", "Hello again", None).await.unwrap()).await[0].session_id.clone();
    keep(&world, nexaas_engine::chat::KEEP).await;
    assert!(collect(chat.resume(&old, 0).await.unwrap()).await.is_empty());
    assert_eq!(chat.session(&old).await.unwrap().messages.len(), 2);
    assert!(!collect(chat.resume(&new, 0).await.unwrap()).await.is_empty());
    world.clock.advance(chrono::Duration::days(175));
    keep(&world, nexaas_engine::chat::KEEP).await;
    assert_eq!(chat.session(&old).await.unwrap_err().kind, Kind::NotFound);
    assert_eq!(chat.session(&new).await.unwrap().messages.len(), 2);
    world.stop().await;
}
