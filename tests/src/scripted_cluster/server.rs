//! A port and the connections behind it.

use std::os::fd::AsRawFd as _;
use std::sync::Arc;

use fluvio_socket::FluvioSocket;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::compat::{TokioAsyncReadCompatExt as _, TokioAsyncWriteCompatExt as _};

use super::fault::{Fault, Server};
use super::state::State;
use super::{sc, spu};

/// A server that can be stopped with all its connections.
pub(super) struct Listening {
    port: u16,
    task: Option<JoinHandle<()>>,
}

impl Listening {
    /// Listens on `port`, or on a free one when it is 0.
    pub(super) async fn start(
        server: Server,
        port: u16,
        state: &Arc<State>,
    ) -> std::io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(accept(server, listener, Arc::clone(state)));
        let task = Some(task);
        Ok(Self { port, task })
    }

    pub(super) const fn port(&self) -> u16 {
        self.port
    }

    /// Ends the server; its connections are closed when this returns.
    pub(super) async fn stop(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            // Ended by the line above, which is all that its result could say.
            let _ = task.await;
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn accept(server: Server, listener: TcpListener, state: Arc<State>) {
    // Dropped with this task, and every connection with it.
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        connections.spawn(async move {
            if state.is_due(&Fault::Silent(server)) {
                let _open = stream;
                return std::future::pending().await;
            }
            let tls = state.tls();
            let Some(socket) = socket(stream, tls).await else {
                return;
            };
            // A connection that ends with an error is one that its client closed, or that was cut.
            let _ = match server {
                Server::Sc => sc::serve(socket, &state).await,
                Server::Spu => spu::serve(socket, &state).await,
            };
        });
        while connections.try_join_next().is_some() {}
    }
}

/// `None`: client and server did not come to terms.
async fn socket(stream: TcpStream, tls: Option<TlsAcceptor>) -> Option<FluvioSocket> {
    let fd = stream.as_raw_fd();
    let Some(tls) = tls else {
        let (read, write) = stream.into_split();
        let (write, read) = (write.compat_write(), read.compat());
        return Some(FluvioSocket::from_stream(
            Box::new(write),
            Box::new(read),
            fd,
        ));
    };
    let (read, write) = tokio::io::split(tls.accept(stream).await.ok()?);
    let (write, read) = (write.compat_write(), read.compat());
    Some(FluvioSocket::from_stream(
        Box::new(write),
        Box::new(read),
        fd,
    ))
}
