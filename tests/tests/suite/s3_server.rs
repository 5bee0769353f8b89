//! An S3 server on loopback that nobody here wrote, with a bucket and the stand-ins' credentials.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// A server; dropped with its data.
pub struct S3Server {
    pub url: String,
    root: TempDir,
    task: JoinHandle<()>,
}

impl S3Server {
    /// Starts it with a bucket, for whoever signs with these of the environment's credentials.
    pub async fn start(bucket: &str, environment: &[(String, String)]) -> Result<Self> {
        let value = |name: &str| {
            let found = environment.iter().find(|(known, _)| known == name);
            found.map(|(_, value)| value.clone()).context("credentials")
        };
        let root = TempDir::new()?;
        std::fs::create_dir(root.path().join(bucket))?;
        let files = FileSystem::new(root.path()).map_err(|error| anyhow::anyhow!("{error:?}"))?;
        let mut service = S3ServiceBuilder::new(files);
        service.set_auth(SimpleAuth::from_single(
            value("AWS_ACCESS_KEY_ID")?,
            value("AWS_SECRET_ACCESS_KEY")?,
        ));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let service = service.clone();
                tokio::spawn(async move {
                    let server = Builder::new(TokioExecutor::new());
                    // A client may go away at any time.
                    let _ = server.serve_connection(TokioIo::new(socket), service).await;
                });
            }
        });
        Ok(Self { url, root, task })
    }

    /// Where the server keeps the objects of its buckets.
    pub fn folder(&self) -> PathBuf {
        self.root.path().to_owned()
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}
