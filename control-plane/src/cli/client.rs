//! The API as the command line uses it: on the console's host, with the token that the running server left for us.

use crate::config::Settings;
use crate::error::{Error, Kind, Result};
use http::Method;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

const ANSWER: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Client {
    http: reqwest::Client,
    base: String,
    host: String,
    token: SecretString,
}

/// Where a server that listens on `address` is reached from its own machine.
pub fn local(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(v4) if v4.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(v6) if v6.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl Client {
    pub fn new(settings: &Settings) -> Result<Self> {
        let path = settings.cli_token_path();
        let token = std::fs::read_to_string(&path).map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => Error::new(
                Kind::Unavailable { what: "the server" },
                format!("no server has run in {}; start it with: nexaas serve", settings.data_dir.display()),
            ),
            _ => Error::new(
                Kind::Forbidden,
                format!("'{}' cannot be read: {e}; run this as the server's user", path.display()),
            ),
        })?;
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER).build().map_err(Error::internal)?;
        Ok(Self {
            http,
            base: format!("http://{}/api/v1", local(settings.listen)),
            host: format!("console.{}", settings.base_domain),
            token: SecretString::from(token.trim().to_owned()),
        })
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .header(http::header::HOST, &self.host)
            .bearer_auth(self.token.expose_secret())
    }

    pub async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.request(method, path);
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = response.text().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(serde_json::from_str(&text).unwrap_or(Value::String(text)));
        }
        Err(refusal(status, &text))
    }

    pub async fn get(&self, path: &str) -> Result<Value> {
        self.call(Method::GET, path, None).await
    }

    /// Follows an operation; `seen` is called with each state. Answers the last one.
    pub async fn follow(&self, id: &str, mut seen: impl FnMut(&Value)) -> Result<Value> {
        let path = format!("/operations/{id}");
        // The stream may be cut (the server restarts, a proxy gives up): then it is looked at and followed again.
        for attempt in 0_u32..60 {
            if let Ok(last) = self.stream(&path, &mut seen).await
                && finished(&last)
            {
                return Ok(last);
            }
            tokio::time::sleep(Duration::from_millis(200 + u64::from(attempt) * 50)).await;
            match self.get(&path).await {
                Ok(now) => {
                    seen(&now);
                    if finished(&now) {
                        return Ok(now);
                    }
                }
                Err(error) if error.kind.retryable() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::timeout("the server"))
    }

    async fn stream(&self, path: &str, seen: &mut impl FnMut(&Value)) -> Result<Value> {
        let mut response = self
            .request(Method::GET, &format!("{path}/stream"))
            .timeout(Duration::from_secs(600))
            .send()
            .await
            .map_err(unreachable)?;
        if !response.status().is_success() {
            let status = response.status();
            return Err(refusal(status, &response.text().await.unwrap_or_default()));
        }
        let mut buffer = Vec::new();
        let mut last = Value::Null;
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            buffer.extend_from_slice(&chunk);
            while let Some(end) = buffer.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if let Some(state) =
                    line.strip_prefix("data:").and_then(|d| serde_json::from_str::<Value>(d.trim()).ok())
                    && state.get("steps").is_some()
                {
                    seen(&state);
                    let done = finished(&state);
                    last = state;
                    if done {
                        return Ok(last);
                    }
                }
            }
            if buffer.len() > 1 << 20 {
                return Err(Error::internal("a line of the stream is too long"));
            }
        }
        Ok(last)
    }
}

pub fn finished(operation: &Value) -> bool {
    operation["state"].as_str().is_some_and(|s| s != "running")
}

fn unreachable(error: reqwest::Error) -> Error {
    if error.is_timeout() {
        return Error::timeout("the server").with_source(error);
    }
    Error::new(Kind::Unavailable { what: "the server" }, "the server does not answer; is it running? (nexaas serve)")
        .with_source(error)
}

/// The server's refusal with its own words.
fn refusal(status: reqwest::StatusCode, text: &str) -> Error {
    let problem: Value = serde_json::from_str(text).unwrap_or_default();
    let said = ["detail", "title"].iter().find_map(|k| problem[*k].as_str());
    let message = said.map_or_else(|| format!("the server answered {status}"), str::to_owned);
    let kind = match status.as_u16() {
        401 => Kind::Unauthenticated,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        412 => Kind::PreconditionFailed,
        429 => Kind::RateLimited { retry_after_s: 1 },
        400..=499 => Kind::Invalid { field: problem["field"].as_str().unwrap_or_default().to_owned() },
        503 => Kind::Unavailable { what: "the server" },
        _ => Kind::Internal,
    };
    Error::new(kind, message)
}
