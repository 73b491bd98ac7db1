//! The service behind the VIP: it says which backend it is, then echoes. Connections stay open until
//! the client closes them or the server is dropped.

use std::{net, thread};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task,
};

use crate::{LabError, addresses::SERVICE_PORT, namespace::Namespace, sockets};

/// A running service.
#[derive(Debug)]
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// Serves on the service port inside `namespace`, greeting each client with the line `name`.
    ///
    /// # Errors
    ///
    /// If it cannot listen there.
    pub fn start(namespace: &Namespace, name: &str) -> Result<Self, LabError> {
        Self::start_on(namespace, name, SERVICE_PORT)
    }

    /// The same on another port.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_on(namespace: &Namespace, name: &str, port: u16) -> Result<Self, LabError> {
        let cannot = || format!("serve on port {port} in {}", namespace.name());
        let listener = namespace.run(|| sockets::listen(port))?.map_err(LabError::system(cannot()))?;
        let (stop, stopped) = oneshot::channel();
        let greeting = format!("{name}\n");
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || serve(listener, &greeting, stopped))
            .map_err(LabError::system(cannot()))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Runs until `stopped` resolves; open connections are then reset.
fn serve(listener: net::TcpListener, greeting: &str, stopped: oneshot::Receiver<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()
        .expect("the kernel grants an epoll descriptor");
    let accepting = async {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (client, _) = listener.accept().await?;
            task::spawn(greet_and_echo(client, greeting.to_owned()));
        }
    };
    runtime.block_on(async {
        tokio::select! {
            failed = accepting => {
                let failed: std::io::Result<()> = failed;
                if let Err(error) = failed {
                    eprintln!("{}: cannot accept: {error}", greeting.trim_end());
                }
            }
            _ = stopped => {}
        }
    });
}

async fn greet_and_echo(mut client: TcpStream, greeting: String) {
    let mut buffer = [0; 4096];
    if client.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    while let Ok(length @ 1..) = client.read(&mut buffer).await {
        if client.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
