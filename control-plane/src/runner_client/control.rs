//! The control plane's own calls: the handshake, the hand-over of settings, the workspace, health.

use super::channel::{Actor, request, within};
use crate::domain::TenantId;
use crate::error::{Error, Kind, Result};
use nexaas_common::VERSION;
use nexaas_common::secret::{ExposeSecret as _, SecretString};
use nexaas_proto::MAX_MESSAGE_BYTES;
use nexaas_proto::runner::v1::control_client::ControlClient as Stub;
use nexaas_proto::runner::v1::{ConfigureRequest, HelloRequest, InitializeWorkspaceRequest};
use std::collections::BTreeMap;
use std::time::Duration;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const HELLO: Duration = Duration::from_secs(5);
const CONFIGURE: Duration = Duration::from_secs(10);
/// A template is copied and its history seeded.
const INITIALIZE: Duration = Duration::from_secs(60);
const HEALTH: Duration = Duration::from_secs(5);

/// Who answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    pub version: String,
    /// Differs after every start of the runner; settings must then be handed over again.
    pub boot_id: String,
    pub generation: u64,
    pub configured: bool,
    pub workspace_initialized: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Registration {
    #[default]
    Open,
    Invite,
    Closed,
}

impl Registration {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Invite => "invite",
            Self::Closed => "closed",
        }
    }
}

/// What a runner is told at run time and keeps in memory only.
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    pub secrets: BTreeMap<String, SecretString>,
    /// Lower-case hex; `None`: no API key is accepted.
    pub api_key_sha256: Option<String>,
    pub display_name: String,
    pub public_url: String,
    pub registration: Registration,
    pub default_timezone: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkspaceResult {
    /// False: the workspace had been set up before.
    pub created: bool,
    pub detail: String,
}

#[derive(Debug, Clone)]
pub struct ControlClient {
    tenant: TenantId,
    stub: Stub<Channel>,
    health: HealthClient<Channel>,
}

impl ControlClient {
    pub(super) fn new(tenant: TenantId, channel: Channel) -> Self {
        let stub = Stub::new(channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        Self { tenant, stub, health: HealthClient::new(channel) }
    }

    /// The handshake. A runner that says it is another tenant's is refused, even though its certificate passed.
    pub async fn hello(&self) -> Result<Hello> {
        let message = request(HelloRequest { control_plane_version: VERSION.to_owned() }, HELLO, Actor::None)?;
        let answer = within(HELLO, self.stub.clone().hello(message)).await?;
        if answer.tenant_id != self.tenant.uuid().to_string() {
            tracing::error!(expected = %self.tenant, answered = answer.tenant_id, "a runner answered for another tenant");
            return Err(Error::new(
                Kind::Unavailable { what: "runner" },
                "the runner on this port was started for another tenant",
            ));
        }
        Ok(Hello {
            version: answer.version,
            boot_id: answer.boot_id,
            generation: answer.generation,
            configured: answer.configured,
            workspace_initialized: answer.workspace_initialized,
        })
    }

    /// Hands over everything; what an earlier call set and this one does not is gone.
    pub async fn configure(&self, settings: &Configuration) -> Result<()> {
        let secrets = settings.secrets.iter().map(|(k, v)| (k.clone(), v.expose_secret().to_owned())).collect();
        let message = ConfigureRequest {
            secrets,
            api_key_sha256: settings.api_key_sha256.clone().unwrap_or_default(),
            display_name: settings.display_name.clone(),
            public_url: settings.public_url.clone(),
            registration: settings.registration.as_str().to_owned(),
            default_timezone: settings.default_timezone.clone(),
            // Backups of single tenants are not made yet.
            ..ConfigureRequest::default()
        };
        within(CONFIGURE, self.stub.clone().configure(request(message, CONFIGURE, Actor::None)?)).await?;
        Ok(())
    }

    /// Copies the template into an empty workspace; a second call changes nothing.
    pub async fn initialize_workspace(&self, template: &str) -> Result<WorkspaceResult> {
        let message = InitializeWorkspaceRequest { template: template.to_owned() };
        let message = request(message, INITIALIZE, Actor::None)?;
        let answer = within(INITIALIZE, self.stub.clone().initialize_workspace(message)).await?;
        Ok(WorkspaceResult { created: answer.created, detail: answer.detail })
    }

    /// Ok when the runner says that it serves.
    pub async fn health(&self) -> Result<()> {
        let message = request(HealthCheckRequest { service: String::new() }, HEALTH, Actor::None)?;
        let answer = within(HEALTH, self.health.clone().check(message)).await?;
        if answer.status() == ServingStatus::Serving {
            return Ok(());
        }
        Err(Error::new(Kind::Unavailable { what: "runner" }, "the runner says that it does not serve"))
    }
}
