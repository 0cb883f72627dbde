//! What is sent to receivers, and when.

use super::*;

async fn receiver(answers: &[u16]) -> MockServer {
    let server = MockServer::start().await;
    for (at, status) in answers.iter().enumerate() {
        let mock = Mock::given(method("POST")).respond_with(ResponseTemplate::new(*status)).with_priority(at as u8 + 1);
        if at + 1 < answers.len() { mock.up_to_n_times(1).mount(&server).await } else { mock.mount(&server).await }
    }
    server
}

fn to(server: &MockServer) -> impl FnOnce(&mut OpsConfig) + use<> {
    let url = format!("{}/alerts", server.uri()).parse().unwrap();
    move |config| {
        config.webhooks = vec![url];
        config.webhook_secret = Some(SecretString::from(SECRET));
    }
}

/// Every message that came: its id and its body. The signature of each is verified as a receiver would.
async fn received(server: &MockServer) -> Vec<(String, Value)> {
    use base64::Engine as _;
    use hmac::{KeyInit as _, Mac as _};
    let key = signing_key(SECRET).unwrap();
    let requests = server.received_requests().await.unwrap();
    let verified = requests.iter().map(|request| {
        let header = |name: &str| request.headers[name].to_str().unwrap().to_owned();
        let (id, stamp) = (header("webhook-id"), header("webhook-timestamp"));
        let given = header("webhook-signature");
        let given = base64::engine::general_purpose::STANDARD.decode(given.strip_prefix("v1,").unwrap()).unwrap();
        let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
        mac.update(format!("{id}.{stamp}.").as_bytes());
        mac.update(&request.body);
        mac.verify_slice(&given).unwrap();
        (id, serde_json::from_slice(&request.body).unwrap())
    });
    verified.collect()
}

#[tokio::test]
async fn a_critical_alert_is_sent_signed_and_its_end_too() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[204]).await;
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    fail(&rig, 2).await;
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await, [], "a warning is not bad enough");
    fail(&rig, 4).await;
    let alert = look(&ops).await.remove(0);
    look(&ops).await;
    assert_eq!(ops.sender().pass().await.unwrap(), None, "nothing is left to send");
    let got = received(&server).await;
    assert_eq!(got.len(), 1, "however often it is seen");
    assert_eq!(got[0].0, format!("{}.critical", alert.id));
    assert_eq!((&got[0].1["type"], &got[0].1["tenant"]), (&json!("alert.raised"), &json!("standalone")));
    assert_eq!(got[0].1["data"]["severity"], "critical");
    rig.advance(2 * 3600);
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    let got = received(&server).await;
    assert_eq!((got.len(), &got[1].1["type"]), (2, &json!("alert.resolved")));
    assert_eq!(got[1].0, format!("{}.resolved", alert.id));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_message_is_repeated_under_its_id_until_it_is_taken_and_the_order_stays() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[500, 404, 200]).await;
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    fail(&rig, 6).await;
    look(&ops).await;
    rig.advance(2 * 3600);
    look(&ops).await;
    for tries in 1..=2 {
        let next = ops.sender().pass().await.unwrap().unwrap();
        assert!(next > rig.now(), "it waits before it tries again");
        assert_eq!(received(&server).await.len(), tries);
        assert_eq!(ops.sender().pass().await.unwrap(), Some(next), "and does not hurry");
        assert_eq!(received(&server).await.len(), tries);
        rig.clock.set(next);
    }
    assert_eq!(ops.sender().pass().await.unwrap(), None);
    let kinds: Vec<_> = received(&server).await.into_iter().map(|(_, body)| body["type"].clone()).collect();
    assert_eq!(kinds, ["alert.raised", "alert.raised", "alert.raised", "alert.resolved"]);
    let ids: BTreeSet<_> = received(&server).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 2, "a repetition can be told");
    stop(supervisor).await;
}

