//! `tenure completions`: what a shell needs to complete the command line.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::{Cli, Output};

/// Print completions for a shell
#[derive(Args, Debug)]
#[command(
    long_about = "Print the script that lets a shell complete this command line.\n\nExit code: 0.",
    after_long_help = "Example:\n  tenure completions bash > /etc/bash_completion.d/tenure"
)]
pub(crate) struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

pub(crate) fn completions(args: &CompletionsArgs) -> Output {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tenure", &mut script);
    Output::said(String::from_utf8_lossy(&script).into_owned())
}
