//! The runner image on the engine: which one the tag means now, and loading one that was packed here, without a registry.

use super::error::{About, image_missing};
use super::{DockerBackend, LOOK};
use crate::error::{Error, Kind, Result};
use crate::orchestrator::image::{self, BuiltImage, CONTENT_LABEL, ImageInputs};
use bollard::query_parameters::ImportImageOptions;
use futures::StreamExt as _;
use std::sync::Arc;
use std::time::Duration;

/// Tens of megabytes over a socket, unpacked by an engine that may be busy.
const LOAD: Duration = Duration::from_secs(300);

impl DockerBackend {
    /// Looks up what the image's tag means now and remembers it for the spec hash.
    pub async fn refresh_image(&self) -> Result<String> {
        let client = &self.0.client;
        let docker = client.docker().await?;
        let found = client.find("inspect the runner image", LOOK, docker.inspect_image(&self.0.image)).await?;
        let id = found.and_then(|i| i.id).ok_or_else(|| image_missing(&self.0.image))?;
        // Podman leaves the algorithm out.
        let id = if id.starts_with("sha256:") { id } else { format!("sha256:{id}") };
        if self.0.image_id.load().as_deref() != Some(&id) {
            self.0.image_id.store(Some(Arc::new(id.clone())));
        }
        Ok(id)
    }

    /// Packs the runner's files and loads them as an image under the configured tag. Inputs that did not change build
    /// nothing.
    pub async fn build_image(&self, inputs: ImageInputs) -> Result<BuiltImage> {
        let reference = self.0.image.clone();
        let tag = reference.clone();
        let archive =
            tokio::task::spawn_blocking(move || image::pack(&inputs, &tag)).await.map_err(Error::internal)??;
        let client = &self.0.client;
        let docker = client.docker().await?;
        let existing = client.find("inspect the runner image", LOOK, docker.inspect_image(&reference)).await?;
        let same = existing.as_ref().is_some_and(|i| {
            let labels = i.config.as_ref().and_then(|c| c.labels.as_ref());
            labels.and_then(|l| l.get(CONTENT_LABEL)) == Some(&archive.content_hash)
        });
        if !same {
            let body = tokio_util::io::ReaderStream::with_capacity(tokio::fs::File::from_std(archive.file), 256 << 10);
            let load = async {
                let mut answers =
                    Box::pin(docker.import_image(ImportImageOptions::default(), bollard::body_try_stream(body), None));
                while let Some(answer) = answers.next().await {
                    let answer = answer?;
                    tracing::debug!(?answer, "loading the runner image");
                }
                Ok(())
            };
            client.call("load the runner image", About::default(), LOAD, load).await?;
        }
        let id = self.refresh_image().await?;
        let inspect =
            client.call("inspect the runner image", About::default(), LOOK, docker.inspect_image(&id)).await?;
        let labels = inspect.config.and_then(|c| c.labels).unwrap_or_default();
        if labels.get(CONTENT_LABEL) != Some(&archive.content_hash) {
            return Err(Error::new(
                Kind::Internal,
                format!("the engine took the image but {reference} means another one now"),
            ));
        }
        let size_bytes = inspect.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(archive.size_bytes);
        if size_bytes > image::MAX_RELEASE_BYTES {
            tracing::warn!(
                size_bytes,
                "the runner image is larger than 40 MB; a release build of the runner makes a smaller one"
            );
        }
        Ok(BuiltImage { reference, id, size_bytes, built: !same })
    }
}