#[tokio::test]
async fn what_was_not_sent_yet_is_sent_by_the_next_process_and_given_up_after_a_day() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[503, 200]).await;
    let first = ops_with(&rig, &supervisor, to(&server)).await;
    fail(&rig, 6).await;
    look(&first).await;
    first.sender().pass().await.unwrap();
    drop(first);
    stop(supervisor).await;
    let rig = rig.restart().await;
    rig.advance(60);
    let supervisor = Supervisor::new();
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await.len(), 2);

    let deaf = receiver(&[500]).await;
    let ops = ops_with(&rig, &supervisor, to(&deaf)).await;
    rig.advance(3 * 3600);
    look(&ops).await;
    rig.advance(3600);
    fail(&rig, 6).await;
    look(&ops).await;
    rig.advance(25 * 3600);
    ops.sender().pass().await.unwrap();
    let states = rig.store.read(|c| {
        let mut statement = c.prepare("SELECT state, count(*) FROM ops_outbox GROUP BY state ORDER BY state")?;
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<Vec<(String, u32)>>>()?)
    });
    assert_eq!(states.await.unwrap(), [("given_up".to_owned(), 2), ("sent".to_owned(), 1)]);
    stop(supervisor).await;
}

#[tokio::test]
async fn messages_for_an_address_that_is_no_longer_configured_are_given_up() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let (old, new) = (receiver(&[200]).await, receiver(&[200]).await);
    let before = ops_with(&rig, &supervisor, to(&old)).await;
    fail(&rig, 6).await;
    look(&before).await;
    let after = ops_with(&rig, &supervisor, to(&new)).await;
    assert_eq!(after.sender().pass().await.unwrap(), None);
    assert_eq!((received(&old).await.len(), received(&new).await.len()), (0, 0));
    stop(supervisor).await;
}

#[tokio::test]
async fn a_silenced_alert_is_recorded_and_sent_once_the_silence_ends() {
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[200]).await;
    let ops = ops_with(&rig, &supervisor, to(&server)).await;
    let hour = SilenceSpec { for_s: Some(3600), reason: Some("moving house".into()), ..SilenceSpec::default() };
    let spec = SilenceSpec { category: Some("job_failures".into()), ..hour.clone() };
    let silence = ops.silence(spec, "user:ada").await.unwrap();
    fail(&rig, 6).await;
    let seen = ops.look(Reach::Known).await.unwrap();
    assert_eq!(seen.next, Some(silence.until), "the end of the silence is a reason to look");
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await, []);
    let alert = open(&ops).await.remove(0);
    assert_eq!(alert.silenced_until, Some(silence.until));

    let own = ops.silence_alert(&alert.id, hour.clone(), "user:bob").await.unwrap();
    assert_eq!(
        (own.kind.as_str(), own.value.as_str(), own.created_by.as_str()),
        ("fingerprint", "job_failures", "user:bob")
    );
    assert!(!ops.end_silence(&silence.id, "user:bob").await.unwrap().active);
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await, [], "the other silence still holds");
    assert_eq!(ops.unsilence_alert(&alert.id, "user:bob").await.unwrap(), 1);
    assert_eq!(ops.unsilence_alert(&alert.id, "user:bob").await.unwrap(), 0);
    look(&ops).await;
    ops.sender().pass().await.unwrap();
    assert_eq!(received(&server).await.len(), 1);
    let listed = ops.silences(10).await.unwrap();
    assert!(listed.len() == 2 && listed.iter().all(|s| !s.active && s.ended_by.as_deref() == Some("user:bob")));
    stop(supervisor).await;
}

#[tokio::test]
async fn the_whole_monitor_tells_a_receiver_without_anybody_asking() {
    use futures::StreamExt as _;
    let (rig, supervisor) = (Rig::new().await, Supervisor::new());
    let server = receiver(&[200]).await;
    let mut told = Box::pin(rig.bus.subscribe(None));
    fail(&rig, 6).await;
    let configure = to(&server);
    ops_with(&rig, &supervisor, |config| {
        configure(config);
        config.enabled = true;
        config.interval = StdDuration::from_millis(10);
    })
    .await;
    while told.next().await.unwrap().kind != "alert.raised" {}
    while received(&server).await.is_empty() {
        tokio::task::yield_now().await;
    }
    stop(supervisor).await;
}
