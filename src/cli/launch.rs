//! An agent with its API: the one place where the commands start one.

use super::exit::CliError;
use crate::agent::{self, Handle, Options, Reread, Running};
use crate::api::{self, Access, ApiError};
use std::path::PathBuf;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// An agent that runs in this process and answers on its socket.
pub struct Launched {
    pub handle: Handle,
    pub socket: PathBuf,
    pub running: Running,
    pub server: Server,
}

/// What serves the sockets.
#[derive(Default)]
pub struct Server(Vec<Served>);

struct Served {
    socket: PathBuf,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ApiError>>,
}

/// `reading` is a second socket, for who may only look.
pub async fn launch(
    options: Options,
    reread: Option<Reread>,
    access: Access,
    reading: Option<(PathBuf, Access)>,
) -> Result<Launched, CliError> {
    let (handle, running) = agent::run(options, reread).await?;
    let socket = running.paths.socket();
    let mut server = Server::default();
    for (path, access) in [(socket.clone(), access)].into_iter().chain(reading) {
        if let Err(error) = server.add(&handle, path, access) {
            handle.leave();
            running.wait().await;
            server.stop().await?;
            return Err(error.into());
        }
    }
    Ok(Launched { handle, socket, running, server })
}

impl Server {
    fn add(&mut self, handle: &Handle, socket: PathBuf, access: Access) -> Result<(), ApiError> {
        let listener = api::listen(&socket, &access)?;
        let (stop, stopped) = oneshot::channel();
        let serving = api::serve(handle.clone(), listener, access, async move {
            // A dropped sender is a word, too.
            drop(stopped.await);
        });
        self.0.push(Served { socket, stop, task: tokio::spawn(serving) });
        Ok(())
    }

    /// Ends streams, finishes short answers, and takes the sockets away.
    pub async fn stop(self) -> Result<(), CliError> {
        let mut tasks = Vec::new();
        for Served { socket, stop, task } in self.0 {
            // The server has ended by itself when nobody listens; its result says why.
            let _gone = stop.send(());
            tasks.push((socket, task));
        }
        for (socket, task) in tasks {
            let served = task.await;
            match std::fs::remove_file(&socket) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(CliError::io(format!("removing {}", socket.display()), error));
                }
                _ => {}
            }
            served.map_err(|error| CliError::Failed(error.to_string()))?.map_err(CliError::from)?;
        }
        Ok(())
    }
}
