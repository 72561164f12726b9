use std::sync::Mutex;

use super::*;
use crate::logs::{
    record::Record,
    sim::disk::SimDisk,
    sink,
    wal::{
        Limits, scan,
        tests::{declared, disk, end, lines, open},
    },
};

const LIMITS: Limits = Limits {
    segment: 1 << 20,
    quota: 1 << 30,
    job: 1 << 30,
};

/// A sink that refuses so often.
#[derive(Default)]
struct Moody {
    refuses: Mutex<u32>,
    tidies_after: Mutex<u32>,
    stored: Mutex<Vec<usize>>,
    tidied: Mutex<u32>,
}

fn no() -> sink::Error {
    sink::Error::Silent {
        path: "x".into(),
        seconds: 1,
    }
}

/// Whether there was one left.
fn take(left: &Mutex<u32>) -> bool {
    let mut left = left.lock().unwrap();
    *left = left.saturating_sub(1);
    *left > 0
}

impl Sink for Moody {
    fn name(&self) -> &'static str {
        "moody"
    }

    fn store<'a>(&'a self, shipment: &'a Shipment) -> BoxFuture<'a, Result<(), sink::Error>> {
        Box::pin(async {
            if take(&self.refuses) {
                return Err(no());
            }
            self.stored.lock().unwrap().push(shipment.records.len());
            Ok(())
        })
    }

    fn ended<'a>(&'a self, _: &'a Shipment) -> BoxFuture<'a, Result<(), sink::Error>> {
        Box::pin(async {
            if take(&self.tidies_after) {
                return Err(no());
            }
            *self.tidied.lock().unwrap() += 1;
            Ok(())
        })
    }
}

async fn shipper(disk: &SimDisk, sinks: &[Arc<Moody>]) -> Shipper<SimDisk> {
    Shipper {
        wal: open(disk, 1, LIMITS).await,
        disk: disk.clone(),
        sinks: sinks.iter().map(|sink| sink.clone() as _).collect(),
        metrics: Metrics::default(),
        shutdown: CancellationToken::new(),
        every: Duration::from_secs(60),
        hurry: Arc::default(),
    }
}

async fn write(wal: &Wal, records: Vec<Record>) {
    let opened = wal.stream(declared(0)).await.unwrap();
    wal.append(opened.number, records).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_segment_is_cut_only_when_every_sink_has_taken_it() {
    let disk = disk();
    let sinks = [Arc::new(Moody::default()), Arc::new(Moody::default())];
    *sinks[1].refuses.lock().unwrap() = 20;
    let shipper = shipper(&disk, &sinks).await;
    write(&shipper.wal, lines(1..=3)).await;
    let round = tokio::time::timeout(Duration::from_secs(60), shipper.round());
    assert!(round.await.is_err(), "the second sink refuses for minutes");
    assert_eq!(*sinks[0].stored.lock().unwrap(), [3]);
    assert_eq!(scan::segments(&disk).await.unwrap(), [1]);
    assert!(shipper.metrics.store_errors.get() > 0);

    // After a restart both get it, whole.
    let shipper = self::shipper(&disk.crash(true), &sinks).await;
    shipper.round().await.unwrap();
    assert_eq!(*sinks[0].stored.lock().unwrap(), [3, 3]);
    assert_eq!(*sinks[1].stored.lock().unwrap(), [3]);
    let left = scan::segments(&disk.crash(false)).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn tidying_up_that_failed_is_tried_again_also_after_a_restart_and_not_for_ever() {
    let disk = disk();
    let sink = [Arc::new(Moody::default())];
    *sink[0].tidies_after.lock().unwrap() = 4;
    let first = shipper(&disk, &sink).await;
    write(&first.wal, lines(1..=3)).await;
    write(&first.wal, vec![end(3)]).await;
    first.round().await.unwrap();
    first.round().await.unwrap();
    assert_eq!(*sink[0].tidied.lock().unwrap(), 0);
    let second = shipper(&disk.crash(true), &sink).await;
    for _ in 0..4 {
        second.round().await.unwrap();
    }
    assert_eq!(
        *sink[0].tidied.lock().unwrap(),
        1,
        "once it has worked, that is it"
    );

    *sink[0].tidies_after.lock().unwrap() = u32::MAX;
    write(&second.wal, vec![end(3)]).await;
    for _ in 0..40 {
        second.round().await.unwrap();
    }
    assert_eq!(second.wal.untidy().await.unwrap(), []);
    let asked = u32::MAX - *sink[0].tidies_after.lock().unwrap();
    assert!(asked < 40, "{asked}");
}
