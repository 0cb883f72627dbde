//! Chat over the WebSocket: who may connect, and a turn from question to answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use std::path::Path;
use support::{API_KEY, Alone};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn with_agent(data: &Path) {
    let agent = data.join("workspace/agents/greeter");
    std::fs::create_dir_all(&agent).unwrap();
    std::fs::write(agent.join("config.yaml"), "name: greeter\nrole: Greets\ndescription: Says hello\n").unwrap();
    std::fs::write(agent.join("prompt.md"), "You greet people.\n").unwrap();
}

async fn connect(alone: &Alone, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let mut request = format!("ws://{}/api/chat", alone.runner.address()).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
}

fn bearer() -> String {
    format!("Bearer {API_KEY}")
}

async fn next(socket: &mut Socket) -> Value {
    loop {
        let message = tokio::time::timeout(std::time::Duration::from_secs(30), socket.next()).await.expect("silence");
        match message.expect("closed").unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// All events of a turn, the last being `done`.
async fn turn(socket: &mut Socket) -> Vec<Value> {
    let mut events = Vec::new();
    loop {
        let event = next(socket).await;
        assert_ne!(event["type"], "error", "{event}");
        let done = event["type"] == "done";
        events.push(event);
        if done {
            return events;
        }
    }
}

fn refused(outcome: Result<Socket, Error>) -> u16 {
    match outcome {
        Err(Error::Http(response)) => response.status().as_u16(),
        other => panic!("{:?}", other.map(|_| "connected")),
    }
}

#[tokio::test]
async fn a_socket_without_credentials_or_from_another_site_is_refused() {
    let alone = Alone::start().await;
    let own = format!("http://{}", alone.runner.address());
    assert_eq!(refused(connect(&alone, &[]).await), 401);
    assert_eq!(refused(connect(&alone, &[("authorization", "Bearer wrong")]).await), 401);
    assert_eq!(
        refused(connect(&alone, &[("sec-websocket-protocol", "nexaas.chat.v1, nexaas.bearer.wrong")]).await),
        401
    );
    for origin in ["http://evil.example", "null", &format!("{own}.evil.example")] {
        let outcome = connect(&alone, &[("authorization", &bearer()), ("origin", origin)]).await;
        assert_eq!(refused(outcome), 403, "{origin}");
    }
    let rebound = connect(&alone, &[("authorization", &bearer()), ("host", "evil.example")]).await;
    assert_eq!(refused(rebound), 403);
    assert!(connect(&alone, &[("authorization", &bearer()), ("origin", &own)]).await.is_ok());
    let protocol = format!("nexaas.chat.v1, nexaas.bearer.{API_KEY}");
    assert!(connect(&alone, &[("sec-websocket-protocol", &protocol)]).await.is_ok(), "a browser's way");
    alone.stop().await;
}

#[tokio::test]
async fn an_answer_streams_and_can_be_read_again() {
    let alone = Alone::start_with(&[], with_agent).await;
    let mut socket = connect(&alone, &[("authorization", &bearer())]).await.unwrap();
    socket.send(Message::text(json!({"agent": "greeter", "message": "Good morning"}).to_string())).await.unwrap();
    let events = turn(&mut socket).await;
    let session = events[0]["session_id"].as_str().unwrap().to_owned();
    assert!(events.len() > 1, "{events:?}");
    assert!(events.iter().all(|e| e["session_id"] == session.as_str()));
    assert!(events.windows(2).all(|w| w[0]["seq"].as_u64() < w[1]["seq"].as_u64()), "{events:?}");
    assert!(events.iter().any(|e| e["type"] == "chunk" && !e["content"].as_str().unwrap().is_empty()));

    // Whoever lost the connection after the first event gets the rest.
    let mut again = connect(&alone, &[("authorization", &bearer())]).await.unwrap();
    let resume = json!({"session_id": session, "after_seq": events[0]["seq"]});
    again.send(Message::text(resume.to_string())).await.unwrap();
    assert_eq!(turn(&mut again).await, events[1..]);

    let follow_up = json!({"agent": "greeter", "message": "And good night", "session_id": session});
    again.send(Message::text(follow_up.to_string())).await.unwrap();
    assert_eq!(turn(&mut again).await[0]["session_id"], session.as_str());
    let stored = alone.api.get(&format!("/api/chat/sessions/{session}")).await;
    let roles: Vec<&str> = stored["messages"].as_array().unwrap().iter().map(|m| m["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
    assert_eq!(alone.api.get("/api/chat/sessions?agent=greeter").await.as_array().unwrap().len(), 1);
    alone.stop().await;
}

#[tokio::test]
async fn a_message_that_makes_no_sense_gets_an_error_and_the_socket_stays() {
    let alone = Alone::start_with(&[], with_agent).await;
    let mut socket = connect(&alone, &[("authorization", &bearer())]).await.unwrap();
    for text in ["not json", "{}", r#"{"agent":"nobody","message":"x"}"#, r#"{"session_id":"no-such-session"}"#] {
        socket.send(Message::text(text)).await.unwrap();
        let event = next(&mut socket).await;
        assert_eq!(event["type"], "error", "{text}: {event}");
        assert!(!event["content"].as_str().unwrap().is_empty());
    }
    socket.send(Message::text(json!({"agent": "greeter", "message": "hello"}).to_string())).await.unwrap();
    turn(&mut socket).await;
    alone.stop().await;
}

#[tokio::test]
async fn open_sockets_are_told_that_the_runner_stops() {
    let alone = Alone::start().await;
    let mut socket = connect(&alone, &[("authorization", &bearer())]).await.unwrap();
    let (stopped, last) = tokio::join!(alone.runner.stop(), async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                other => panic!("{other:?}"),
            }
        }
    });
    stopped.unwrap();
    assert_eq!(u16::from(last.unwrap().code), 1001);
}
