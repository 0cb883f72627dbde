//! Upgrades: a tunnel only when both sides agreed to one.

use super::*;

async fn websocket(
    h: &Harness,
    origin: Option<&str>,
) -> std::result::Result<tokio_tungstenite::WebSocketStream<TcpStream>, String> {
    use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
    let mut request = "ws://acme.base.example/api/chat".into_client_request().unwrap();
    if let Some(origin) = origin {
        request.headers_mut().insert("origin", origin.parse().unwrap());
    }
    tokio_tungstenite::client_async(request, h.connect().await)
        .await
        .map(|(socket, _)| socket)
        .map_err(|e| e.to_string())
}

#[tokio::test]
async fn a_websocket_is_tunnelled_both_ways() {
    use tokio_tungstenite::tungstenite::Message;
    let h = start().await;
    for origin in [None, Some("http://acme.base.example")] {
        let mut socket = websocket(&h, origin).await.unwrap();
        for text in ["one", "two"] {
            socket.send(Message::text(text)).await.unwrap();
            let answer = tokio::time::timeout(PATIENCE, socket.next()).await.unwrap().unwrap().unwrap();
            assert_eq!(answer, Message::text(format!("echo {text}")));
        }
        socket.close(None).await.unwrap();
    }
}

#[tokio::test]
async fn a_websocket_from_another_site_is_refused() {
    let h = start().await;
    for origin in [
        "http://other.base.example",
        "https://acme.base.example",
        "http://acme.base.example.evil.example",
        "http://acme.base.example:81",
        "null",
    ] {
        let error = websocket(&h, Some(origin)).await.unwrap_err();
        assert!(error.contains("403"), "{origin}: {error}");
    }
    assert_eq!(h.backend.targets(), Vec::<String>::new());
}

#[tokio::test]
async fn a_refused_upgrade_is_no_tunnel() {
    let h = start().await;
    let mut stream = h.connect().await;
    // The runner answers 200 here: the connection goes on as HTTP and the next request is judged anew.
    stream
        .write_all(
            b"GET /api/echo HTTP/1.1\r\nHost: acme.base.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        )
        .await
        .unwrap();
    let first = read_until(&mut stream, "echo:").await;
    assert_eq!(status(&first), "200");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: other.base.example\r\nConnection: close\r\n\r\n").await.unwrap();
    read_until(&mut stream, "dashboard of other").await;
}

#[tokio::test]
async fn bytes_behind_an_unanswered_upgrade_are_not_a_request() {
    let h = start().await;
    let answer = h
        .raw(
            "GET /api/echo HTTP/1.1\r\nHost: acme.base.example\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Key: x\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: acme.base.example\r\n\r\n",
        )
        .await;
    assert_eq!(status(&answer), "400", "{answer}");
    assert_eq!(h.backend.targets(), Vec::<String>::new());
}

#[tokio::test]
async fn an_upgrade_to_anything_else_is_an_ordinary_request() {
    let h = start().await;
    let answer = h.get("acme.base.example", "/api/echo", "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n").await;
    assert_eq!(status(&answer), "200", "{answer}");
    assert!(!h.backend.seen()[0].headers.contains("upgrade"), "{}", h.backend.seen()[0].headers);
}
