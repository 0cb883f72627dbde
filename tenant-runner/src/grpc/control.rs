//! The control plane's own calls: the handshake, the settings, the first files. Its certificate is the authority for them.

use super::{Service, convert, status, wire};
use nexaas_common::secret::SecretString;
use nexaas_engine::{BackupState, Registration, Settings};
use std::collections::HashMap;
use std::time::Duration;
use tonic::{Request, Response, Status};

#[tonic::async_trait]
impl wire::control_server::Control for Service {
    async fn hello(&self, request: Request<wire::HelloRequest>) -> Result<Response<wire::HelloResponse>, Status> {
        tracing::info!(control_plane = request.get_ref().control_plane_version, "hello");
        let engine = self.app.engine();
        let (tenant_id, generation) =
            self.app.tenant().map(|(id, generation)| (id.to_string(), generation)).unwrap_or_default();
        Ok(Response::new(wire::HelloResponse {
            tenant_id,
            version: nexaas_common::VERSION.to_owned(),
            boot_id: engine.boot_id().to_string(),
            generation,
            configured: engine.is_configured(),
            workspace_initialized: engine.workspace().is_initialized().await.map_err(status::of)?,
        }))
    }

    async fn configure(
        &self,
        request: Request<wire::ConfigureRequest>,
    ) -> Result<Response<wire::ConfigureResponse>, Status> {
        let settings = settings(request.into_inner())?;
        tracing::info!(secrets = settings.secrets.len(), api_key = settings.api_key_sha256.is_some(), "configured");
        self.app.engine().configure(settings);
        Ok(Response::new(wire::ConfigureResponse {}))
    }

    async fn initialize_workspace(
        &self,
        request: Request<wire::InitializeWorkspaceRequest>,
    ) -> Result<Response<wire::InitializeWorkspaceResponse>, Status> {
        let template = request.into_inner().template;
        let done = self.app.engine().workspace().initialize(&template).await.map_err(status::of)?;
        Ok(Response::new(wire::InitializeWorkspaceResponse { created: done.created, detail: done.detail }))
    }
}

fn settings(request: wire::ConfigureRequest) -> Result<Settings, Status> {
    let name_ok =
        |name: &str| (1..=128).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    if !request.secrets.keys().all(|name| name_ok(name)) {
        return Err(status::invalid("secrets", "must have names of 1 to 128 letters, digits and _"));
    }
    let secrets: HashMap<String, SecretString> =
        request.secrets.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect();
    let api_key_sha256 = match request.api_key_sha256.as_str() {
        "" => None,
        text => {
            let mut hash = [0; 32];
            hex::decode_to_slice(text, &mut hash)
                .map_err(|_| status::invalid("api_key_sha256", "must be 64 hexadecimal digits or empty"))?;
            Some(hash)
        }
    };
    Ok(Settings {
        secrets,
        api_key_sha256,
        display_name: request.display_name,
        public_url: match request.public_url.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| status::invalid("public_url", "must be a URL"))?),
        },
        registration: match request.registration.as_str() {
            "" => Registration::default(),
            text => text.parse().map_err(status::of)?,
        },
        default_timezone: match request.default_timezone.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| status::invalid("default_timezone", "must be an IANA time zone"))?),
        },
        backup: BackupState {
            last: convert::parse_time("last_backup_at", &request.last_backup_at)?,
            max_age: (request.backup_max_age_s > 0).then(|| Duration::from_secs(request.backup_max_age_s)),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use nexaas_proto::FIELD_METADATA;

    #[test]
    fn each_setting_is_refused_by_name() {
        let base = wire::ConfigureRequest::default;
        let cases = [
            (wire::ConfigureRequest { api_key_sha256: "abc".into(), ..base() }, "api_key_sha256"),
            (wire::ConfigureRequest { public_url: "::".into(), ..base() }, "public_url"),
            (wire::ConfigureRequest { registration: "maybe".into(), ..base() }, "registration"),
            (wire::ConfigureRequest { default_timezone: "Mars".into(), ..base() }, "default_timezone"),
            (wire::ConfigureRequest { last_backup_at: "yesterday".into(), ..base() }, "last_backup_at"),
            (wire::ConfigureRequest { secrets: [("a b".to_owned(), "x".to_owned())].into(), ..base() }, "secrets"),
        ];
        for (request, field) in cases {
            let status = settings(request).unwrap_err();
            assert_eq!(status.metadata().get(FIELD_METADATA).unwrap(), field);
        }
        assert!(settings(base()).unwrap().api_key_sha256.is_none());
    }
}
