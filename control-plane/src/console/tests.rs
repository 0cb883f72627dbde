use super::TABLE;
use crate::http::routes::tests::assert_matrix;
use crate::http::routes::{Access, Audience};
use crate::orchestrator::fake::FakeBackend;
use crate::testing::{Plane, TestDb};
use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request, StatusCode};
use nexaas_common::secret::ExposeSecret as _;
use tower::ServiceExt as _;

/// Written down a second time on purpose: a new page must be decided here too.
const DECIDED: &[(&str, &str)] = &[
    ("GET /login", "anybody"),
    ("POST /login", "anybody"),
    ("POST /logout", "viewer"),
    ("GET /", "viewer"),
    ("GET /tenants/new", "operator"),
    ("POST /tenants", "operator"),
    ("GET /tenants/{slug}", "viewer"),
    ("GET /tenants/{slug}/logs", "operator"),
    ("POST /tenants/{slug}/resume", "operator"),
    ("GET /tenants/{slug}/suspend", "operator"),
    ("POST /tenants/{slug}/suspend", "operator"),
    ("GET /tenants/{slug}/delete", "operator"),
    ("POST /tenants/{slug}/delete", "operator"),
    ("POST /tenants/{slug}/secrets", "operator"),
    ("POST /tenants/{slug}/secrets/{name}/delete", "operator"),
    ("GET /-/partial/tenants", "viewer"),
    ("GET /-/partial/tenants/{slug}/logs", "operator"),
    ("GET /-/stream/tenants", "viewer"),
    ("GET /-/stream/tenants/{slug}", "viewer"),
];

#[test]
fn every_page_has_a_decided_role() {
    let declared: Vec<(String, &str)> = TABLE
        .iter()
        .map(|spec| {
            let who = match spec.access {
                Access::Public => "anybody",
                Access::AtLeast(role) => role.as_str(),
            };
            (format!("{} {}", spec.method, spec.path), who)
        })
        .collect();
    let decided: Vec<(String, &str)> = DECIDED.iter().map(|(r, w)| ((*r).to_owned(), *w)).collect();
    assert_eq!(declared, decided);
}

#[tokio::test]
async fn every_page_lets_in_exactly_its_roles() {
    assert_matrix(TABLE, Audience::Browser).await;
}

/// The console and the API over a real database and the backend in memory.
struct Console {
    router: Router,
    plane: Plane,
    db: TestDb,
    password: String,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    text: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }
    fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.text).unwrap()
    }
}

const FORM: &str = "application/x-www-form-urlencoded";

impl Console {
    async fn start() -> Self {
        let db = TestDb::new().await;
        let plane = Plane::start(&db, &FakeBackend::default()).await;
        let password = plane.services.operators.bootstrap("root").await.unwrap().unwrap().expose_secret().to_owned();
        Self { router: super::router(plane.services.clone()), plane, db, password }
    }
    async fn finish(self) {
        drop(self.router);
        self.plane.stop().await;
        self.db.finish().await;
    }
    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut request = Request::builder().method(method).uri(path).header("host", "console.localhost:8080");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self.router.clone().oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 1 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, text: String::from_utf8(bytes.to_vec()).unwrap() }
    }
    async fn post(&self, cookie: &str, path: &str, body: &str) -> Answer {
        let headers = [("content-type", FORM), ("sec-fetch-site", "same-origin"), ("cookie", cookie)];
        self.call("POST", path, &headers, body).await
    }
    async fn get(&self, cookie: &str, path: &str) -> Answer {
        self.call("GET", path, &[("cookie", cookie)], "").await
    }
    async fn log_in(&self) -> String {
        let body = format!("username=root&password={}", self.password);
        let answer = self.post("", "/login", &body).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        answer.header("set-cookie").split(';').next().unwrap().to_owned()
    }
    async fn api(&self, token: &str, method: &str, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {token}");
        self.call(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body).await
    }
}

#[tokio::test]
async fn a_refused_login_says_nothing_and_a_good_one_leads_only_to_our_own_pages() {
    let c = Console::start().await;
    let mut pages = Vec::new();
    for name in ["root", "nobody"] {
        let refused = c.post("", "/login", &format!("username={name}&password=wrong+password&next=/tenants/new")).await;
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
        assert!(refused.text.contains("role=\"alert\"") && refused.text.contains(&format!("value=\"{name}\"")));
        assert!(!refused.text.contains("wrong password"));
        pages.push(refused.text.split("role=\"alert\"").nth(1).unwrap().split("</div>").next().unwrap().to_owned());
    }
    assert_eq!(pages[0], pages[1]);
    for (next, to) in [("/tenants/new", "/tenants/new"), ("//evil.example", "/"), ("https://evil.example", "/")] {
        let body = format!("username=root&password={}&next={next}", c.password);
        let answer = c.post("", "/login", &body).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, to));
        let cookie = answer.header("set-cookie");
        for part in ["__Host-nexaas_console=", "HttpOnly", "Secure", "SameSite=Lax", "Path=/"] {
            assert!(cookie.contains(part), "{cookie}");
        }
    }
    let cross = c.call("POST", "/login", &[("content-type", FORM), ("sec-fetch-site", "cross-site")], "").await;
    assert_eq!(cross.status, StatusCode::FORBIDDEN);
    c.finish().await;
}

