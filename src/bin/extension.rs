//! What a Lambda layer carries: the extension alone, without the commands that people give.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tenure::cli::extension()
}
