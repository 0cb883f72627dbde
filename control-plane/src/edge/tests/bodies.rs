//! Bodies on their way, in both directions.

use super::*;

#[tokio::test]
async fn a_stream_of_events_is_not_held_back() {
    let h = start().await;
    let mut stream = h.connect().await;
    stream
        .write_all(b"GET /api/events/stream HTTP/1.1\r\nHost: acme.base.example\r\nConnection: close\r\n\r\n")
        .await
        .unwrap();
    let first = read_until(&mut stream, "data: first").await;
    assert!(!first.contains("second"));
    h.backend.release.notify_one();
    read_until(&mut stream, "data: second").await;
}

#[tokio::test]
async fn a_request_body_streams_before_it_is_complete() {
    let h = start().await;
    let mut stream = h.connect().await;
    stream
        .write_all(b"POST /api/upload HTTP/1.1\r\nHost: acme.base.example\r\nConnection: close\r\nContent-Length: 10\r\n\r\nhello")
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, h.backend.arrived.notified()).await.unwrap();
    assert_eq!(h.backend.received.load(Ordering::SeqCst), 5);
    stream.write_all(b"world").await.unwrap();
    assert!(read_until(&mut stream, "10").await.contains("200 OK"));
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_announced_or_not() {
    let h = start_with(Limits { body: 1000, ..Limits::default() }).await;
    let announced = h.raw("POST /api/upload HTTP/1.1\r\nHost: acme.base.example\r\nContent-Length: 1001\r\n\r\n").await;
    assert_eq!(status(&announced), "413", "{announced}");
    assert_eq!(h.backend.targets(), Vec::<String>::new());
    let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
    let hidden = h
        .raw(&format!("POST /api/upload HTTP/1.1\r\nHost: acme.base.example\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{chunk}0\r\n\r\n"))
        .await;
    assert_eq!(status(&hidden), "413", "{hidden}");
}
