use tempfile::TempDir;

use super::*;
use crate::logs::{
    folder::{FolderWriter, LocalFolder},
    line::{Line, Output},
    sink::{End, Sink, Writer},
};

fn id(attempt: u32, rank: u32) -> StreamId {
    StreamId {
        namespace: "ml".into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt,
        rank,
        container: "trainer".into(),
    }
}

fn job() -> Job {
    Job {
        namespace: "ml".into(),
        name: "bert".into(),
        uid: "u-1".into(),
    }
}

struct Written(FolderWriter, u64);

impl Written {
    /// Stores lines, by second and message.
    async fn add(&mut self, lines: &[(i64, &str)]) {
        for (second, message) in lines {
            self.1 += 1;
            let line = Line {
                seq: self.1,
                time: Timestamp::from_second(*second).unwrap(),
                output: Output::Unknown,
                partial: false,
                message: (*message).into(),
            };
            self.0.append(&[line]).await.unwrap();
        }
    }

    async fn end(self) {
        let end = End {
            container_id: None,
            complete: true,
            lines: self.1,
        };
        self.0.close(Some(end)).await.unwrap();
    }
}

struct Fixture {
    dir: TempDir,
    sink: LocalFolder,
}

impl Fixture {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        // So small that nearly every line begins a new file.
        let sink = LocalFolder::open(Store::new(dir.path().into()), 60).unwrap();
        Self { dir, sink }
    }

    fn store(&self) -> Store {
        Store::new(self.dir.path().into())
    }

    async fn write(&self, attempt: u32, rank: u32, lines: &[(i64, &str)]) -> Written {
        let (writer, stored) = self.sink.open(&id(attempt, rank)).await.unwrap();
        let mut written = Written(writer, stored.seq);
        written.add(lines).await;
        written
    }

    fn read(&self, attempts: Attempts, rank: Option<u32>) -> Result<String, Error> {
        let selection = Selection {
            attempts,
            rank,
            follow: false,
        };
        let mut reader = Reader::open(self.store(), job(), selection)?;
        let mut text = Vec::new();
        while let Some(block) = reader.next_block()? {
            text.extend(block);
        }
        Ok(messages(&text))
    }
}

fn messages(text: &[u8]) -> String {
    let parsed = text.split_inclusive(|b| *b == b'\n').map(|text| {
        let parsed = line::parse(text).unwrap();
        let message = String::from_utf8(parsed.line.message).unwrap();
        format!("{}/{}:{message}", parsed.attempt, parsed.rank)
    });
    parsed.collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn ranks_are_merged_by_time_and_each_keeps_its_order() {
    let f = Fixture::new();
    f.write(1, 0, &[(1, "old")]).await;
    f.write(2, 0, &[(11, "a"), (14, "d"), (12, "back"), (16, "f")])
        .await;
    f.write(2, 1, &[(12, "b"), (13, "c"), (15, "e")]).await;
    let newest = "2/0:a 2/1:b 2/1:c 2/0:d 2/0:back 2/1:e 2/0:f";
    assert_eq!(f.read(Attempts::Newest, None).unwrap(), newest);
    assert_eq!(
        f.read(Attempts::All, None).unwrap(),
        format!("1/0:old {newest}")
    );
    assert_eq!(f.read(Attempts::One(1), None).unwrap(), "1/0:old");
    assert_eq!(
        f.read(Attempts::Newest, Some(1)).unwrap(),
        "2/1:b 2/1:c 2/1:e"
    );
}

#[tokio::test]
async fn what_is_not_there_is_answered_with_what_is() {
    let f = Fixture::new();
    let refused = |attempts, rank| f.read(attempts, rank).unwrap_err().to_string();
    assert!(refused(Attempts::Newest, None).starts_with("no lines of job bert in namespace ml"));
    for (attempt, rank) in [(1, 0), (1, 1), (1, 3), (2, 0)] {
        f.write(attempt, rank, &[(1, "x")]).await;
    }
    assert_eq!(
        refused(Attempts::One(4), None),
        "no lines of attempt 4 are stored; there are lines of attempts 1-2"
    );
    assert_eq!(
        refused(Attempts::One(1), Some(2)),
        "no lines of rank 2 are stored for attempt 1; there are lines of ranks 0-1, 3"
    );
}

#[tokio::test]
async fn the_newest_job_of_a_name_is_read() {
    let f = Fixture::new();
    f.write(1, 0, &[(5, "x")]).await;
    for (uid, second) in [("u-0", 9), ("u-2", 3)] {
        let id = StreamId {
            uid: uid.into(),
            ..id(1, 0)
        };
        let (writer, _) = f.sink.open(&id).await.unwrap();
        Written(writer, 0).add(&[(second, "y")]).await;
    }
    let newest = f.store().newest_uid("ml", "bert").unwrap();
    assert_eq!(newest.as_deref(), Some("u-0"));
    assert_eq!(f.store().newest_uid("..", "bert").unwrap(), None);
}

#[tokio::test]
async fn following_waits_for_lines_ranks_and_attempts_until_the_job_has_ended() {
    let f = Fixture::new();
    let mut rank0 = f.write(1, 0, &[(1, "a")]).await;
    let selection = Selection {
        follow: true,
        ..Selection::default()
    };
    let reader = Reader::open(f.store(), job(), selection).unwrap();
    let (out, mut lines) = mpsc::channel(1);
    let (job_ended, ended) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(send(reader, Some(async { drop(ended.await) }), out));
    let mut next = async || messages(&lines.recv().await.unwrap().unwrap());
    assert_eq!(next().await, "1/0:a");
    rank0.add(&[(2, "b"), (3, "c")]).await;
    assert_eq!(next().await, "1/0:b 1/0:c");
    let rank1 = f.write(1, 1, &[(4, "d")]).await;
    assert_eq!(next().await, "1/1:d");
    rank0.end().await;
    rank1.end().await;
    let mut again = f.write(2, 0, &[(5, "e")]).await;
    assert_eq!(next().await, "2/0:e");
    job_ended.send(()).unwrap();
    again.add(&[(6, "f")]).await;
    again.end().await;
    assert_eq!(next().await, "2/0:f");
    assert!(lines.recv().await.is_none());
    task.await.unwrap().unwrap();
}

#[tokio::test]
async fn following_one_attempt_ends_with_it() {
    let f = Fixture::new();
    f.write(1, 0, &[(1, "a")]).await.end().await;
    f.write(2, 0, &[(2, "b")]).await;
    let selection = Selection {
        attempts: Attempts::One(1),
        follow: true,
        ..Selection::default()
    };
    let reader = Reader::open(f.store(), job(), selection).unwrap();
    let (out, mut lines) = mpsc::channel(9);
    send(reader, Some(std::future::pending()), out)
        .await
        .unwrap();
    assert_eq!(messages(&lines.recv().await.unwrap().unwrap()), "1/0:a");
    assert!(lines.recv().await.is_none());
}
