//! What stands around the line that matters: start-up banners, warnings that look like errors, progress,
//! and the launcher's own report after it.

use crate::{dice::Dice, texts::Launcher};

/// Lines that every run prints, healthy or not.
const BANNERS: [&str; 6] = [
    "W1124 01:02:11.320000 71 torch/distributed/run.py:792] Setting OMP_NUM_THREADS environment variable for each process to be 1 in default, to avoid your system being overloaded",
    "NCCL version 2.20.5+cuda12.4",
    "wandb: WARNING Could not find an API key, running offline",
    "/usr/lib/python3/site-packages/transformers/utils/hub.py:128: FutureWarning: Using `TRANSFORMERS_CACHE` is deprecated and will be removed in v5 of Transformers.",
    "Some weights of the model were not initialized from the checkpoint and are newly initialized: ['score.weight']",
    "INFO: resumed from checkpoint, strict=False",
];

/// Lines in red that mean nothing.
const SCARES: [&str; 6] = [
    "WARNING: retrying read of shard 00017 after error: timed out (attempt 1 of 5)",
    "INFO: retry succeeded",
    "eval/word_error_rate: 0.1273 eval/abs_error: 0.0021",
    "[W reducer.cpp:1389] Warning: find_unused_parameters=True was specified in DDP constructor, but did not find any unused parameters in the forward pass.",
    "UserWarning: Detected call of `lr_scheduler.step()` before `optimizer.step()`.",
    "INFO: no failed samples in this epoch, 0 errors",
];

/// The log up to the failure.
pub fn before(launcher: Launcher, rank: usize, dice: &mut Dice) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    if launcher == Launcher::Torch {
        lines.extend(
            BANNERS
                .iter()
                .take(2 + dice.below(5))
                .map(|l| (*l).to_owned()),
        );
    }
    lines.push(format!(
        "world size 64, node rank {rank}, seed {}",
        dice.below(10_000)
    ));
    let mut step = 100 * dice.below(900);
    for _ in 0..4 + dice.below(14) {
        step += 10;
        let loss = 1.0 + dice.unit() * 3.0;
        lines.push(match dice.below(8) {
            0 => SCARES[dice.below(SCARES.len())].to_owned(),
            1 => format!("Epoch 2:  {}%|###       | {step}/91000 [02:11<41:02, 3.1it/s]\rEpoch 2:  {}%|###       | {}/91000 [02:12<41:01, 3.1it/s]", step / 910, step / 910, step + 3),
            _ => format!("step {step} loss {loss:.4} lr 2.1e-04 grad_norm {:.3} tokens/s {:.0}", dice.unit(), 3000.0 + dice.unit() * 400.0),
        });
    }
    lines
}

/// torchrun's report of a child that ended with `exit` (PyTorch, elastic/multiprocessing/errors).
pub fn torchrun(exit: i32, rank: usize, dice: &mut Dice) -> Vec<String> {
    let local = dice.below(8);
    let pid = 100 + dice.below(900);
    let (code, trace) = match exit {
        128.. => (
            format!("{}", 128 - exit),
            format!("Signal {} received by PID {pid}", exit - 128),
        ),
        code => (
            code.to_string(),
            "To enable traceback see: https://pytorch.org/docs/stable/elastic/errors.html"
                .to_owned(),
        ),
    };
    let line = "-".repeat(60);
    let double = "=".repeat(60);
    format!(
        "W1124 03:11:20.101000 71 torch/distributed/elastic/multiprocessing/api.py:897] Sending process {} closing signal SIGTERM
E1124 03:11:20.616000 71 torch/distributed/elastic/multiprocessing/api.py:869] failed (exitcode: {code}) local_rank: {local} (pid: {pid}) of binary: /usr/bin/python3
Traceback (most recent call last):
  File \"/usr/local/bin/torchrun\", line 8, in <module>
    sys.exit(main())
  File \"/usr/lib/python3/site-packages/torch/distributed/elastic/multiprocessing/errors/__init__.py\", line 355, in wrapper
    return f(*args, **kwargs)
  File \"/usr/lib/python3/site-packages/torch/distributed/run.py\", line 919, in main
    run(args)
  File \"/usr/lib/python3/site-packages/torch/distributed/launcher/api.py\", line 264, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError: 
{double}
train.py FAILED
{line}
Failures:
  <NO_OTHER_FAILURES>
{line}
Root Cause (first observed failure):
[0]:
  time      : 2026-11-24_03:11:20
  host      : train-1-{rank}
  rank      : {} (local_rank: {local})
  exitcode  : {code} (pid: {pid})
  error_file: <N/A>
  traceback : {trace}
{double}",
        pid + 1,
        rank * 8 + local,
    )
    .lines()
    .map(str::to_owned)
    .collect()
}

/// mpirun's report (Open MPI, help-orterun.txt).
pub fn mpirun(exit: i32, dice: &mut Dice) -> Vec<String> {
    let line = "-".repeat(74);
    format!(
        "{line}
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[{},1],{}]
  Exit code:    {exit}
{line}",
        10_000 + dice.below(50_000),
        dice.below(8)
    )
    .lines()
    .map(str::to_owned)
    .collect()
}
