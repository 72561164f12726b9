//! The collector: stub to be written.
use clap::Args as ClapArgs;
/// Flags.
#[derive(ClapArgs, Clone, Debug)]
pub struct Args {}
/// Runs.
/// # Errors
/// None.
pub async fn run(
    _args: Args,
    _process: &crate::process::Args,
) -> Result<(), crate::process::Error> {
    Ok(())
}
