//! Logs of every shape, to their end: empty ones, last lines without a newline, long lines, any bytes;
//! and a disk that takes nothing for a while.

use std::{sync::Arc, time::Duration};

use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};

use crate::{
    kubelet::{Break, Kubelet, Trouble::Cut},
    pipeline::{Pipeline, all_whole, until},
};

/// A line, and whether a newline is behind it.
type Line<'a> = (&'a [u8], bool);

#[tokio::test]
async fn logs_of_every_shape_come_back_as_they_were_written() {
    let pipeline = Pipeline::plain().await;
    let every_byte: Vec<u8> = (0..=u8::MAX).filter(|b| *b != b'\n').collect();
    let long = vec![b'l'; 100_000];
    let shapes: [(&str, Vec<Line<'_>>); 7] = [
        ("empty", vec![]),
        ("one-empty-line", vec![(b"", true)]),
        ("no-newline", vec![(b"a", true), (b"b", false)]),
        ("only-half-a-line", vec![(b"Traceback (most recent", false)]),
        ("every-byte", vec![(&every_byte, true), (&every_byte, true)]),
        (
            "long",
            vec![(b"a", true), (&long, true), (b"b", true), (&long, true)],
        ),
        ("long-no-newline", vec![(&long, true), (&long, false)]),
    ];
    let mut ranks = Vec::new();
    for (name, lines) in &shapes {
        for late in [false, true] {
            let mut rank = pipeline.follow_from(&format!("{name}-{late}"), |rank| {
                // One that has exited when it is first read, and one that is followed.
                for (line, newline) in lines.iter().filter(|_| late) {
                    rank.write_next(line, *newline);
                }
                if late {
                    rank.exit();
                }
            });
            if !late {
                for (line, newline) in lines {
                    rank.write_next(line, *newline);
                }
                rank.exit();
            }
            ranks.push(rank);
        }
    }
    all_whole(&pipeline, ranks).await;
}

#[tokio::test]
async fn a_disk_that_takes_nothing_for_a_while_stalls_no_kubelet_and_loses_nothing() {
    let pipeline = Pipeline::new(Kubelet::start(None).await, "http", 20_000).await;
    let mut rank = pipeline.follow("slow");
    let line = [b'x'; 1000];
    for _ in 0..200 {
        rank.write(&line);
    }
    until("the log to be full", || async {
        pipeline.metrics.full.get() > 0
    })
    .await;
    until("the stream to be closed", || async { rank.pod.open() == 0 }).await;
    // What a shipper does.
    tokio::time::timeout(Duration::from_secs(100), async {
        while pipeline.wal.find(&rank.id).await.unwrap().totals.lines < 200 {
            pipeline.ship().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
    rank.exit();
    all_whole(&pipeline, vec![rank]).await;
}

#[tokio::test]
async fn a_tls_connection_that_breaks_at_any_byte_loses_and_repeats_nothing() {
    // Of this test alone, made with: openssl req -x509 -newkey ec -pkeyopt
    // ec_paramgen_curve:prime256v1 -nodes -days 36500 -subj /CN=localhost
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/certificate.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/key.pem"));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key.unwrap())
        .unwrap();
    let kubelet = Kubelet::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let pipeline = Pipeline::new(kubelet, "https", 1 << 30).await;
    let mut ranks = Vec::new();
    for at in (0..200).step_by(5) {
        for how in [Break::Reset, Break::Ends] {
            let name = format!("{how:?}-{at}").to_lowercase();
            let mut rank = pipeline.follow_from(&name, |rank| rank.pod.trouble([Cut(at, how)]));
            for n in 0..5 {
                rank.write(format!("line {n}").as_bytes());
            }
            rank.exit();
            ranks.push(rank);
        }
    }
    all_whole(&pipeline, ranks).await;
}
