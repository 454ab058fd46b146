//! Takes out of a log record's texts what derivation needs, before the texts are dropped.
//!
//! **Invariant:** of a text nothing leaves this module but a number, an id of a known form, a program's name with a bare word,
//! or one of the words for errors.

use crate::prepare::conversation::Conversation;
use crate::prepare::scrub::Scrubber;
use crate::prepare::wire::{Pair, WireError, any_text};
use schemas::event::EventKind;
use schemas::failure;
use serde::Deserialize;

/// Longest shape of a command, in bytes.
const SHAPE_BYTES_MAX: usize = 64;
/// The shape of a command that is too long or of no known form.
const OTHER: &str = "other";
/// Longest id of an agent, in bytes.
const AGENT_BYTES_MAX: usize = 128;
/// How many shells within shells are looked into for the command itself.
const SHELLS_MAX: usize = 3;

/// The tools that run a command.
const COMMAND_TOOLS: [&str; 5] = [
    "exec_command",
    "shell",
    "shell_command",
    "local_shell",
    "container.exec",
];
/// The tool that starts another agent.
const SPAWN_TOOL: &str = "spawn_agent";

/// What was found in the texts of one record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub exit_code: Option<i64>,
    pub spawned_agent: Option<String>,
    pub command_shape: Option<String>,
    /// The kind of error that the message tells of: one of the words of [`failure`].
    pub error: Option<&'static str>,
}

/// The attributes of a log record that facts and routing read, gathered while it is walked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen<'a> {
    event: Option<&'a str>,
    tool: Option<&'a str>,
    arguments: Option<&'a str>,
    output: Option<&'a str>,
    /// The error message: the inner value is none where the message is no text.
    error: Option<Option<&'a str>>,
    conversation: Conversation<'a>,
}

impl<'a> Seen<'a> {
    /// Notes the next attribute of the record.
    #[inline]
    pub fn see(&mut self, pair: &Pair<'a>) -> Result<(), WireError> {
        let slot = match pair.key {
            b"event.name" => &mut self.event,
            b"tool_name" => &mut self.tool,
            b"arguments" => &mut self.arguments,
            b"output" => &mut self.output,
            b"error.message" => self.error.insert(None),
            key => match self.conversation.slot(key) {
                Some(slot) => slot,
                None => return Ok(()),
            },
        };
        *slot = pair.value.map_or(Ok(None), any_text)?;
        Ok(())
    }

    /// The id that the record is routed by, if it names one.
    pub fn conversation(&self) -> Option<&'a str> {
        self.conversation.named()
    }

    /// The facts of the record. All are absent where it is neither a tool result nor an event with an error message.
    pub fn facts(&self) -> Facts {
        let Self {
            event,
            tool,
            arguments,
            output,
            error,
            ..
        } = *self;
        if event != Some(EventKind::ToolResult.def().name) {
            let error = error.and_then(|message| failure::word(EventKind::by_name(event?), message));
            return Facts {
                error,
                ..Facts::default()
            };
        }
        let runs_commands = tool.is_some_and(|tool| COMMAND_TOOLS.contains(&tool));
        Facts {
            exit_code: output.and_then(|output| exit_code(output, runs_commands)),
            spawned_agent: output
                .filter(|_| tool == Some(SPAWN_TOOL))
                .and_then(spawned_agent),
            command_shape: arguments.filter(|_| runs_commands).map(command_shape),
            error: None,
        }
    }
}

/// The exit code, read from the lines that Codex puts before what the command itself wrote.
fn exit_code(output: &str, runs_commands: bool) -> Option<i64> {
    let mut lines = output.lines().take_while(|line| *line != "Output:");
    let first = lines.next()?;
    let stated = std::iter::once(first)
        .chain(lines)
        .find_map(|line| line.strip_prefix("Process exited with code "));
    let code = match stated {
        Some(code) => code,
        None if runs_commands => first.strip_prefix("Exit code: ")?,
        None => return None,
    };
    code.trim_end().parse::<i32>().ok().map(i64::from)
}

/// The id of the agent that a tool started, if the tool's output has one of a known form.
fn spawned_agent(output: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Spawned {
        agent_id: String,
    }
    let id = serde_json::from_str::<Spawned>(output).ok()?.agent_id;
    let is_id = (1..=AGENT_BYTES_MAX).contains(&id.len())
        && id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    (is_id && is_no_secret(&id)).then_some(id)
}

