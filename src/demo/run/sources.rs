//! The cluster of a run: the embedded one, or a real one and what is planted in it.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use secrecy::ExposeSecret;

use super::{Progress, RunError, Settings, Source};
use crate::demo::audit::{Context, Plant};
use crate::demo::cluster::{self, Cluster};
use crate::demo::{Canary, audit};
use crate::secret::SecretBytes;
use crate::tasks::Tasks;

/// What is served, and how it is read.
pub(super) struct Sources {
    pub(super) embedded: Option<Cluster>,
    pub(super) agent_kubeconfig: PathBuf,
    pub(super) auditor: Context,
    pub(super) context: Option<String>,
    pub(super) plant: Option<Plant>,
    pub(super) planted: Vec<Canary>,
    pub(super) marker: [u8; 16],
}

pub(super) async fn sources(
    settings: &Settings,
    say: &Progress,
    tasks: &Tasks,
    planting: &Tasks,
) -> Result<Sources, RunError> {
    match &settings.source {
        Source::Embedded => embedded(settings, say, tasks).await,
        Source::Kubeconfig {
            agent,
            auditor,
            context,
        } => {
            real(
                settings,
                say,
                planting,
                (agent, auditor, context.as_deref()),
            )
            .await
        }
    }
}

async fn embedded(settings: &Settings, say: &Progress, tasks: &Tasks) -> Result<Sources, RunError> {
    let wanted = cluster::Settings::new(Arc::clone(&settings.entropy), Arc::clone(&settings.clock));
    let (embedded, running) = Cluster::start(wanted, tasks).await?;
    say(&format!("cluster  embedded, at {}", running.url));
    let path = settings.folder.join("cluster.kubeconfig");
    write_private(&path, &running.kubeconfig_yaml)?;
    let auditor = read_context(&path, None)?;
    Ok(Sources {
        planted: embedded.planted(),
        marker: embedded.marker(),
        embedded: Some(embedded),
        agent_kubeconfig: path,
        auditor,
        context: None,
        plant: None,
    })
}

async fn real(
    settings: &Settings,
    say: &Progress,
    planting: &Tasks,
    (agent, auditor, context): (&Path, &Path, Option<&str>),
) -> Result<Sources, RunError> {
    let auditor = read_context(auditor, context)?;
    say(&format!(
        "cluster  context {}, server {}",
        auditor.name, auditor.endpoint.url
    ));
    let plant = if settings.plant {
        let endpoint = &auditor.endpoint;
        let planted = Plant::start(endpoint, audit::SECRETS, &settings.entropy, planting).await;
        let planted = planted.map_err(|source| RunError::Read {
            side: "the cluster",
            source,
        })?;
        say(&format!(
            "planted  {} Secrets in namespace {}",
            audit::SECRETS,
            planted.namespace()
        ));
        Some(planted)
    } else {
        say("reading  only; Secrets are not read");
        None
    };
    Ok(Sources {
        embedded: None,
        agent_kubeconfig: agent.to_owned(),
        context: Some(auditor.name.clone()),
        auditor,
        planted: plant
            .as_ref()
            .map(|plant| plant.canaries().to_vec())
            .unwrap_or_default(),
        marker: plant.as_ref().map_or([0; 16], Plant::marker),
        plant,
    })
}

pub(super) fn read_context(path: &Path, context: Option<&str>) -> Result<Context, RunError> {
    let text = std::fs::read_to_string(path).map_err(|source| RunError::File {
        path: path.to_owned(),
        source,
    })?;
    Context::read(&text, context).map_err(|source| RunError::Kubeconfig {
        path: path.to_owned(),
        source,
    })
}

pub(super) fn write_private(path: &Path, content: &SecretBytes) -> Result<(), RunError> {
    use std::io::Write;
    let failed = |source| RunError::File {
        path: path.to_owned(),
        source,
    };
    let mut options = std::fs::OpenOptions::new();
    let opened = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path);
    #[expect(
        clippy::disallowed_methods,
        reason = "a kubeconfig of the demonstration, mode 0600"
    )]
    opened
        .and_then(|mut file| file.write_all(content.expose_secret()))
        .map_err(failed)
}
