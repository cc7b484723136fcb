//! What watches a worker's model beside the stream: shadow mode and automatic rollback.

use super::model;
use litflow::config::Config;
use litflow::tagger::{Observer, Serving, Tag as _};
use litflow::worker::Outputs;
use litflow::worker::reload::{self, End, Reload};
use litflow::worker::rollback::{self, Rollback, Watch};
use litflow::worker::shadow::{self, Shadow, Waiting};
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;

/// What sees each article; those that are configured.
pub struct Observers {
    waiting: Option<Arc<Waiting>>,
    watch: Option<Arc<Watch>>,
}

/// What does something about it.
pub struct Beside {
    shadow: Option<Shadow>,
    rollback: Option<Rollback>,
}

impl Observers {
    pub fn new(config: &Config, serving: &Serving) -> Self {
        Self {
            waiting: (config.shadow.sample > 0.0).then(|| Waiting::new(&config.shadow)),
            watch: (config.rollback.articles > 0).then(|| Watch::new(&config.rollback, serving.model())),
        }
    }

    pub fn all(&self) -> impl Iterator<Item = Observer> + use<> {
        let waiting = self.waiting.as_ref().map(Waiting::observer);
        waiting.into_iter().chain(self.watch.as_ref().map(Watch::observer))
    }

    /// Starts their threads. The configuration has seen to it that candidates are those of a named model.
    pub fn start(
        self,
        config: &Config,
        serving: &Arc<Serving>,
        reload: &Reload,
        outputs: Arc<Outputs>,
        runtime: Handle,
    ) -> std::io::Result<Beside> {
        let worker = config.kafka.transactional_id();
        let shadow = self.waiting.zip(config.model.name.as_ref()).map(|(waiting, name)| {
            let candidates = model::candidates(config, name, outputs, runtime);
            let report = shadow::to_cluster(config.kafka.clone());
            Shadow::start(&config.shadow, waiting, serving.clone(), candidates, report, worker.clone())
        });
        let rollback = self.watch.map(|watch| {
            let is_announced = config.model.name.is_some();
            let act = || rollback::in_registry(config.registry.clone(), config.kafka.clone(), worker.clone());
            Rollback::start(watch, serving.clone(), reload.handle(), is_announced.then(act))
        });
        Ok(Beside { shadow: shadow.transpose()?, rollback: rollback.transpose()? })
    }
}

impl Beside {
    /// `reload`, which tells of them, too.
    pub fn told_by(&self, reload: reload::Handle) -> reload::Handle {
        reload.beside(self.shadow.as_ref().map(Shadow::handle), self.rollback.as_ref().map(Rollback::handle))
    }

    /// Has the threads end, and waits for each at most `grace`. Blocks.
    pub fn end(self, grace: Duration) -> End {
        let rollback = self.rollback.map(|rollback| rollback.end(grace));
        let shadow = self.shadow.map(|shadow| shadow.end(grace));
        if [rollback, shadow].contains(&Some(End::Loading)) { End::Loading } else { End::Done }
    }
}