/// Whether the scrubber finds no secret in a text. A secret that is run as a program, or used as the id of an agent, must not
/// become a fact.
fn is_no_secret(text: &str) -> bool {
    Scrubber::shared().scrub(text).is_none()
}

/// A command as tools take it: one line for a shell, or words.
#[derive(Deserialize)]
#[serde(untagged)]
enum Command {
    Line(String),
    Words(Vec<String>),
}

#[derive(Deserialize)]
struct Arguments {
    #[serde(alias = "command")]
    cmd: Command,
}

/// The shape of the command in a tool's arguments: its program, and its first argument if that is a bare word.
fn command_shape(arguments: &str) -> String {
    let shape = match serde_json::from_str::<Arguments>(arguments) {
        Ok(Arguments {
            cmd: Command::Line(line),
        }) => shape_of_line(&line, SHELLS_MAX),
        Ok(Arguments {
            cmd: Command::Words(words),
        }) => {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            shape_of_words(&words)
        }
        Err(_) => None,
    };
    shape
        .filter(|shape| shape.len() <= SHAPE_BYTES_MAX && is_no_secret(shape))
        .unwrap_or_else(|| OTHER.to_owned())
}

fn shape_of_words(words: &[&str]) -> Option<String> {
    let program = program(words.first()?)?;
    if is_shell(program)
        && let [_, flag, line, ..] = words
        && is_command_flag(flag)
    {
        return shape_of_line(line, SHELLS_MAX);
    }
    Some(shape(program, words.get(1).copied()))
}

fn shape_of_line(line: &str, shells_left: usize) -> Option<String> {
    let mut rest = line.trim_start();
    let word = loop {
        let (word, after) = next_word(rest);
        if !is_assignment(word) {
            rest = after;
            break word;
        }
        rest = after.trim_start();
    };
    let program = program(word)?;
    let rest = rest.trim_start_matches([' ', '\t']);
    let (argument, after) = next_word(rest);
    if is_shell(program) && is_command_flag(argument) {
        let inner = unquoted(after.trim_start_matches([' ', '\t']))?;
        return if shells_left == 0 {
            None
        } else {
            shape_of_line(inner, shells_left - 1)
        };
    }
    Some(shape(program, Some(argument)))
}

/// Splits a line after its first word, which ends at white space or at what ends a command.
fn next_word(line: &str) -> (&str, &str) {
    let end = line
        .find(|c: char| c.is_whitespace() || ";|&<>()".contains(c))
        .unwrap_or(line.len());
    line.split_at(end)
}

/// The content of a quoted text; none without quotes, since a shell's command in any other form is not looked into.
fn unquoted(text: &str) -> Option<&str> {
    let quote = text.chars().next().filter(|c| ['"', '\''].contains(c))?;
    let inner = &text[1..];
    Some(&inner[..inner.find(quote)?])
}

/// The name of a program: the last part of its path, if the whole path has plain characters only.
fn program(word: &str) -> Option<&str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-/".contains(&byte);
    let name = word.rsplit('/').next()?;
    let starts_well = name
        .bytes()
        .next()
        .is_some_and(|byte| byte.is_ascii_alphanumeric());
    (starts_well && word.bytes().all(plain)).then_some(name)
}

/// Whether a word is `NAME=value` without quotes or expansions. Such words before a command are skipped and never kept.
fn is_assignment(word: &str) -> bool {
    let Some((name, value)) = word.split_once('=') else {
        return false;
    };
    let named = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    named && !value.contains(['"', '\'', '`', '$', '\\'])
}

fn is_shell(program: &str) -> bool {
    ["sh", "bash", "zsh", "dash", "ksh"].contains(&program)
}

/// Whether a word is `-c`, the flag that a shell takes a command after, alone or after other flags as in `-lc`.
fn is_command_flag(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|flags| {
        flags.ends_with('c') && flags.len() <= 4 && flags.bytes().all(|flag| flag.is_ascii_lowercase())
    })
}

fn shape(program: &str, argument: Option<&str>) -> String {
    match argument {
        Some(word) if is_bare(word) => format!("{program} {word}"),
        _ => program.to_owned(),
    }
}

