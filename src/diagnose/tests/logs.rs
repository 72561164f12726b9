//! Logs → class and decisive line.

use super::{ended, is, log, steps, traceback};
use crate::{
    api::FailureClass as C,
    diagnose::{RankEvidence, RuleBook, Tail, failure, log::Reader},
};

#[test]
fn the_families_of_exceptions() {
    for (end, class) in [
        ("ValueError: expected 10 classes", C::UserError),
        ("KeyError: 'labels'", C::UserError),
        (
            "ModuleNotFoundError: No module named 'flash_attn'",
            C::ConfigError,
        ),
        (
            "ImportError: libcudart.so.12: cannot open shared object file: No such file or directory",
            C::ConfigError,
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: '/data/train.csv'",
            C::DataError,
        ),
        (
            "FileNotFoundError: [Errno 2] No such file or directory: 'conf/train.yaml'",
            C::UserError,
        ),
        (
            "PermissionError: [Errno 13] Permission denied: '/models/out'",
            C::ConfigError,
        ),
        ("OSError: [Errno 28] No space left on device", C::Storage),
        (
            "OSError: [Errno 5] Input/output error: '/mnt/nfs/shard-3'",
            C::Storage,
        ),
        (
            "OSError: [Errno 116] Stale file handle: '/mnt/nfs/shard-3'",
            C::Storage,
        ),
        (
            "OSError: [Errno 30] Read-only file system: '/out/x'",
            C::ConfigError,
        ),
        (
            "OSError: [Errno 12] Cannot allocate memory",
            C::HostOutOfMemory,
        ),
        (
            "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 300. GiB for an array with shape (1, 2) and data type float64",
            C::HostOutOfMemory,
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.12 GiB is free.",
            C::GpuOutOfMemory,
        ),
        (
            "RuntimeError: mat1 and mat2 shapes cannot be multiplied (32x10 and 20x5)",
            C::UserError,
        ),
        (
            "RuntimeError: CUDA error: device-side assert triggered",
            C::UserError,
        ),
        (
            "RuntimeError: CUDA error: uncorrectable ECC error encountered",
            C::GpuHardware,
        ),
        (
            "RuntimeError: Detected mismatch between collectives on ranks. Rank 1 is running collective: CollectiveFingerPrint(SequenceNumber=3)",
            C::UserError,
        ),
        (
            "botocore.exceptions.NoCredentialsError: Unable to locate credentials",
            C::ConfigError,
        ),
        (
            "botocore.exceptions.ClientError: An error occurred (SlowDown) when calling the GetObject operation (reached max retries: 4): Please reduce your request rate.",
            C::Storage,
        ),
        (
            "botocore.errorfactory.NoSuchKey: An error occurred (NoSuchKey) when calling the GetObject operation: The specified key does not exist.",
            C::DataError,
        ),
        (
            "PIL.UnidentifiedImageError: cannot identify image file '/data/a.jpg'",
            C::DataError,
        ),
        (
            "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)",
            C::DataError,
        ),
        (
            "OSError: We couldn't connect to 'https://huggingface.co' to load the files, and couldn't find them in the cached files.",
            C::Storage,
        ),
        (
            "huggingface_hub.errors.GatedRepoError: 401 Client Error.",
            C::ConfigError,
        ),
        (
            "jaxlib.xla_extension.XlaRuntimeError: RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.",
            C::GpuOutOfMemory,
        ),
        ("RuntimeError: something of my own went wrong", C::UserError),
        ("mylib.errors.Broken: nobody knows", C::Unknown),
        ("__main__.Odd", C::Unknown),
    ] {
        is(&(steps(1, 5) + &traceback(end)), class, end);
    }
}

#[test]
fn numbers_come_out_of_the_message() {
    let found = log(
        1,
        &traceback(
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1.12 GiB is free. Including non-PyTorch memory, this process has 77.9 GiB memory in use.",
        ),
    );
    let hint = found.hint.unwrap();
    assert!(
        hint.starts_with("It wanted 2.00 GiB more and 1.12 GiB were free."),
        "{hint}"
    );
    let old = log(
        1,
        &traceback(
            "RuntimeError: CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 15.78 GiB total capacity; 14.56 GiB already allocated; 13.75 MiB free; 14.80 GiB reserved in total by PyTorch)",
        ),
    );
    let hint = old.hint.unwrap();
    assert!(
        hint.starts_with("It wanted 20.00 MiB more and 13.75 MiB were free."),
        "{hint}"
    );
}