#[tokio::test]
async fn tries_without_end_are_told_when_to_come_back() {
    let c = Console::start().await;
    let mut last = StatusCode::OK;
    for _ in 0..200 {
        let answer = c.post("", "/login", "username=root&password=x").await;
        last = answer.status;
        if last == StatusCode::TOO_MANY_REQUESTS {
            assert!(answer.header("retry-after").parse::<u64>().unwrap() > 0);
            break;
        }
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    c.finish().await;
}

#[tokio::test]
async fn a_session_ends_with_logging_out() {
    let c = Console::start().await;
    let cookie = c.log_in().await;
    assert_eq!(c.get(&cookie, "/").await.status, StatusCode::OK);
    let out = c.post(&cookie, "/logout", "").await;
    assert!(out.header("set-cookie").contains("Max-Age=0"));
    let answer = c.get(&cookie, "/tenants/acme").await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/login?next=%2Ftenants%2Facme"));
    c.finish().await;
}

#[tokio::test]
async fn a_refused_form_keeps_what_was_typed_and_a_good_one_leads_to_the_steps() {
    let c = Console::start().await;
    let cookie = c.log_in().await;
    let typed =
        "slug=console&display_name=My+%3Cb%3EClient%3C%2Fb%3E&template=demo&memory_mb=lots&cpu_millis=&backend=&key=";
    let refused = c.post(&cookie, "/tenants", typed).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("must be a whole number"), "{}", refused.text);
    let refused = c.post(&cookie, "/tenants", &typed.replace("lots", "512")).await;
    assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(refused.text.contains("id=\"e-slug\"") && refused.text.contains("is reserved"), "{}", refused.text);
    assert!(refused.text.contains("value=\"console\"") && refused.text.contains("value=\"512\""));
    assert!(refused.text.contains("<option value=\"demo\" selected>"));
    assert!(
        refused.text.contains("&#60;b&#62;Client") && !refused.text.contains("<b>Client"),
        "what is typed is escaped"
    );
    let good = typed.replace("slug=console", "slug=acme").replace("lots", "512");
    let made = c.post(&cookie, "/tenants", &good).await;
    assert_eq!((made.status, made.header("location")), (StatusCode::SEE_OTHER, "/tenants/acme"));
    let tenant = c.plane.services.tenants.get(&"acme".parse().unwrap()).await.unwrap();
    let operation = c.plane.services.tenants.operations_of(tenant.id, 1).await.unwrap().remove(0);
    c.plane.succeeded(&operation).await;
    let page = c.get(&cookie, "/tenants/acme").await;
    assert_eq!(page.text.matches("class=\"step done\"").count(), 8, "{}", page.text);
    assert!(!page.text.contains("<b>Client"));
    // Confirmation by typing the slug, for the state that was looked at.
    let wrong = c.post(&cookie, "/tenants/acme/delete", "confirm=acm&generation=1").await;
    assert!(wrong.status == StatusCode::UNPROCESSABLE_ENTITY && wrong.text.contains("value=\"acm\""));
    let stale = c.post(&cookie, "/tenants/acme/delete", "confirm=acme&generation=99").await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    let done = c.post(&cookie, "/tenants/acme/delete", "confirm=acme&generation=1").await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    c.finish().await;
}

#[tokio::test]
async fn a_secret_goes_in_and_is_never_in_a_page() {
    let c = Console::start().await;
    let cookie = c.log_in().await;
    c.plane.succeeded(&c.plane.create("acme").await).await;
    let canary = "canary-5f3c9d";
    let refused = c.post(&cookie, "/tenants/acme/secrets", &format!("name=lower&value={canary}")).await;
    assert!(refused.status == StatusCode::UNPROCESSABLE_ENTITY && refused.text.contains("value=\"lower\""));
    let stored = c.post(&cookie, "/tenants/acme/secrets", &format!("name=MODEL_KEY&value={canary}")).await;
    assert_eq!(stored.status, StatusCode::SEE_OTHER);
    let page = c.get(&cookie, "/tenants/acme").await;
    assert!(page.text.contains("MODEL_KEY"));
    for text in [&refused.text, &page.text, &c.get(&cookie, "/api/v1/tenants/acme/secrets").await.text] {
        assert!(!text.contains(canary));
    }
    c.finish().await;
}

