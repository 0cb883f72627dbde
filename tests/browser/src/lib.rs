//! A person at a browser: goes to pages, fills fields by their label, presses what they can read, and waits until they see
//! what they expect. Every wait ends by itself, and a failure leaves a screenshot and the page's text.

use chromiumoxide::browser::{Browser as Chromium, BrowserConfig};
use chromiumoxide::cdp::browser_protocol::emulation::{MediaFeature, SetDeviceMetricsOverrideParams};
use chromiumoxide::cdp::browser_protocol::log::EventEntryAdded;
use chromiumoxide::cdp::browser_protocol::page::CaptureScreenshotFormat;
use chromiumoxide::cdp::js_protocol::runtime::EventExceptionThrown;
use chromiumoxide::page::{Page, ScreenshotParams};
use futures::StreamExt as _;
use nexaas_common::task::{OnExit, Supervisor};
use nexaas_test_system::{Result, source_dir};
use serde_json::Value;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a person waits before they call it broken.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Programs of Debian and others, in order of preference.
const PROGRAMS: &[&str] =
    &["/usr/bin/chromium-headless-shell", "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Whether a browser is installed; if not, says so in the form that the test script counts.
pub fn browser_or_skip(test: &str) -> Option<PathBuf> {
    let found = PROGRAMS.iter().map(PathBuf::from).find(|p| p.exists());
    if found.is_none() {
        eprintln!("SKIPPED: {test}: no Chromium is installed");
    }
    found
}

pub struct Browser {
    chromium: Chromium,
    tasks: Supervisor,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// A fresh browser without cookies.
    pub async fn open(program: PathBuf) -> Result<Self> {
        let profile = tempfile::tempdir()?;
        let config = BrowserConfig::builder()
            .chrome_executable(program)
            .user_data_dir(profile.path())
            // Containers and root have no user namespaces to build the sandbox from; the pages are our own.
            .no_sandbox()
            .window_size(1280, 900)
            .viewport(None)
            .args(["--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server"])
            .launch_timeout(PATIENCE)
            .request_timeout(PATIENCE)
            .build()?;
        let (chromium, mut handler) = Chromium::launch(config).await?;
        let tasks = Supervisor::new();
        tasks.spawn("browser protocol", OnExit::Expected, |token| async move {
            loop {
                tokio::select! {
                    () = token.cancelled() => break,
                    event = handler.next() => if event.is_none() { break },
                }
            }
        });
        Ok(Self { chromium, tasks, _profile: profile })
    }

    /// A new tab; its screenshots start with `name`.
    pub async fn tab(&self, name: &str) -> Result<Tab> {
        let page = self.chromium.new_page("about:blank").await?;
        page.enable_log().await?;
        page.enable_runtime().await?;
        let complaints = Arc::new(Mutex::new(Vec::new()));
        let mut entries = page.event_listener::<EventEntryAdded>().await?;
        let mut exceptions = page.event_listener::<EventExceptionThrown>().await?;
        let sink = Arc::clone(&complaints);
        self.tasks.spawn("browser console", OnExit::Expected, |token| async move {
            loop {
                let line = tokio::select! {
                    () = token.cancelled() => break,
                    Some(e) = entries.next() => match e.entry.level.as_ref() {
                        "error" => format!("{} {}", e.entry.text, e.entry.url.clone().unwrap_or_default()),
                        _ => continue,
                    },
                    Some(e) = exceptions.next() => {
                        let details = &e.exception_details;
                        let what = details.exception.as_ref().and_then(|x| x.description.clone()).unwrap_or_default();
                        format!("{} {what}", details.text)
                    }
                    else => break,
                };
                sink.lock().unwrap_or_else(PoisonError::into_inner).push(line);
            }
        });
        Ok(Tab { page, name: name.to_owned(), complaints })
    }

    pub async fn close(mut self) -> Result<()> {
        self.chromium.close().await?;
        self.chromium.wait().await?;
        self.tasks.shutdown(Duration::from_secs(5)).await?;
        Ok(())
    }
}

pub struct Tab {
    pub page: Page,
    name: String,
    complaints: Arc<Mutex<Vec<String>>>,
}

/// Finds the first visible control whose text, label, placeholder or name is what a person would call it.
const FIND: &str = r"
(kind, words) => {
  const visible = e => { const r = e.getBoundingClientRect(); const s = getComputedStyle(e); return r.width > 0 && r.height > 0 && s.visibility !== 'hidden'; };
  const clean = t => (t || '').replace(/\s+/g, ' ').trim().toLowerCase();
  const want = clean(words);
  const fields = [...document.querySelectorAll('input:not([type=hidden]), textarea, select')];
  const controls = [...document.querySelectorAll('button, a[href], summary, [role=button], [role=tab], input[type=submit]')];
  const pool = (kind === 'field' ? fields : controls).filter(visible);
  const names = e => kind === 'field'
    ? [...[...(e.labels || [])].map(l => l.innerText), e.getAttribute('aria-label'), e.placeholder, e.name]
    : [e.innerText, e.value, e.getAttribute('aria-label'), e.title];
  document.querySelectorAll('[data-test-target]').forEach(e => e.removeAttribute('data-test-target'));
  const hit = pool.find(e => names(e).some(n => clean(n) === want)) || pool.find(e => names(e).some(n => clean(n).includes(want)));
  if (!hit) return false;
  hit.setAttribute('data-test-target', '');
  return true;
}";

impl Tab {
    pub async fn visit(&self, url: &str) -> Result<()> {
        self.page.goto(url).await?;
        Ok(())
    }

    async fn target(&self, kind: &str, words: &str) -> Result<chromiumoxide::Element> {
        let end = Instant::now() + PATIENCE;
        loop {
            let script = format!("({FIND})({}, {})", Value::from(kind), Value::from(words));
            let found = self.page.evaluate_expression(script).await.ok().and_then(|v| v.into_value::<bool>().ok());
            if found == Some(true)
                && let Ok(element) = self.page.find_element("[data-test-target]").await
            {
                return Ok(element);
            }
            if Instant::now() > end {
                return Err(self.broken(&format!("there is no {kind} called '{words}'")).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Types into the field with this label, replacing what it holds.
    pub async fn fill(&self, label: &str, text: &str) -> Result<()> {
        let field = self.target("field", label).await?;
        field.call_js_fn("function() { this.value = ''; this.focus(); }", false).await?;
        field.type_str(text).await?;
        Ok(())
    }

    /// Chooses the option of a select by its value.
    pub async fn choose(&self, label: &str, value: &str) -> Result<()> {
        let field = self.target("field", label).await?;
        let set = format!(
            "function() {{ this.value = {}; this.dispatchEvent(new Event('change', {{ bubbles: true }})); }}",
            Value::from(value)
        );
        field.call_js_fn(set, false).await?;
        Ok(())
    }

    /// Presses the button or link with this text, from the keyboard: whoever cannot use a mouse must get along as well.
    pub async fn press(&self, text: &str) -> Result<()> {
        let control = self.target("control", text).await?;
        control.focus().await?;
        control.press_key("Enter").await?;
        Ok(())
    }

    /// Evaluates an expression in the page; `undefined` is null.
    pub async fn eval(&self, expression: &str) -> Result<Value> {
        Ok(self.page.evaluate_expression(expression).await?.value().cloned().unwrap_or(Value::Null))
    }

    /// The text a person can read.
    pub async fn text(&self) -> String {
        let text = self.eval("document.body ? document.body.innerText : ''").await;
        text.ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
    }

    /// Waits until the page shows this text.
    pub async fn sees(&self, text: &str) -> Result<()> {
        self.until(
            &format!("'{text}' to be seen"),
            &format!("document.body.innerText.toLowerCase().includes({})", Value::from(text.to_lowercase())),
        )
        .await
    }

    /// Waits until something matches the selector.
    pub async fn finds(&self, selector: &str) -> Result<()> {
        self.until(&format!("'{selector}' to exist"), &format!("!!document.querySelector({})", Value::from(selector)))
            .await
    }

    /// Waits until the expression is true in the page.
    pub async fn until(&self, what: &str, expression: &str) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            // While the page navigates there is nothing to evaluate in.
            if self.eval(expression).await.is_ok_and(|v| v == Value::Bool(true)) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(self.broken(&format!("waited {PATIENCE:?} for {what}")).await);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn broken(&self, why: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let shot = self.shot("broken").await.map(|p| p.display().to_string()).unwrap_or_default();
        let url = self.page.url().await.ok().flatten().unwrap_or_default();
        let text = self.text().await;
        let complaints = self.complaints();
        format!(
            "{why}\n  at {url}\n  screenshot {shot}\n  browser's complaints {complaints:?}\n  the page reads:\n{text}"
        )
        .into()
    }

    /// What the browser itself reported: script errors, refused resources, violations of the content policy.
    pub fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A picture of the page in `target/screenshots`.
    pub async fn shot(&self, what: &str) -> Result<PathBuf> {
        let folder = source_dir().join("target/screenshots");
        std::fs::create_dir_all(&folder)?;
        let path = folder.join(format!("{}-{what}.png", self.name));
        let params = ScreenshotParams::builder().format(CaptureScreenshotFormat::Png).build();
        self.page.save_screenshot(params, &path).await?;
        Ok(path)
    }

    /// Pictures of the page as it looks in light, in dark and on a telephone.
    pub async fn shots(&self, what: &str) -> Result<()> {
        for scheme in ["light", "dark"] {
            self.scheme(scheme).await?;
            self.shot(&format!("{what}-{scheme}")).await?;
        }
        self.scheme("light").await?;
        self.size(390, 844).await?;
        self.shot(&format!("{what}-narrow")).await?;
        let overflow = self.eval("document.documentElement.scrollWidth - document.documentElement.clientWidth").await?;
        self.size(1280, 900).await?;
        if overflow.as_f64().unwrap_or_default() > 1.0 {
            return Err(format!("'{what}' is {overflow} pixels wider than a telephone's screen").into());
        }
        Ok(())
    }

    async fn scheme(&self, scheme: &str) -> Result<()> {
        // Without motion, or the picture is taken in the middle of a fading colour.
        let features = [("prefers-color-scheme", scheme), ("prefers-reduced-motion", "reduce")];
        let features = features.map(|(name, value)| MediaFeature { name: name.into(), value: value.into() });
        self.page.emulate_media_features(features.to_vec()).await?;
        Ok(())
    }

    pub async fn size(&self, width: i64, height: i64) -> Result<()> {
        let metrics = SetDeviceMetricsOverrideParams::new(width, height, 1.0, width < 600);
        self.page.execute(metrics).await?;
        Ok(())
    }
}
