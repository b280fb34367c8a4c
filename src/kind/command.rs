use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Shape, Spec};
use crate::change::{Act, Change, Command as Planned, Run};
use crate::resource::ResourceId;
use crate::world::{Answer, Entry, Opaque, Probe, RemotePath};

/// How long a command that only looks may take while it is planned.
const READ_ONLY_LIMIT: Duration = Duration::from_secs(600);

/// How many of the last lines of a failed command's output are shown.
const SHOWN_LINES: usize = 10;

/// A command.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    #[serde(default)]
    line: Option<String>,
    #[serde(default)]
    argv: Option<Vec<String>>,
    #[serde(default)]
    creates: Option<RemotePath>,
    #[serde(default)]
    removes: Option<RemotePath>,
    #[serde(default)]
    cwd: Option<RemotePath>,
    #[serde(default)]
    stdin: Option<String>,
    #[serde(default)]
    undo: Option<String>,
    #[serde(default)]
    touches: Option<Vec<RemotePath>>,
    #[serde(default)]
    read_only: bool,
    #[serde(default = "zero")]
    ok_codes: Vec<i32>,
}

fn zero() -> Vec<i32> {
    vec![0]
}

/// What `command` is called and takes.
pub static SPEC: Spec = Spec {
    name: "command",
    summary: "Runs a command: each time, unless a guard says that there is nothing to do",
    key: Key {
        name: "line",
        shape: Shape::Text,
        summary: "A line for `/bin/sh`; beside `argv`, only a name",
        identity: &[],
    },
    arguments: &[
        Argument::optional(
            "argv",
            Shape::List(&Shape::Text),
            "A program and its arguments, run without a shell",
        ),
        Argument::optional("creates", Shape::Path, "Nothing is run if something stands there"),
        Argument::optional("removes", Shape::Path, "Nothing is run if nothing stands there"),
        Argument::optional("cwd", Shape::Path, "The working directory; `/`"),
        Argument::optional(
            "stdin",
            Shape::Text,
            "Fed to standard input and never shown: the way for secrets",
        )
        .secret(),
        Argument::optional("undo", Shape::Text, "A shell line that takes it back"),
        Argument::optional(
            "touches",
            Shape::List(&Shape::Path),
            "All paths at and below which it may change anything; if not given, it may change \
             anything at all and everything keeps its order with it",
        ),
        Argument::optional(
            "read_only",
            Shape::Boolean,
            "Whether it is a check: run in dry runs too, never a change, its failure an error",
        )
        .with_default("false"),
        Argument::optional(
            "ok_codes",
            Shape::List(&Shape::Integer),
            "Exit codes that count as success",
        )
        .with_default("0"),
    ],
    exclusive: &[],
    example: "\
- command: make install
  cwd: /usr/local/src/tool
  creates: /usr/local/bin/tool
  touches: [/usr/local]
",
};

impl Command {
    fn run(&self) -> Result<Run, PlanError> {
        match (&self.argv, &self.line) {
            (Some(argv), _) if argv.is_empty() => Err(PlanError::new("`argv` is empty")),
            (Some(argv), _) => Ok(Run::Program(argv.clone())),
            (None, Some(line)) if line.trim().is_empty() => {
                Err(PlanError::new("the command is empty"))
            }
            (None, Some(line)) => Ok(Run::Shell(line.clone())),
            (None, None) => Err(PlanError::new("no command is given")),
        }
    }

    /// Whether `creates` or `removes` says that there is nothing to do. What a pending change may
    /// bring makes the plan wait.
    fn is_done(&self, planning: &mut Planning<'_>) -> Result<bool, PlanError> {
        if let Some(path) = &self.creates
            && planning.entry(path)? != Entry::Absent
        {
            return Ok(true);
        }
        if let Some(path) = &self.removes
            && planning.entry(path)? == Entry::Absent
        {
            let predicted = planning.world().entry(path)?;
            return Ok(predicted.by.is_some() || predicted.tainted_by.is_empty());
        }
        Ok(false)
    }

