//! How a pod's containers come to run.

use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::{
    super::{
        container::{self, Teller},
        disk, environment,
        log::{Bounds, Writer},
        shim::Spec,
        status::State,
    },
    LOOK, RETRY, Why, Worker, items,
};
use crate::quantity;

/// Reason and message of a container that waits.
type Unstarted = (&'static str, String);

impl Worker {
    /// Starts what can be started, or asks those to end who are next.
    pub(super) async fn advance(&mut self) {
        if self.stopping.is_none() && self.is_done() && self.is_running() {
            self.stop(Why::Done, self.grace());
        }
        if self.stopping.is_some() {
            self.terminate();
            return;
        }
        let now = Instant::now();
        let blocking = self.containers.iter().position(|container| !container.lets_others_start());
        let startable = blocking.map_or(self.containers.len(), |index| index + 1);
        for index in 0..startable {
            if self.containers[index].can_start(now) {
                self.start(index).await;
            }
        }
    }

    async fn start(&mut self, index: usize) {
        let prepared = self.prepare(index).await;
        let container = &mut self.containers[index];
        let (program, writer) = match prepared {
            Ok(prepared) => prepared,
            Err((reason, message)) => {
                container.status.state = State::Waiting { reason, message: Some(message) };
                container.due = Some(Instant::now() + RETRY);
                return;
            }
        };
        let memory_bytes = quantity::bytes(&container.spec["resources"]["limits"]["memory"]);
        container.due = None;
        container.runs += 1;
        container.status.restarts = container.runs - 1;
        container.status.id = Some(format!("embedded://{}", Uuid::new_v4()));
        if let State::Terminated(end) = &container.status.state {
            container.status.last = Some(end.clone());
        }
        container.log = Some(writer.log());
        self.shared.logs.add(&self.uid, &container.status.name, writer.log());
        let (orders, ordered) = watch::channel(None);
        container.orders = Some(orders);
        let (shared, teller) = (self.shared.clone(), Teller { container: index, to: self.tell.clone() });
        let spec = Spec {
            command: program.command,
            environment: program.environment,
            directory: program.directory,
            memory_bytes,
            max_processes: shared.launcher.max_processes,
        };
        self.runs.spawn(async move {
            container::run(&shared.launcher, &spec, writer, shared.clock.clone(), ordered, &teller).await;
        });
    }

    async fn prepare(&mut self, index: usize) -> Result<(environment::Program, Writer), Unstarted> {
        let container = &self.containers[index];
        if items(&container.spec["command"]).is_empty() {
            return Err((
                "ErrImagePull",
                "the embedded cluster has no images: give the container a command".to_owned(),
            ));
        }
        if self.volumes.is_none() {
            self.make_volumes()?;
        }
        let container = &self.containers[index];
        let volumes = self.volumes.as_ref().expect("they were made above");
        let home = self.home(index);
        let program = environment::program(&self.shared.cluster, &self.pod, &container.spec, volumes, &home)
            .map_err(|error| ("CreateContainerConfigError", error.to_string()))?;
        // As many as the log endpoint gives: of the run now and the one before.
        let path = home.with_file_name(format!("{}.{}.log", container.status.name, container.runs % 2));
        let bounds = Bounds {
            max_bytes: self.shared.max_log_bytes,
            counters: self.shared.counters.clone(),
            container: self.label(index),
        };
        let writer = Writer::create(path, bounds).await;
        let writer = writer.map_err(|error| ("CreateContainerError", format!("cannot make the log: {error}")))?;
        Ok((program, writer))
    }

    fn make_volumes(&mut self) -> Result<(), Unstarted> {
        match environment::make_volumes(&self.shared.cluster, &self.pod, &self.directory) {
            Ok(volumes) => {
                self.limits = disk::limits(&self.pod, &volumes);
                self.look = (!self.limits.is_empty()).then(|| Instant::now() + LOOK);
                self.volumes = Some(volumes);
                Ok(())
            }
            Err(error) => {
                let message = error.to_string();
                self.warn("FailedMount", &message);
                Err(("ContainerCreating", message))
            }
        }
    }
}
