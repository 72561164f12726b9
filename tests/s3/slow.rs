//! A slow network between the collector and the store.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// Forwards to a port of loopback, slowly until it is opened.
pub struct Link {
    port: u16,
    open: Arc<AtomicBool>,
    forwarded: Arc<AtomicU64>,
}

impl Link {
    pub async fn to(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let open = Arc::<AtomicBool>::default();
        let forwarded = Arc::<AtomicU64>::default();
        let (is_open, count) = (open.clone(), forwarded.clone());
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(("127.0.0.1", server)).await;
                let Ok(server) = server else { continue };
                let (mut from_server, to_server) = server.into_split();
                let (from_client, mut to_client) = client.into_split();
                tokio::spawn(async move {
                    let _ = tokio::io::copy(&mut from_server, &mut to_client).await;
                });
                let (open, count) = (is_open.clone(), count.clone());
                tokio::spawn(trickle(from_client, to_server, open, count));
            }
        });
        Self {
            port,
            open,
            forwarded,
        }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes that were given to the server.
    pub fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::Relaxed)
    }

    /// From now on it is fast.
    pub fn open(&self) {
        self.open.store(true, Ordering::Relaxed);
    }
}

/// About 2 MiB a second.
async fn trickle(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    open: Arc<AtomicBool>,
    forwarded: Arc<AtomicU64>,
) {
    let mut data = vec![0; 32 * 1024];
    while let Ok(n @ 1..) = from.read(&mut data).await {
        if !open.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(16)).await;
        }
        if to.write_all(&data[..n]).await.is_err() {
            return;
        }
        forwarded.fetch_add(n as u64, Ordering::Relaxed);
    }
}
