//! Logs → class and decisive line.

use super::{ended, log};
use crate::{
    api::FailureClass as C,
    diagnose::{RankEvidence, RuleBook, Tail, failure, log::Reader},
};

fn traceback(end: &str) -> String {
    format!(
        "Traceback (most recent call last):\n  File \"/work/train.py\", line 88, in <module>\n    main()\n  File \"/work/train.py\", line 61, in main\n    step(batch)\n{end}\n"
    )
}

fn steps(from: u32, to: u32) -> String {
    (from..to)
        .map(|n| format!("step {n}: loss 0.{n} error_rate 0.1 grad_norm 1.0\n"))
        .collect()
}

#[track_caller]
fn is(text: &str, class: C, line: &str) {
    let found = log(1, text);
    assert_eq!(
        (found.class, found.root_cause.message.as_str()),
        (class, line),
        "rule {:?} in\n{text}",
        found.rule
    );
}

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
fn what_was_survived_does_not_count() {
    let end = traceback("KeyError: 'labels'");
    // Logged, and the training went on.
    let logged = format!(
        "ERROR:root:bad batch\n{}",
        traceback("OSError: [Errno 5] Input/output error")
    );
    is(
        &(logged.clone() + &steps(2, 9) + &end),
        C::UserError,
        "KeyError: 'labels'",
    );
    let found = log(137, &(logged + &steps(2, 9)));
    assert_eq!(found.class, C::Unknown, "{:?}", found.root_cause.message);
    // Retried.
    let retried = "WARNING connection reset by peer, retrying in 5 s (1/3)\nurllib3.exceptions.ProtocolError: ('Connection aborted.', ConnectionResetError(104, 'Connection reset by peer'))\nretrying in 10 s\n";
    is(
        &(retried.to_owned() + &end),
        C::UserError,
        "KeyError: 'labels'",
    );
    // Warnings that look like errors.
    let red = "W1124 10:00:00.000000 1 cuda_blas.cc:1] Unable to register cuBLAS factory\nDeprecationWarning: ValueError will be raised in future\nUserWarning: CUDA out of memory errors may follow\neval/error=0.31 eval/fatal_rate=0.0\n";
    is(&(red.to_owned() + &end), C::UserError, "KeyError: 'labels'");
    let found = log(137, &(red.to_owned() + &steps(1, 9)));
    assert_eq!(found.class, C::Unknown, "{:?}", found.root_cause.message);
}

#[test]
fn only_the_last_run_of_a_log_counts() {
    let first =
        traceback("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.");
    for restart in [
        "[2026-03-01 10:00:00,000] torch.distributed.elastic.agent.server.api: [INFO] [default] Worker group FAILED. 2/3 attempts left; will restart worker group\n",
        "=== attempt 2/3 ===\n",
        "Restarting training from checkpoint /ckpt/100\n",
    ] {
        let text = first.clone() + restart + &steps(1, 3) + &traceback("KeyError: 'labels'");
        is(&text, C::UserError, "KeyError: 'labels'");
        let found = log(137, &(first.clone() + restart + &steps(1, 3)));
        assert_eq!(found.class, C::Unknown, "{restart}");
    }
}

#[test]
fn of_chained_exceptions_the_one_that_tells_counts() {
    let during = "\nDuring handling of the above exception, another exception occurred:\n\n";
    let direct = "\nThe above exception was the direct cause of the following exception:\n\n";
    let chain = |a: &str, how: &str, b: &str| traceback(a) + how + &traceback(b);
    // The handler itself failed.
    is(
        &chain(
            "KeyError: 'cached'",
            during,
            "FileNotFoundError: [Errno 2] No such file or directory: '/data/x.bin'",
        ),
        C::DataError,
        "FileNotFoundError: [Errno 2] No such file or directory: '/data/x.bin'",
    );
    is(
        &chain(
            "FileNotFoundError: [Errno 2] No such file or directory: '/cache/x'",
            during,
            "TypeError: expected str",
        ),
        C::UserError,
        "TypeError: expected str",
    );
    // A general exception around one that says more.
    is(
        &chain(
            "OSError: [Errno 28] No space left on device",
            during,
            "RuntimeError: could not save the checkpoint",
        ),
        C::Storage,
        "OSError: [Errno 28] No space left on device",
    );
    is(
        &chain(
            "OSError: [Errno 116] Stale file handle",
            direct,
            "ValueError: can't read shard 3",
        ),
        C::Storage,
        "OSError: [Errno 116] Stale file handle",
    );
    // A data loader's worker.
    let worker = traceback("RuntimeError: Caught KeyError in DataLoader worker process 0.")
        + "Original Traceback (most recent call last):\n  File \"/w/dataset.py\", line 3, in __getitem__\n    return self.labels[i]\nKeyError: 5\n";
    is(&worker, C::UserError, "KeyError: 5");
}