    /// Runs it as a check, unless changes are pending that it may be about.
    fn check(&self, run: &Run, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let pending = pending(planning);
        if !pending.is_empty() {
            planning.because("it is a check, and what it looks at is about to change");
            planning.wait_for(pending);
            return Ok(());
        }
        if self.stdin.is_some() {
            return Err(PlanError::new("a command with `read_only` cannot be fed by `stdin`")
                .help("read from a file, or hand it over in `environment`"));
        }
        let argv = match run {
            Run::Shell(line) => vec![String::from("/bin/sh"), String::from("-c"), line.clone()],
            Run::Program(argv) => argv.clone(),
        };
        if !planning.may_look() {
            return Ok(());
        }
        let answer = planning.world().system().probe(&Probe {
            argv,
            user: Some(planning.actor.user.clone()),
            cwd: self.cwd.clone(),
            environment: planning.environment.clone(),
            timeout: READ_ONLY_LIMIT,
        })?;
        if self.ok_codes.contains(&answer.code) {
            return Ok(());
        }
        Err(PlanError::new(failure(run, &answer)))
    }
}

impl Kind for Command {
    fn footprint(&self) -> Footprint {
        let footprint = Footprint::default();
        if self.read_only {
            return footprint.reading(Claim::World);
        }
        let Some(touches) = &self.touches else {
            return footprint.reading(Claim::World).writing(Claim::World);
        };
        // Its program comes from a package or from a path that it names.
        let looked_at = [&self.creates, &self.removes, &self.cwd];
        let read = looked_at.into_iter().flatten().cloned().map(Claim::Path);
        let footprint = read.fold(footprint.reading(Claim::Packages), Footprint::reading);
        touches.iter().cloned().map(Claim::Subtree).fold(footprint, Footprint::writing)
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.run().map(drop)
    }

    fn is_irreversible(&self) -> bool {
        self.undo.is_none() && !self.read_only
    }

    fn private_part(&self) -> Option<&'static str> {
        self.stdin.as_ref().map(|_| "the `stdin` of a command")
    }

    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let run = self.run()?;
        if self.is_done(planning)? {
            return Ok(());
        }
        if let Some(cwd) = &self.cwd {
            planning.needs_folder(cwd)?;
        }
        if self.read_only {
            return self.check(&run, planning);
        }
        planning.push(Change::Act(Act::Run(Planned {
            run,
            cwd: self.cwd.clone(),
            stdin: self.stdin.clone(),
            ok_codes: self.ok_codes.clone(),
            undo: self.undo.clone(),
        })));
        Ok(())
    }

    fn opaque(&self) -> Option<Opaque> {
        match &self.touches {
            _ if self.read_only => None,
            Some(touches) => Some(Opaque::Paths(touches.clone())),
            None => Some(Opaque::Everything),
        }
    }
}

/// The changes that are planned before it, as far as they are known to be pending.
fn pending(planning: &Planning<'_>) -> Vec<ResourceId> {
    planning.world().pending()
}

/// Says how a check failed, with the end of what it wrote.
fn failure(run: &Run, answer: &Answer) -> String {
    let command = match run {
        Run::Shell(line) => line.clone(),
        Run::Program(argv) => argv.join(" "),
    };
    let mut message = format!("`{command}` ended with exit code {}", answer.code);
    let lines: Vec<&str> = answer.output.lines().chain(answer.error.lines()).collect();
    let first = lines.len().saturating_sub(SHOWN_LINES);
    for line in lines.iter().skip(first) {
        message.push_str("\n  ");
        message
            .extend(line.chars().filter(|character| !character.is_control() || *character == '\t'));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_check_shows_the_end_of_its_output() {
        let output: String = (0..20).map(|number| format!("line {number}\n")).collect();
        let answer = Answer { code: 3, output, error: String::from("\u{1b}[31mbad") };
        let message = failure(&Run::Shell(String::from("check it")), &answer);
        let lines: Vec<&str> = message.lines().collect();
        assert_eq!(lines.first(), Some(&"`check it` ended with exit code 3"));
        assert_eq!(lines.get(1), Some(&"  line 11"));
        assert_eq!(lines.last(), Some(&"  [31mbad"));
        assert_eq!(lines.len(), SHOWN_LINES + 1);
    }
}
