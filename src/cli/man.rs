//! `tenure man`: the manual, made from the same words as `--help`.

use std::path::{Path, PathBuf};

use clap::{Args, CommandFactory as _};
use clap_mangen::Man;

use super::{Cli, Output};

/// Print the manual, or write its pages
#[derive(Args, Debug)]
#[command(
    long_about = "Print a page of the manual, in roff: that of tenure, or of one of its commands. With --dir all pages are \
        written to that folder, a file each: tenure.1, tenure-get.1, tenure-run-start.1, ...\n\n\
        Exit code: 0 printed or written, 1 no such command, or the folder cannot be written to.",
    after_long_help = "Examples:\n  tenure man run start | man -l -\n  tenure man --dir /usr/local/share/man/man1"
)]
pub(crate) struct ManArgs {
    /// The command that the page is about, such as: run start
    command: Vec<String>,
    /// Write all pages to this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    dir: Option<PathBuf>,
}

pub(crate) fn man(args: &ManArgs) -> Output {
    let mut root = Cli::command().disable_help_subcommand(true);
    // Gives each command its whole name: `tenure-run-start`.
    root.build();
    if let Some(dir) = &args.dir {
        return match write(&root, dir) {
            Ok(()) => Output::default(),
            Err(message) => Output::failed(1, &message),
        };
    }
    let mut command = &root;
    for name in &args.command {
        match command.find_subcommand(name) {
            Some(inner) => command = inner,
            None => {
                let known: Vec<_> = command.get_subcommands().map(clap::Command::get_name).collect();
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let message = format!("{} has no command {name:?}; it has {known}", command.get_name());
                return Output::failed(1, &message);
            }
        }
    }
    Output::said(page(command))
}

fn write(command: &clap::Command, dir: &Path) -> Result<(), String> {
    let name = command.get_display_name().unwrap_or(command.get_name());
    let file = dir.join(format!("{name}.1"));
    std::fs::write(&file, page(command)).map_err(|error| format!("{}: {error}", file.display()))?;
    command.get_subcommands().try_for_each(|inner| write(inner, dir))
}

fn page(command: &clap::Command) -> String {
    let mut roff = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = Man::new(command.clone())
        .source(concat!("tenure ", env!("CARGO_PKG_VERSION")))
        .manual("Tenure")
        .render(&mut roff);
    String::from_utf8_lossy(&roff).into_owned()
}
