use k8s_openapi::jiff::Timestamp;
use tempfile::TempDir;

use super::*;
use crate::logs::line::Output;

fn id() -> StreamId {
    StreamId {
        namespace: "ml".into(),
        job: "bert".into(),
        uid: "u-1".into(),
        attempt: 1,
        rank: 0,
        container: "trainer".into(),
    }
}

fn line(seq: u64) -> Line {
    Line {
        seq,
        time: Timestamp::from_second(seq.cast_signed()).unwrap(),
        output: Output::Unknown,
        partial: false,
        message: format!("line {seq}").into(),
    }
}

fn sink(dir: &TempDir, max_file: u64) -> LocalFolder {
    LocalFolder::open(Store::new(dir.path().into()), max_file).unwrap()
}

fn files(dir: &TempDir) -> Vec<(String, String)> {
    let files = Store::new(dir.path().into()).files(&id()).unwrap();
    files
        .into_iter()
        .map(|f| {
            let name = f.path.file_name().unwrap().to_str().unwrap().to_owned();
            (name, fs::read_to_string(f.path).unwrap())
        })
        .collect()
}

#[tokio::test]
async fn files_are_rotated_by_size_and_continued_after_a_restart() {
    let dir = TempDir::new().unwrap();
    let mut expected = String::new();
    for restart in 0..3 {
        let (mut writer, stored) = sink(&dir, 150).open(&id()).await.unwrap();
        assert_eq!(stored.seq, restart * 4);
        let tail: Vec<_> = stored.tail.iter().map(|l| l.message.clone()).collect();
        // One file holds three lines; the tail goes one file further back.
        let from = (stored.seq.saturating_sub(1) / 3 * 3).saturating_sub(3) + 1;
        let messages: Vec<_> = (from..=stored.seq).map(|s| line(s).message).collect();
        assert_eq!(tail, messages);
        for seq in stored.seq + 1..=stored.seq + 4 {
            writer.append(&[line(seq)]).await.unwrap();
            let mut text = Vec::new();
            Formatter::new(&id()).write(&line(seq), &mut text);
            expected += std::str::from_utf8(&text).unwrap();
        }
        if restart == 1 {
            writer.close(None).await.unwrap();
        }
    }
    let files = files(&dir);
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "trainer-000000000001.log",
            "trainer-000000000004.log",
            "trainer-000000000007.log",
            "trainer-000000000010.log"
        ]
    );
    assert_eq!(
        files.iter().map(|(_, t)| t.as_str()).collect::<String>(),
        expected
    );
    assert!(files.iter().all(|(_, text)| text.len() <= 150));
}

#[tokio::test]
async fn an_unfinished_last_line_is_cut_off() {
    let dir = TempDir::new().unwrap();
    let (mut writer, _) = sink(&dir, 1000).open(&id()).await.unwrap();
    writer.append(&[line(1), line(2)]).await.unwrap();
    drop(writer);
    let path = Store::new(dir.path().into()).files(&id()).unwrap()[0]
        .path
        .clone();
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() - 3]).unwrap();

    let (mut writer, stored) = sink(&dir, 1000).open(&id()).await.unwrap();
    assert_eq!((stored.seq, stored.tail.len()), (1, 1));
    writer.append(&[line(2)]).await.unwrap();
    assert_eq!(files(&dir)[0].1, text);
}

#[tokio::test]
async fn the_end_is_noted_and_forgotten_when_the_stream_goes_on() {
    let dir = TempDir::new().unwrap();
    let sink = sink(&dir, 1000);
    assert_eq!(sink.end(&id()).await, None);
    let (writer, _) = sink.open(&id()).await.unwrap();
    let end = End {
        container_id: Some("c1".into()),
        complete: true,
        lines: 0,
    };
    writer.close(Some(end.clone())).await.unwrap();
    assert_eq!(sink.end(&id()).await, Some(end));
    let streams = Store::new(dir.path().into()).streams("ml", "bert", "u-1");
    assert_eq!(streams.unwrap(), [id()], "silent containers are known too");
    let _ = sink.open(&id()).await.unwrap();
    assert_eq!(sink.end(&id()).await, None);
}

#[tokio::test]
async fn names_stay_in_the_folder_and_collectors_apart() {
    let dir = TempDir::new().unwrap();
    let first = sink(&dir, 1000);
    let second = LocalFolder::open(Store::new(dir.path().into()), 1000);
    assert!(matches!(second, Err(Error::Locked(_))));
    for bad in ["..", "a/b", "", ".x"] {
        let id = StreamId {
            job: bad.into(),
            ..id()
        };
        assert!(
            matches!(first.open(&id).await, Err(Error::Name(_))),
            "{bad}"
        );
    }
}

#[tokio::test]
async fn a_failed_write_stores_nothing_and_can_be_repeated() {
    let dir = TempDir::new().unwrap();
    let (mut writer, _) = sink(&dir, 1000).open(&id()).await.unwrap();
    let folder = Store::new(dir.path().into()).folder(&id()).unwrap();
    fs::remove_dir(&folder).unwrap();
    assert!(writer.append(&[line(1)]).await.is_err());
    fs::create_dir(&folder).unwrap();
    writer.append(&[line(1)]).await.unwrap();
    assert_eq!(files(&dir).len(), 1);
}