#[tokio::test]
async fn whatever_does_not_exist_is_not_found_on_every_route() {
    let c = Console::start().await;
    let cookie = c.log_in().await;
    let console = TABLE.iter().map(|s| (s.method.clone(), s.path, FORM));
    let api = crate::api::TABLE.iter().map(|s| (s.method.clone(), s.path, "application/json"));
    for (method, path, kind) in console.chain(api).filter(|(_, path, _)| path.contains('{')) {
        for name in ["nobody", "..%2f..%2fetc", "%00", "x' OR 1=1"] {
            let id = if path.contains("/operations/{id}") || path.contains("/tokens/{id}") {
                "01a20f6e-0000-7000-8000-000000000000"
            } else {
                name
            };
            let name = name.replace(' ', "%20");
            let path = path
                .replace("{slug}", &name)
                .replace("{id}", id)
                .replace("{name}", "NAME")
                .replace("{username}", "nobody");
            let body = match kind {
                FORM => format!("confirm={name}&name=NAME&value=v"),
                _ => "{\"value\":\"v\"}".to_owned(),
            };
            let headers = [("cookie", cookie.as_str()), ("content-type", kind), ("sec-fetch-site", "same-origin")];
            let answer = c.call(method.as_str(), &path, &headers, &body).await;
            // A confirmation is judged before the name, and a form cannot confirm what is no slug.
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{method} {path}: {}", answer.text);
        }
    }
    c.finish().await;
}

#[tokio::test]
async fn a_change_over_the_api_is_accepted_followed_repeated_and_guarded() {
    let c = Console::start().await;
    let token = c.plane.services.operators.new_local_token();
    let token = token.expose_secret();
    let body = "{\"slug\":\"acme\",\"template\":\"fresh\"}";
    let bearer = format!("Bearer {token}");
    let headers =
        [("authorization", bearer.as_str()), ("content-type", "application/json"), ("idempotency-key", "once")];
    let first = c.call("POST", "/api/v1/tenants", &headers, body).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{}", first.text);
    let again = c.call("POST", "/api/v1/tenants", &headers, body).await;
    assert_eq!(first.json()["operation"]["id"], again.json()["operation"]["id"]);
    let location = first.header("location").to_owned();
    let stream = c.api(token, "GET", &format!("{location}/stream"), "").await;
    assert_eq!(stream.header("content-type"), "text/event-stream");
    assert!(stream.text.starts_with("id: 1\nevent: operation\ndata: {") || stream.text.contains("event: operation"));
    assert!(stream.text.trim_end().ends_with("event: end\ndata: succeeded"), "{}", stream.text);
    assert_eq!(c.api(token, "GET", &location, "").await.json()["state"], "succeeded");
    let shown = c.api(token, "GET", "/api/v1/tenants/acme", "").await;
    let etag = shown.header("etag").to_owned();
    let same = c.call("GET", "/api/v1/tenants/acme", &[("authorization", &bearer), ("if-none-match", &etag)], "").await;
    assert_eq!(same.status, StatusCode::NOT_MODIFIED);
    let suspend = |tag: &'static str| [("authorization", bearer.clone()), ("if-match", tag.to_owned())];
    let stale = suspend("\"g9.0\"");
    let stale: Vec<(&str, &str)> = stale.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let refused = c.call("POST", "/api/v1/tenants/acme/suspend", &stale, "").await;
    assert_eq!(refused.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(refused.header("content-type"), "application/problem+json");
    let accepted =
        c.call("POST", "/api/v1/tenants/acme/suspend", &[("authorization", &bearer), ("if-match", &etag)], "").await;
    assert_eq!(accepted.status, StatusCode::ACCEPTED, "{}", accepted.text);
    for (method, path, status) in [
        ("PATCH", "/api/v1/tenants", StatusCode::METHOD_NOT_ALLOWED),
        ("GET", "/api/v1/nothing", StatusCode::NOT_FOUND),
        ("GET", "/api/v1/tenants?limit=lots", StatusCode::UNPROCESSABLE_ENTITY),
        ("GET", "/api/v1/tenants?cursor=!!", StatusCode::UNPROCESSABLE_ENTITY),
    ] {
        let answer = c.api(token, method, path, "").await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, "application/problem+json"),
            "{method} {path}"
        );
    }
    c.finish().await;
}
