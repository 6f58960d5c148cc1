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

pub struct Server {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<(), ApiError>>,
}

pub async fn launch(options: Options, reread: Option<Reread>, access: Access) -> Result<Launched, CliError> {
    let (handle, running) = agent::run(options, reread).await?;
    let socket = running.paths.socket();
    let listener = match api::listen(&socket, access) {
        Ok(listener) => listener,
        Err(error) => {
            handle.leave();
            running.wait().await;
            return Err(error.into());
        }
    };
    let (stop, stopped) = oneshot::channel();
    let serving = api::serve(handle.clone(), listener, access, async move {
        // A dropped sender is a word, too.
        drop(stopped.await);
    });
    let server = Server { stop, task: tokio::spawn(serving) };
    Ok(Launched { handle, socket, running, server })
}

impl Server {
    /// Ends streams, finishes short answers, and takes the socket away.
    pub async fn stop(self, socket: &std::path::Path) -> Result<(), CliError> {
        // The server has ended by itself when nobody listens; its result says why.
        let _gone = self.stop.send(());
        let served = self.task.await;
        match std::fs::remove_file(socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(CliError::io(format!("removing {}", socket.display()), error));
            }
            _ => {}
        }
        served.map_err(|error| CliError::Failed(error.to_string()))?.map_err(CliError::from)
    }
}