#[test]
fn noise_of_an_interpreter_that_ends_is_not_the_reason() {
    let text = traceback("ZeroDivisionError: division by zero")
        + "Exception ignored in: <function Pool.__del__ at 0x7f>\n"
        + &traceback("OSError: [Errno 5] Input/output error")
        + "terminate called without an active exception\n";
    is(&text, C::UserError, "ZeroDivisionError: division by zero");
}

#[test]
fn collateral_comes_after_causes_in_one_log_too() {
    let gloo = traceback(
        "RuntimeError: [../third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.88.0.5]:3423",
    );
    is(
        &(gloo.clone() + &traceback("ValueError: no")),
        C::UserError,
        "ValueError: no",
    );
    is(
        &(traceback("ValueError: no") + &gloo),
        C::UserError,
        "ValueError: no",
    );
    let found = log(1, &gloo);
    assert_eq!((found.class, found.collateral), (C::Communication, true));
}

#[test]
fn torchruns_report_is_no_reason_but_names_the_process() {
    let report = |code: &str, end: &str| {
        format!(
            "E0325 20:57:27.620000 2606 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: {code}) local_rank: 1 (pid: 77) of binary: /usr/bin/python3\n{}============\ntrain.py FAILED\n------------\nFailures:\n  <NO_OTHER_FAILURES>\n------------\nRoot Cause (first observed failure):\n[0]:\n  time      : 2026-03-01_10:00:05\n  host      : job-1-0\n  rank      : 1 (local_rank: 1)\n  exitcode  : {code} (pid: 77)\n  error_file: <N/A>\n  traceback : {end}\n============\n",
            traceback("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ")
        )
    };
    let page = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html";
    let tagged = |rank: u32, text: &str| -> String {
        text.lines()
            .map(|l| format!("[rank{rank}]: {l}\n"))
            .collect()
    };
    let text = tagged(0, &traceback("RuntimeError: late and odd shape mismatch"))
        + &tagged(1, &traceback("ValueError: first"))
        + &report("1", page);
    is(&text, C::UserError, "ValueError: first");
    let found = log(1, &report("1", page));
    assert_eq!((found.class, found.collateral), (C::Unknown, true));
    let found = log(
        1,
        &(steps(1, 3) + &report("-9", "Signal 9 (SIGKILL) received by PID 77")),
    );
    assert_eq!((found.class, found.collateral), (C::Unknown, false));
    assert!(found.hint.unwrap().contains("memory"));
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

#[test]
fn a_message_that_goes_on_in_the_next_line_is_read_to_its_point() {
    is(
        &traceback(
            "RuntimeError: Error(s) in loading state_dict for Net:\n\tMissing key(s) in state_dict: \"a.weight\".",
        ),
        C::UserError,
        "RuntimeError: Error(s) in loading state_dict for Net: Missing key(s) in state_dict: \"a.weight\".",
    );
    is(&traceback("RuntimeError"), C::Unknown, "RuntimeError");
    // A name alone is whole: what is printed after it is no part of it.
    is(
        &format!(
            "{}wandb: waiting for the process to finish\n",
            traceback("AssertionError")
        ),
        C::UserError,
        "AssertionError",
    );
    // What another rank says is not the rest of the message.
    is(
        &traceback("ValueError:\n[rank1]: and now to something else"),
        C::UserError,
        "ValueError:",
    );
}

#[test]
fn a_script_that_goes_on_over_a_failed_command_has_not_failed_of_it() {
    let before = "run.sh: line 3: nvidia-smi: command not found\n";
    is(before, C::ConfigError, before.trim_end());
    let on = "loading\nmodel has 12 layers\nready\nwaiting for data\nbye\n";
    is(&format!("{before}{on}"), C::Unknown, "bye");
}

#[test]
fn the_kernels_own_report_comes_before_what_cuda_makes_of_it() {
    let cuda = traceback("RuntimeError: CUDA error: uncorrectable ECC error encountered");
    let xid = "NVRM: Xid (PCI:0000:9d:00): 95, pid=1, name=python, Uncontained: FBHUB. RST: Yes, D-RST: No";
    is(&format!("{cuda}{xid}\n"), C::GpuHardware, xid);
    let check = "loss.cu:250: nll_loss: block: [0,0,0], thread: [3,0,0] Assertion `t < n` failed.";
    let assert = traceback("RuntimeError: CUDA error: device-side assert triggered");
    is(&format!("{check}\n{assert}"), C::UserError, check);
}

#[test]
fn a_traceback_after_what_native_code_has_logged_is_no_loggers() {
    let native = "[E1124 10:00:00.770175596 socket.cpp:556] [c10d] The server socket has failed to listen on any local network address.\n";
    let end = "torch.distributed.DistNetworkError: The server socket has failed to bind to [::]:29500 (errno: 98 - Address already in use).";
    is(&format!("{native}{}", traceback(end)), C::ConfigError, end);
}
