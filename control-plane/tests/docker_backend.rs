//! Runners as real containers: made with every setting they must have, audited as the engine shows them, kept apart, followed,
//! and gone without a trace when removed. Where no engine answers, each test says so on standard error and is counted.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "support/engine.rs"]
mod engine;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HostConfig, HostConfigCgroupnsModeEnum, HostConfigLogConfig, Mount, MountType,
    NetworkCreateRequest, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptions, InspectContainerOptions, InspectNetworkOptions, RemoveContainerOptions, RemoveImageOptions,
};
use engine::{Engine, identity, with_engine};
use futures::StreamExt as _;
use nexaas::domain::tenant::Limits;
use nexaas::error::Kind;
use nexaas::orchestrator::docker::{DockerBackend, DockerOptions};
use nexaas::orchestrator::image::{HostFiles, ImageInputs};
use nexaas::orchestrator::{ObjectKind, Observed, RunState, RunnerBackend, RunnerSpec, object_name};
use nexaas::pki::Authority;
use nexaas::runner_client::{Configuration, RunnerClients};
use nexaas_common::clock::SystemClock;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

/// Stands for the tag of the test's image, which a plant cannot know.
const BY_TAG: &str = "by-tag";
const LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_runner_has_every_setting_and_its_identity_and_is_reachable_from_this_host_only() {
    with_engine(async |engine: &Engine| {
        let backend = &engine.backend;
        let spec = engine.spec();
        engine.make(&spec).await;
        // Each verb twice: the second finds the work done.
        engine.make(&spec).await;
        let seen = backend.observe(spec.tenant_id).await;
        assert_eq!((seen.network, seen.volume), (Observed::Present(()), Observed::Present(())));
        assert_eq!(seen.runner.present().unwrap().state, RunState::Created);
        assert_eq!(backend.audit(spec.tenant_id).await.unwrap(), []);

        backend.start(spec.tenant_id).await.unwrap();
        backend.start(spec.tenant_id).await.unwrap();
        engine.answers(spec.port).await;
        assert_eq!(backend.audit(spec.tenant_id).await.unwrap(), []);
        let seen = backend.observe(spec.tenant_id).await;
        let runner = seen.runner.present().unwrap();
        assert_eq!((runner.generation, runner.state), (spec.generation, RunState::Running));
        assert_eq!(runner.spec_hash, backend.spec_hash(&spec));

        // As the kernel sees it from inside.
        let log = backend.logs(spec.tenant_id, 200).await.unwrap();
        for line in [
            "uid=10001 gid=10001",
            "-rw------- 10001 10001 cert.pem",
            "-rw------- 10001 10001 key.pem",
            "-rw------- 10001 10001 ca.pem",
            "drwx------ 10001 10001 /data/identity",
            "key: the key",
            "root is read-only",
            "tmp is not executable",
            "CapEff:\t0000000000000000",
            "CapBnd:\t0000000000000000",
            "NoNewPrivs:\t1",
            "Seccomp:\t2",
            "core: 0",
            "files: 8192",
        ] {
            assert!(log.contains(line), "'{line}' is missing in:\n{log}");
        }
        assert!(log.contains(&format!("--tenant {} --generation {}", spec.tenant_id, spec.generation)), "{log}");
        assert_eq!(backend.logs(spec.tenant_id, 2).await.unwrap().lines().count(), 2);

        let metrics = backend.metrics(spec.tenant_id).await.unwrap();
        assert!(metrics.memory_bytes > 0 && metrics.memory_bytes < spec.limits.memory_bytes, "{metrics:?}");
        assert!(metrics.pids >= 1 && metrics.cpu_seconds > 0.0, "{metrics:?}");

        backend.stop(spec.tenant_id).await.unwrap();
        backend.stop(spec.tenant_id).await.unwrap();
        let seen = backend.observe(spec.tenant_id).await;
        assert!(matches!(seen.runner.present().unwrap().state, RunState::Exited { .. }));
        engine.remove(&spec).await;
        engine.remove(&spec).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn data_survives_a_forced_removal_and_a_changed_specification_remakes_the_runner() {
    with_engine(async |engine: &Engine| {
        let backend = &engine.backend;
        let spec = engine.spec();
        engine.make(&spec).await;
        backend.start(spec.tenant_id).await.unwrap();
        engine.answers(spec.port).await;
        let name = object_name(engine.install, spec.tenant_id);
        let force = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        engine.docker.remove_container(&name, Some(force)).await.unwrap();
        assert_eq!(backend.observe(spec.tenant_id).await.runner, Observed::Absent);
        // The second start finds what the first one wrote.
        engine.make(&spec).await;
        backend.start(spec.tenant_id).await.unwrap();
        engine.answers(spec.port).await;
        let log = backend.logs(spec.tenant_id, 200).await.unwrap();
        assert!(log.contains("starts: 2"), "{log}");

        let larger = RunnerSpec {
            generation: spec.generation + 1,
            limits: Limits { memory_bytes: 128 << 20, ..spec.limits },
            ..spec.clone()
        };
        assert_ne!(backend.spec_hash(&spec), backend.spec_hash(&larger));
        backend.ensure_runner(&larger, &identity()).await.unwrap();
        let seen = backend.observe(spec.tenant_id).await;
        let runner = seen.runner.present().unwrap().clone();
        assert_eq!((runner.generation, runner.state), (larger.generation, RunState::Created));
        assert_eq!(runner.spec_hash, backend.spec_hash(&larger));
        engine.remove(&spec).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_tenants_do_not_reach_each_other() {
    with_engine(async |engine: &Engine| {
        let (a, b) = (engine.spec(), engine.spec());
        for spec in [&a, &b] {
            engine.make(spec).await;
            engine.backend.start(spec.tenant_id).await.unwrap();
            engine.answers(spec.port).await;
        }
        let name = object_name(engine.install, b.tenant_id);
        let inspect = engine.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
        let networks = inspect.network_settings.unwrap().networks.unwrap();
        let address = networks[&name].ip_address.clone().unwrap();
        let gateway = networks[&name].gateway.clone().unwrap();
        let fetch = |host: &str, port: u16| {
            let url = format!("http://{host}:{port}/");
            ["timeout", "2", "wget", "-q", "-O", "-", &url].map(str::to_owned).to_vec()
        };
        // The runner itself answers at its own address, so the way of asking works.
        let own = object_name(engine.install, a.tenant_id);
        assert_eq!(engine.exec(&own, fetch("127.0.0.1", 8400)).await.0, 0);
        for (host, port) in [(address, 8400), (gateway, b.port)] {
            let (code, output) = engine.exec(&own, fetch(&host, port)).await;
            assert_ne!(code, 0, "{host}:{port} answered: {output}");
        }
        // Each volume belongs to one tenant: the other's is not there.
        let (_, mounts) = engine.exec(&own, vec!["cat".into(), "/proc/mounts".into()]).await;
        assert!(!mounts.contains(&name), "{mounts}");
        engine.remove(&a).await;
        engine.remove(&b).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_reported_as_they_happen() {
    with_engine(async |engine: &Engine| {
        let backend = &engine.backend;
        let spec = engine.spec();
        engine.make(&spec).await;
        let mut changes = backend.watch();
        let starting = backend.start(spec.tenant_id);
        // The stream subscribes when it is first polled; what is asked of the engine afterwards is seen.
        let (change, started) = tokio::join!(tokio::time::timeout(LIMIT, changes.next()), async {
            let result = starting.await;
            engine.answers(spec.port).await;
            backend.stop(spec.tenant_id).await.unwrap();
            result
        });
        started.unwrap();
        assert_eq!(change.unwrap().unwrap().tenant_id, spec.tenant_id);
        engine.remove(&spec).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_and_a_taken_subnet_are_conflicts_that_say_so_first() {
    with_engine(async |engine: &Engine| {
        let backend = &engine.backend;
        let holder = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let spec = RunnerSpec { port: holder.local_addr().unwrap().port(), ..engine.spec() };
        engine.make(&spec).await;
        let error = backend.start(spec.tenant_id).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{}", error.chain());
        assert!(error.public().starts_with(&format!("port {}", spec.port)), "{error}");

        let other = RunnerSpec { subnet: spec.subnet, ..engine.spec() };
        let error = backend.ensure_network(&other).await.unwrap_err();
        assert_eq!(error.kind, Kind::Conflict, "{}", error.chain());
        assert!(error.public().starts_with("subnet "), "{error}");
        // Leased anew, both are made.
        let moved = RunnerSpec { port: engine::free_port(), subnet: engine.spec().subnet, ..spec };
        backend.ensure_network(&moved).await.unwrap();
        backend.ensure_runner(&moved, &identity()).await.unwrap();
        backend.start(moved.tenant_id).await.unwrap();
        engine.answers(moved.port).await;
        assert_eq!(backend.audit(moved.tenant_id).await.unwrap(), []);
        engine.remove(&moved).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_image_is_not_built_again() {
    with_engine(async |engine: &Engine| {
        let inputs = engine.inputs();
        let again = engine.packed.build_image(inputs.clone()).await.unwrap();
        assert!(!again.built);
        assert!(again.id.starts_with("sha256:"));
        assert!(again.size_bytes > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_image_a_runner_is_not_made_and_the_error_says_what_to_do() {
    with_engine(async |engine: &Engine| {
        let backend = DockerBackend::new(DockerOptions {
            install: engine.install,
            host: None,
            runtime: None,
            image: "nexaas-test-nowhere:1".into(),
        });
        let spec = engine.spec();
        let error = backend.ensure_runner(&spec, &identity()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Unavailable { what: "runner image" });
        assert!(error.public().contains("nexaas image build"), "{error}");
        assert!(backend.ping().await.unwrap().contains("not built yet"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_another_installation_made_is_neither_listed_nor_removed() {
    with_engine(async |engine: &Engine| {
        let spec = engine.spec();
        // An object with our name that does not carry our label.
        let name = object_name(engine.install, spec.tenant_id);
        let request = bollard::models::VolumeCreateRequest { name: Some(name.clone()), ..Default::default() };
        engine.docker.create_volume(request).await.unwrap();
        assert_eq!(engine.backend.list().await.unwrap(), []);
        assert_eq!(engine.backend.observe(spec.tenant_id).await.volume, Observed::Unknown);
        let removed = engine.backend.remove(spec.tenant_id, ObjectKind::Volume).await.unwrap_err();
        let ensured = engine.backend.ensure_volume(&spec).await.unwrap_err();
        assert_eq!((removed.kind, ensured.kind), (Kind::Conflict, Kind::Conflict));
        engine.docker.remove_volume(&name, None::<bollard::query_parameters::RemoveVolumeOptions>).await.unwrap();
    })
    .await;
}

/// Bad settings, each planted into a container that is really created; the audit must name the setting.
#[tokio::test(flavor = "multi_thread")]
async fn the_audit_catches_planted_settings_in_real_containers() {
    type Plant = fn(&mut ContainerCreateBody, &mut HostConfig);
    let plants: &[(&str, Plant)] = &[
        ("User", |c, _| c.user = Some("0:0".into())),
        ("Privileged", |_, h| h.privileged = Some(true)),
        ("CapAdd", |_, h| h.cap_add = Some(vec!["SYS_ADMIN".into()])),
        ("CapDrop", |_, h| h.cap_drop = None),
        ("ReadonlyRootfs", |_, h| h.readonly_rootfs = Some(false)),
        ("SecurityOpt no-new-privileges", |_, h| h.security_opt = None),
        ("SecurityOpt", |_, h| h.security_opt.get_or_insert_default().push("seccomp=unconfined".into())),
        ("PidsLimit", |_, h| h.pids_limit = None),
        ("Memory", |_, h| (h.memory, h.memory_swap) = (None, None)),
        ("MemorySwap", |_, h| h.memory_swap = Some(-1)),
        ("NanoCpus", |_, h| h.nano_cpus = None),
        ("Ulimit core", |_, h| h.ulimits.get_or_insert_default().retain(|u| u.name.as_deref() != Some("core"))),
        ("Ulimit nofile", |_, h| h.ulimits.get_or_insert_default().retain(|u| u.name.as_deref() != Some("nofile"))),
        ("Tmpfs", |_, h| h.tmpfs = Some(HashMap::from([("/tmp".into(), "rw,exec,size=1m".into())]))),
        ("Init", |_, h| h.init = Some(false)),
        ("IpcMode", |_, h| h.ipc_mode = Some("host".into())),
        ("PidMode", |_, h| h.pid_mode = Some("host".into())),
        ("UTSMode", |c, h| {
            c.hostname = None;
            h.uts_mode = Some("host".into());
        }),
        ("CgroupnsMode", |_, h| h.cgroupns_mode = Some(HostConfigCgroupnsModeEnum::HOST)),
        ("Binds", |_, h| h.binds = Some(vec!["/var/run:/host".into()])),
        ("Mounts", |_, h| {
            h.mounts.get_or_insert_default().push(Mount {
                typ: Some(MountType::BIND),
                source: Some("/etc".into()),
                target: Some("/host".into()),
                ..Mount::default()
            });
        }),
        ("Devices", |_, h| {
            h.devices = Some(vec![DeviceMapping {
                path_on_host: Some("/dev/null".into()),
                path_in_container: Some("/dev/x".into()),
                cgroup_permissions: Some("rwm".into()),
            }]);
        }),
        ("LogConfig", |_, h| {
            h.log_config = Some(HostConfigLogConfig { typ: Some("none".into()), config: None });
        }),
        ("NetworkMode", |_, h| (h.network_mode, h.port_bindings) = (Some("host".into()), None)),
        ("Networks", |_, h| h.network_mode = Some("bridge".into())),
        ("PortBindings", |_, h| {
            let any = PortBinding { host_ip: Some("0.0.0.0".into()), host_port: Some(String::new()) };
            h.port_bindings = Some(HashMap::from([("8400/tcp".to_owned(), Some(vec![any]))]));
        }),
        ("PublishAllPorts", |_, h| h.publish_all_ports = Some(true)),
        ("RestartPolicy", |_, h| {
            h.restart_policy =
                Some(RestartPolicy { name: Some(RestartPolicyNameEnum::ALWAYS), maximum_retry_count: None });
        }),
        ("GroupAdd", |_, h| h.group_add = Some(vec!["0".into()])),
        ("MaskedPaths", |_, h| h.masked_paths = Some(Vec::new())),
        ("ReadonlyPaths", |_, h| h.readonly_paths = Some(Vec::new())),
        ("Sysctls", |_, h| h.sysctls = Some(HashMap::from([("net.core.somaxconn".into(), "99".into())]))),
        ("OomKillDisable", |_, h| h.oom_kill_disable = Some(true)),
        ("Env", |c, _| c.env = Some(vec!["ANTHROPIC_API_KEY=planted".into()])),
        ("Config.Image", |c, _| c.image = Some(BY_TAG.into())),
        ("ExtraHosts", |_, h| h.extra_hosts = Some(vec!["a:1.2.3.4".into()])),
    ];
    with_engine(async |engine: &Engine| {
        let spec = engine.spec();
        engine.make(&spec).await;
        let name = object_name(engine.install, spec.tenant_id);
        let good = engine.docker.inspect_container(&name, None::<InspectContainerOptions>).await.unwrap();
        let config = good.config.unwrap();
        let mut host = good.host_config.unwrap();
        // Lists that the engine filled in are not asked for again.
        host.masked_paths = None;
        host.readonly_paths = None;
        host.console_size = None;
        let base = ContainerCreateBody {
            image: config.image,
            user: config.user,
            hostname: config.hostname,
            labels: config.labels,
            cmd: config.cmd,
            exposed_ports: config.exposed_ports,
            ..ContainerCreateBody::default()
        };
        let mut missed = Vec::new();
        let mut not_created = Vec::new();
        for (setting, plant) in plants {
            engine.backend.remove(spec.tenant_id, ObjectKind::Runner).await.unwrap();
            let (mut body, mut host) = (base.clone(), host.clone());
            plant(&mut body, &mut host);
            if body.image.as_deref() == Some(BY_TAG) {
                body.image = Some(engine.image.clone());
            }
            body.host_config = Some(host);
            let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
            if let Err(error) = engine.docker.create_container(Some(options), body).await {
                not_created.push(format!("{setting}: {error}"));
                continue;
            }
            let found = engine.backend.audit(spec.tenant_id).await.unwrap();
            if !found.iter().any(|v| v.setting == *setting) {
                missed.push(format!("{setting}: {found:?}"));
            }
        }
        assert!(missed.is_empty(), "planted and not caught: {missed:#?}");
        // Some engines refuse a few of these outright, which is as good; most must really have been there.
        assert!(not_created.len() <= 3, "could not be planted: {not_created:#?}");
        engine.remove(&spec).await;
    })
    .await;
}

/// The real program, when this build has made it: packed with everything of this host, started, and spoken to over its TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_real_runner_in_its_image_answers_the_control_plane() {
    let Some(runner_binary) = engine::runner_binary() else {
        eprintln!("SKIPPED: nexaas-runner is not built");
        return;
    };
    with_engine(async |engine: &Engine| {
        let image = format!("nexaas-test-real:{}", engine.install.uuid());
        let backend = DockerBackend::new(DockerOptions {
            install: engine.install,
            host: None,
            runtime: None,
            image: image.clone(),
        });
        let content = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let folder = |name: &str| Some(content.join(name)).filter(|p| p.is_dir());
        let inputs = ImageInputs {
            runner_binary,
            framework_dir: folder("framework"),
            templates_dir: folder("templates"),
            version: engine.install.uuid().to_string(),
            host: HostFiles::find().unwrap(),
        };
        let built = backend.build_image(inputs).await.unwrap();
        assert!(built.built && built.size_bytes > 0);

        let dir = tempfile::tempdir().unwrap();
        let authority = Arc::new(Authority::load_or_create(dir.path(), SystemClock::shared()).unwrap());
        let spec = engine.spec();
        backend.ensure_network(&spec).await.unwrap();
        backend.ensure_volume(&spec).await.unwrap();
        backend.ensure_runner(&spec, &authority.issue_runner(spec.tenant_id).unwrap()).await.unwrap();
        backend.start(spec.tenant_id).await.unwrap();
        let clients = RunnerClients::new(authority).unwrap();
        let control = clients.control(&engine::tenant(&spec)).unwrap();
        let hello = async {
            loop {
                match control.hello().await {
                    Ok(hello) => return hello,
                    // It has not opened its port yet, and there is no event for that.
                    Err(error) if error.kind.retryable() => tokio::time::sleep(Duration::from_millis(50)).await,
                    Err(error) => panic!("{}", error.chain()),
                }
            }
        };
        let hello = match tokio::time::timeout(LIMIT, hello).await {
            Ok(hello) => hello,
            Err(_) => panic!("no answer; its output:\n{}", backend.logs(spec.tenant_id, 50).await.unwrap()),
        };
        assert_eq!(hello.generation, spec.generation);
        control.configure(&Configuration { default_timezone: "UTC".into(), ..Configuration::default() }).await.unwrap();
        control.health().await.unwrap();
        assert_eq!(backend.audit(spec.tenant_id).await.unwrap(), []);
        engine.remove(&spec).await;
        engine.docker.remove_image(&image, None::<RemoveImageOptions>, None).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_catches_a_network_whose_containers_could_talk() {
    with_engine(async |engine: &Engine| {
        let spec = engine.spec();
        engine.backend.ensure_network(&spec).await.unwrap();
        assert_eq!(engine.backend.audit(spec.tenant_id).await.unwrap(), []);
        let name = object_name(engine.install, spec.tenant_id);
        let good = engine.docker.inspect_network(&name, None::<InspectNetworkOptions>).await.unwrap();
        engine.backend.remove(spec.tenant_id, ObjectKind::Network).await.unwrap();
        let open = NetworkCreateRequest {
            name,
            driver: Some("bridge".into()),
            attachable: Some(true),
            ipam: good.ipam,
            labels: good.labels,
            ..NetworkCreateRequest::default()
        };
        engine.docker.create_network(open).await.unwrap();
        let found = engine.backend.audit(spec.tenant_id).await.unwrap();
        for setting in ["Network enable_icc", "Network.Attachable"] {
            assert!(found.iter().any(|v| v.setting == setting), "{setting}: {found:?}");
        }
        engine.backend.remove(spec.tenant_id, ObjectKind::Network).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_a_tenant_leaves_in_place_of_its_identity_is_replaced_and_not_followed() {
    with_engine(async |engine: &Engine| {
        let backend = &engine.backend;
        let spec = engine.spec();
        engine.make(&spec).await;
        backend.start(spec.tenant_id).await.unwrap();
        engine.answers(spec.port).await;
        let name = object_name(engine.install, spec.tenant_id);
        let trap = "rm -rf /data/identity && mkdir /data/elsewhere && ln -s /data/elsewhere /data/identity";
        let command = ["/bin/sh", "-c", trap].map(str::to_owned).to_vec();
        assert_eq!(engine.exec(&name, command).await.0, 0);
        backend.stop(spec.tenant_id).await.unwrap();
        backend.ensure_runner(&spec, &identity()).await.unwrap();
        backend.start(spec.tenant_id).await.unwrap();
        engine.answers(spec.port).await;
        let command =
            ["/bin/sh", "-c", "stat -c '%A %u' /data/identity; ls /data/elsewhere"].map(str::to_owned).to_vec();
        assert_eq!(engine.exec(&name, command).await, (0, "drwx------ 10001\n".to_owned()));
        engine.remove(&spec).await;
    })
    .await;
}