#[test]
fn prefixes_do_not_hide_an_exception() {
    for prefix in [
        "[rank3]: ",
        "[default0]:",
        "[default0]:[rank3]: ",
        "2026-03-01 10:00:05,123 ",
        "[1,3]<stderr>: ",
        "3: ",
        "\x1b[36m(RayTrainWorker pid=77, ip=10.0.0.1)\x1b[0m ",
    ] {
        let text: String = traceback("ValueError: no")
            .lines()
            .map(|l| format!("{prefix}{l}\n"))
            .collect();
        is(&text, C::UserError, "ValueError: no");
    }
}

#[test]
fn programs_that_do_not_start() {
    for (text, class, line) in [
        (
            "usage: train.py [-h] --data DATA\ntrain.py: error: the following arguments are required: --data\n",
            C::UserError,
            "train.py: error: the following arguments are required: --data",
        ),
        (
            "python: can't open file '/work/trian.py': [Errno 2] No such file or directory\n",
            C::UserError,
            "python: can't open file '/work/trian.py': [Errno 2] No such file or directory",
        ),
        (
            "/bin/sh: 1: torchrnu: not found\n",
            C::ConfigError,
            "/bin/sh: 1: torchrnu: not found",
        ),
        (
            "bash: line 1: torchrnu: command not found\n",
            C::ConfigError,
            "bash: line 1: torchrnu: command not found",
        ),
        (
            "python3: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: No such file or directory\n",
            C::ConfigError,
            "python3: error while loading shared libraries: libpython3.11.so.1.0: cannot open shared object file: No such file or directory",
        ),
        (
            "  File \"train.py\", line 3\n    foo(\n       ^\nSyntaxError: '(' was never closed\n",
            C::UserError,
            "SyntaxError: '(' was never closed",
        ),
    ] {
        is(text, class, line);
    }
}

#[test]
fn xids_are_told_apart_by_what_nvidia_says_of_them() {
    let line = |n: u32| {
        format!("[ 1234.567890] NVRM: Xid (PCI:0000:3b:00): {n}, pid=4242, name=python, text")
    };
    for (xid, class) in [
        (79, C::GpuHardware),
        (48, C::GpuHardware),
        (74, C::GpuHardware),
        (95, C::GpuHardware),
        (13, C::UserError),
        (31, C::UserError),
        (43, C::UserError),
        (99, C::Unknown),
    ] {
        let text =
            line(xid) + "\n" + &traceback("RuntimeError: CUDA error: unspecified launch failure");
        let found = log(1, &text);
        assert_eq!(found.class, class, "Xid {xid}: {:?}", found.rule);
    }
}

#[test]
fn any_bytes_and_any_pieces_give_the_same_answer() {
    let mut bytes = b"\xff\xfe\x00 noise\r 12%|#| 12/100\r 13%|#| 13/100\n".to_vec();
    bytes.extend_from_slice(traceback("ValueError: expected \u{fc}").as_bytes());
    bytes.extend(std::iter::repeat_n(b'x', 200_000));
    let whole = Reader::read(&bytes, false);
    for size in [1, 7, 4096] {
        let mut reader = Reader::new(false);
        for piece in bytes.chunks(size) {
            reader.push(piece);
        }
        let report = reader.finish();
        let told = |r: &super::super::log::Report| {
            r.findings
                .decisive(&r.summary)
                .map(|f| (f.text.clone(), f.number))
        };
        assert_eq!(told(&report), told(&whole));
        assert_eq!(
            told(&report).unwrap(),
            ("ValueError: expected ü".to_owned(), 7)
        );
        assert_eq!(report.last.unwrap().1, 8);
    }
}

#[test]
fn torchruns_error_file_says_what_the_process_that_failed_first_threw() {
    let stack = "Traceback (most recent call last):\\n  File \\\"train.py\\\", line 9, in main\\n    raise ValueError(\\\"expected 10 classes\\\")\\nValueError: expected 10 classes\\n";
    let file = format!(
        r#"{{"message": {{"message": "ValueError: expected 10 classes", "extraInfo": {{"py_callstack": "{stack}", "timestamp": "1700000000"}}}}}}"#
    );
    let cut = &file[file.len() - 150..];
    for message in [file.as_str(), cut] {
        let mut pod = ended(2, 1, "Error", message, Some(5));
        pod.node = None;
        // The log itself shows only the launcher's report.
        let tail = Tail {
            bytes: b"torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n"
                .to_vec(),
            stamped: false,
        };
        let evidence = RankEvidence {
            tail: Some(&tail),
            ..RankEvidence::of(&pod)
        };
        let found = failure(&[evidence], &RuleBook::default()).unwrap();
        assert_eq!(found.class, C::UserError, "{message}");
        assert_eq!(found.root_cause.message, "ValueError: expected 10 classes");
    }
}
