//! What the documents tell people to type is what the command line takes.

use std::path::Path;

use clap::{CommandFactory as _, Parser as _};

use super::Cli;

#[path = "../../../tests/markdown/mod.rs"]
mod markdown;

use markdown::documents;

/// Each command line that begins with `tenure`: of blocks, and in the text between backticks.
fn command_lines(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block = None;
    let mut prose = String::new();
    for line in text.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            block = if block.is_some() { None } else { Some(language.to_owned()) };
        } else if block.as_deref() == Some("sh") {
            found.extend(after_tenure(line));
        } else if block.is_none() {
            prose.push_str(line);
            prose.push(' ');
        }
    }
    for (number, part) in prose.split('`').enumerate() {
        if number % 2 == 1 && (part.starts_with("tenure ") || part.contains("$(tenure ")) {
            found.extend(after_tenure(part));
        }
    }
    found
}

/// The command in a line of a shell, up to what ends it there.
fn after_tenure(line: &str) -> Option<String> {
    let line = line.split(" #").next().unwrap_or_default();
    let words = line.trim_start().trim_start_matches("$ ");
    let begin = match words.strip_prefix("tenure ") {
        Some(rest) => rest,
        None => words.split_once("$(tenure ").or_else(|| words.split_once("; tenure "))?.1,
    };
    let end = begin.find([')', '|', '>', ';', '&']).unwrap_or(begin.len());
    Some(begin[..end].trim_end_matches('\\').trim().to_owned())
}

/// The words, without the ornaments of a synopsis; what stands for a value becomes one.
fn words(line: &str) -> Vec<String> {
    let plain = line.replace(['[', ']', '"'], " ");
    let plain = plain.replace("'", " ").replace("…", " ").replace("...", " ");
    plain.split_whitespace().map(sample).collect()
}

fn sample(word: &str) -> String {
    match word {
        "A" | "$EXECUTION_ARN" | "$EXECUTION" => {
            "arn:aws:states:eu-west-1:123456789012:execution:orders:1".to_owned()
        }
        "SHELL" => "bash".to_owned(),
        "PATH" => "secret/data/app".to_owned(),
        "ID" | "$ID" => "run-0123456789abcdef".to_owned(),
        "COMMAND" => "true".to_owned(),
        other => other.to_owned(),
    }
}

/// Whether the words, as many as there are, are taken: what is only left out of a line is no mistake in it.
fn mistake(words: &[String]) -> Option<String> {
    use clap::error::ErrorKind;
    let typed = std::iter::once("tenure").chain(words.iter().map(String::as_str));
    let error = Cli::try_parse_from(typed).err()?;
    match error.kind() {
        ErrorKind::MissingRequiredArgument
        | ErrorKind::DisplayHelp
        | ErrorKind::DisplayVersion
        | ErrorKind::MissingSubcommand
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => None,
        // `--json --watch`: a synopsis names all that there is.
        ErrorKind::ArgumentConflict if words.iter().any(|word| word == "--json") => None,
        _ => Some(error.to_string()),
    }
}

#[test]
fn what_documents_tell_people_to_type_is_taken() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    documents(root, &mut files);
    let (mut count, mut wrong) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        for line in command_lines(&text) {
            count += 1;
            if let Some(why) = mistake(&words(&line)) {
                let file = file.strip_prefix(root).unwrap_or(&file).display();
                wrong.push(format!("{file}: tenure {line}\n{why}"));
            }
        }
    }
    assert!(count > 30, "the documents have only {count} command lines");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_help_shows_as_examples_is_taken() {
    fn walk(command: &mut clap::Command, count: &mut usize) {
        let help = command.render_long_help().to_string();
        let examples = help.split("Example").nth(1).unwrap_or_default();
        let examples = examples.split("\\\n").map(str::trim_start).collect::<String>();
        for line in examples.lines().filter_map(after_tenure) {
            // What explains a line stands two spaces away from it.
            let line = line.split("  ").next().unwrap_or_default();
            assert_eq!(mistake(&words(line)), None, "tenure {line}");
            *count += 1;
        }
        for inner in command.get_subcommands_mut().filter(|inner| inner.get_name() != "help") {
            walk(inner, count);
        }
    }
    let mut count = 0;
    walk(&mut Cli::command(), &mut count);
    assert!(count > 30, "help has only {count} examples");
}

#[test]
fn the_readme_names_every_command() {
    let readme = include_str!("../../../README.md");
    for command in Cli::command().get_subcommands().filter(|command| command.get_name() != "help") {
        let name = command.get_name();
        assert!(readme.contains(&format!("`tenure {name}")), "{name}");
    }
}
