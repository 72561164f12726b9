//! How the lines of one log belong together, and which of its failures ended the program.

use super::{is, log, steps, traceback};
use crate::api::FailureClass as C;

fn torchruns_report(code: &str, end: &str) -> String {
    format!(
        "E0325 20:57:27.620000 2606 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: {code}) local_rank: 1 (pid: 77) of binary: /usr/bin/python3\n{}============\ntrain.py FAILED\n------------\nFailures:\n  <NO_OTHER_FAILURES>\n------------\nRoot Cause (first observed failure):\n[0]:\n  time      : 2026-03-01_10:00:05\n  host      : job-1-0\n  rank      : 1 (local_rank: 1)\n  exitcode  : {code} (pid: 77)\n  error_file: <N/A>\n  traceback : {end}\n============\n",
        traceback("torch.distributed.elastic.multiprocessing.errors.ChildFailedError: ")
    )
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
    let page = "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html";
    let tagged = |rank: u32, text: &str| -> String {
        text.lines()
            .map(|l| format!("[rank{rank}]: {l}\n"))
            .collect()
    };
    let text = tagged(0, &traceback("RuntimeError: late and odd shape mismatch"))
        + &tagged(1, &traceback("ValueError: first"))
        + &torchruns_report("1", page);
    is(&text, C::UserError, "ValueError: first");
    let found = log(1, &torchruns_report("1", page));
    assert_eq!((found.class, found.collateral), (C::Unknown, true));
    let found = log(
        1,
        &(steps(1, 3) + &torchruns_report("-9", "Signal 9 (SIGKILL) received by PID 77")),
    );
    assert_eq!((found.class, found.collateral), (C::Unknown, false));
    assert!(found.hint.unwrap().contains("memory"));
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
    // What a launcher reports of it is no going on.
    let report = torchruns_report("127", "<N/A>");
    is(
        &format!("{before}{report}"),
        C::ConfigError,
        before.trim_end(),
    );
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