/// Whether a word consists of lower-case letters, with hyphens between them.
fn is_bare(word: &str) -> bool {
    word.split('-')
        .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_of_commands() {
        for (arguments, shape) in [
            (r#"{"cmd": "echo hello-from-tool"}"#, "echo hello-from-tool"),
            (
                r#"{"cmd": "echo about-to-fail; ls /nonexistent; exit 3"}"#,
                "echo about-to-fail",
            ),
            (
                r#"{"cmd":"git status --short","workdir":"/home/u"}"#,
                "git status",
            ),
            (r#"{"cmd":"/usr/bin/git commit -m secret"}"#, "git commit"),
            (r#"{"cmd":"cd /home/alice/project && ls"}"#, "cd"),
            (r#"{"cmd":"TOKEN=sk-123 cargo test"}"#, "cargo test"),
            (r#"{"cmd":"TOKEN=\"sk 123\" cargo test"}"#, "other"),
            (r#"{"cmd":"TOKEN=sk-123"}"#, "other"),
            (r#"{"cmd":"curl -H 'Authorization: x'"}"#, "curl"),
            (r#"{"cmd":"ls&&pwd"}"#, "ls"),
            (r#"{"cmd":"git status\nrm -rf /"}"#, "git status"),
            (r#"{"cmd":"git\nstatus"}"#, "git"),
            (r#"{"cmd":"git status$(cat token)"}"#, "git"),
            (r#"{"cmd":"git Status"}"#, "git"),
            (r#"{"cmd":"$SECRET run"}"#, "other"),
            (r#"{"cmd":"`cat token`"}"#, "other"),
            (r#"{"cmd":"bash -lc \"git push origin\""}"#, "git push"),
            (r#"{"cmd":"bash -lc 'FOO=1 npm ci'"}"#, "npm ci"),
            (r#"{"cmd":"bash -c"}"#, "other"),
            (r#"{"cmd":"bash run.sh"}"#, "bash"),
            (
                r#"{"command":["bash","-lc","cargo build --release"]}"#,
                "cargo build",
            ),
            (r#"{"command":["/bin/ls","secret words"]}"#, "ls"),
            (r#"{"command":["rg","needle"]}"#, "rg needle"),
            (r#"{"command":[]}"#, "other"),
            (r#"{"cmd":""}"#, "other"),
            (r#"{"cmd":7}"#, "other"),
            (r#"{"text":"hi"}"#, "other"),
            ("{not json", "other"),
        ] {
            assert_eq!(command_shape(arguments), shape, "{arguments}");
        }
        let token = format!("gh{}_{}", "p", "a8Kd93hFq0Zx7Lw2Nb5Vt6Yc1Me4Rj8Su3Pg");
        assert_eq!(command_shape(&format!(r#"{{"cmd":"{token} --help"}}"#)), "other");
        let long = format!(r#"{{"cmd":"{} status"}}"#, "g".repeat(60));
        assert_eq!(command_shape(&long), "other");
    }

    #[test]
    fn exit_codes_come_from_the_head_only() {
        let head = "Chunk ID: 0c19cd\nWall time: 0.05 seconds\n";
        for (output, runs_commands, code) in [
            (
                format!("{head}Process exited with code 3\nOriginal token count: 21\nOutput:\nx\n"),
                true,
                Some(3),
            ),
            (
                format!("{head}Process exited with code -1\nOutput:\n"),
                true,
                Some(-1),
            ),
            (format!("{head}Output:\nProcess exited with code 9\n"), true, None),
            (
                format!("{head}Process exited with code lots\nOutput:\n"),
                true,
                None,
            ),
            (
                "Exit code: 2\nWall time: 0 seconds\nOutput:\n".to_owned(),
                true,
                Some(2),
            ),
            (
                "Exit code: 0\nWall time: 0 seconds\nOutput:\n".to_owned(),
                false,
                None,
            ),
            (String::new(), true, None),
        ] {
            assert_eq!(exit_code(&output, runs_commands), code, "{output}");
        }
    }

    #[test]
    fn only_an_id_is_an_agent() {
        let id = "01a20456-beb6-7bd3-a0c9-8b370f76554d";
        assert_eq!(
            spawned_agent(&format!(r#"{{"agent_id":"{id}","nickname":"Ptolemy"}}"#)).as_deref(),
            Some(id)
        );
        for output in [
            r#"{"task_name":"/root/child_one"}"#,
            r#"{"agent_id":"a text with spaces"}"#,
            r#"{"agent_id":""}"#,
            "failed",
        ] {
            assert_eq!(spawned_agent(output), None, "{output}");
        }
    }
}
