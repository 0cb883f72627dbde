//! The floor of provisioning: the same image on a network and a volume of its own, made by the engine's plain calls one
//! after another, to its first answer.

use bollard::Docker;
use bollard::models::{
    ContainerCreateBody, HostConfig, Ipam, IpamConfig, Mount, MountType, NetworkCreateRequest, PortBinding,
    VolumeCreateRequest,
};
use bollard::query_parameters::{RemoveContainerOptions, RemoveVolumeOptions, StartContainerOptions};
use nexaas_test_system::Result;
use std::collections::HashMap;
use std::net::TcpListener;
use std::time::{Duration, Instant};

const NAME: &str = "nexaas-bench-floor";
const SUBNET: &str = "10.211.77.0/29";

pub struct Floor {
    docker: Docker,
    image: String,
    client: reqwest::Client,
}

impl Floor {
    pub fn connect(image: &str) -> Result<Self> {
        Ok(Self {
            docker: Docker::connect_with_defaults()?,
            image: image.to_owned(),
            client: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?,
        })
    }

    /// One round, in milliseconds; everything is removed afterwards.
    pub async fn once(&self) -> Result<f64> {
        let outcome = self.make().await;
        self.remove().await;
        outcome
    }

    async fn make(&self) -> Result<f64> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let started = Instant::now();
        self.docker
            .create_network(NetworkCreateRequest {
                name: NAME.into(),
                driver: Some("bridge".into()),
                options: Some(HashMap::from([("com.docker.network.bridge.enable_icc".into(), "false".into())])),
                ipam: Some(Ipam {
                    config: Some(vec![IpamConfig { subnet: Some(SUBNET.into()), ..Default::default() }]),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await?;
        self.docker.create_volume(VolumeCreateRequest { name: Some(NAME.into()), ..Default::default() }).await?;
        let body = ContainerCreateBody {
            image: Some(self.image.clone()),
            user: Some("10001:10001".into()),
            env: Some(vec!["API_KEY=only-for-this-measurement".into(), "HOST=0.0.0.0".into(), "PORT=8400".into()]),
            cmd: Some(vec!["--data-dir".into(), "/data".into()]),
            exposed_ports: Some(vec!["8400/tcp".into()]),
            host_config: Some(HostConfig {
                network_mode: Some(NAME.into()),
                mounts: Some(vec![Mount {
                    target: Some("/data".into()),
                    source: Some(NAME.into()),
                    typ: Some(MountType::VOLUME),
                    ..Default::default()
                }]),
                port_bindings: Some(HashMap::from([(
                    "8400/tcp".into(),
                    Some(vec![PortBinding { host_ip: Some("127.0.0.1".into()), host_port: Some(port.to_string()) }]),
                )])),
                ..Default::default()
            }),
            ..Default::default()
        };
        let options =
            bollard::query_parameters::CreateContainerOptions { name: Some(NAME.into()), ..Default::default() };
        self.docker.create_container(Some(options), body).await?;
        self.docker.start_container(NAME, None::<StartContainerOptions>).await?;
        let url = format!("http://127.0.0.1:{port}/api/health");
        loop {
            if self.client.get(&url).send().await.is_ok_and(|r| r.status().is_success()) {
                return Ok(started.elapsed().as_secs_f64() * 1000.0);
            }
            if started.elapsed() > Duration::from_secs(60) {
                return Err("the floor's container did not answer within 60 s".into());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    async fn remove(&self) {
        let force = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        // What was never made cannot be removed; anything else shows in the next round as a name that is taken.
        let _ = self.docker.remove_container(NAME, Some(force)).await;
        let _ = self.docker.remove_network(NAME).await;
        let _ = self.docker.remove_volume(NAME, None::<RemoveVolumeOptions>).await;
    }
}
