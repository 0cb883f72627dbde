//! Where one request ends and the next begins: what can be read in two ways reaches nobody.

use super::*;

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_reaches_nobody() {
    let h = start().await;
    let hidden = "GET /api/smuggled HTTP/1.1\r\nHost: acme.base.example\r\n\r\n";
    let n = hidden.len();
    for head in [
        format!("Content-Length: {n}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {n}\r\n"),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding : chunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, gzip\r\n".to_owned(),
        "X: a\nTransfer-Encoding: chunked\r\n".to_owned(),
        "X: a\r\n Transfer-Encoding: chunked\r\n".to_owned(),
        format!("Content-Length: 0\r\nContent-Length: {n}\r\n"),
        format!("Content-Length: +{n}\r\n"),
        "Content-Length: -1\r\n".to_owned(),
        "Host: other.base.example\r\n".to_owned(),
        "Host: acme.base.example\r\n".to_owned(),
    ] {
        let answer =
            h.raw(&format!("POST /api/echo HTTP/1.1\r\nHost: acme.base.example\r\n{head}\r\n0\r\n\r\n{hidden}")).await;
        assert_eq!(status(&answer), "400", "{head:?}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head:?}: {answer}");
    }
    for target in [
        "http://other.base.example/api/echo",
        "http://acme.base.example:81/api/echo",
        "ftp://acme.base.example/api/echo",
    ] {
        let answer = h.raw(&format!("GET {target} HTTP/1.1\r\nHost: acme.base.example\r\n\r\n")).await;
        assert_eq!(status(&answer), "400", "{target}: {answer}");
    }
    let answer = h.raw("GET /api/echo HTTP/1.1\r\n\r\n").await;
    assert_eq!(status(&answer), "400", "no host: {answer}");
    assert_eq!(h.backend.targets(), Vec::<String>::new());
}

#[tokio::test]
async fn a_malformed_chunk_ends_the_request_and_what_follows_is_not_one() {
    let h = start().await;
    let answer = h
        .raw(
            "POST /api/echo HTTP/1.1\r\nHost: acme.base.example\r\nTransfer-Encoding: chunked\r\n\r\n\
             3\r\nabcX\r\n0\r\n\r\nGET /api/smuggled HTTP/1.1\r\nHost: acme.base.example\r\n\r\n",
        )
        .await;
    assert!(!answer.contains(" 200 "), "{answer}");
    assert!(!h.backend.targets().contains(&"GET /api/smuggled".to_owned()));
}

#[tokio::test]
async fn a_good_request_is_served_whole_before_a_bad_one_is_refused() {
    let h = start().await;
    let mut stream = h.connect().await;
    stream
        .write_all(b"POST /api/upload HTTP/1.1\r\nHost: acme.base.example\r\nContent-Length: 8\r\n\r\nhalf")
        .await
        .unwrap();
    tokio::time::timeout(PATIENCE, h.backend.arrived.notified()).await.unwrap();
    // One write: the end of a good body and a bad head behind it.
    stream
        .write_all(b"restPOST /api/echo HTTP/1.1\r\nHost: acme.base.example\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await
        .unwrap();
    let answers = read_until(&mut stream, "400 Bad Request").await;
    assert!(answers.contains("200 OK"), "{answers}");
    assert_eq!(h.backend.received.load(Ordering::SeqCst), 8);
    assert_eq!(h.backend.targets(), ["POST /api/upload"]);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_each_by_its_own_host() {
    let h = start().await;
    let answer = h
        .raw(
            "POST /api/echo HTTP/1.1\r\nHost: acme.base.example\r\nContent-Length: 5\r\n\r\nfirst\
             POST /api/echo HTTP/1.1\r\nHost: other.base.example\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nsecond\r\n0\r\n\r\n\
             GET / HTTP/1.1\r\nHost: acme.base.example\r\nConnection: close\r\n\r\n",
        )
        .await;
    let order: Vec<usize> =
        ["echo:first", "echo:second", "dashboard of acme"].iter().map(|t| answer.find(t).unwrap()).collect();
    assert!(order.is_sorted(), "{answer}");
    let tenants: Vec<String> = h.backend.seen().into_iter().map(|s| format!("{}:{}", s.tenant, s.body)).collect();
    assert_eq!(tenants, ["acme:first", "other:second"]);
}
