use serde::{Deserialize, Serialize};

use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Shape, Spec};
use crate::change::{Act, Change, Wait, WaitFor as Until};
use crate::world::{Entry, RemotePath};

/// A condition that has to hold before anything after it happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WaitFor {
    name: String,
    #[serde(default)]
    port: Option<String>,
    #[serde(default)]
    path: Option<RemotePath>,
    #[serde(default)]
    http: Option<String>,
    #[serde(default)]
    command: Option<String>,
    /// In milliseconds.
    #[serde(default = "five_minutes")]
    within: u64,
    /// In milliseconds.
    #[serde(default = "one_second")]
    every: u64,
}

fn five_minutes() -> u64 {
    300_000
}

fn one_second() -> u64 {
    1_000
}

/// What `wait_for` is called and takes.
pub static SPEC: Spec = Spec {
    name: "wait_for",
    summary: "Waits until something holds; never a change",
    key: Key {
        name: "name",
        shape: Shape::Text,
        summary: "What is waited for, in words",
        identity: &[],
    },
    arguments: &[
        Argument::optional(
            "port",
            Shape::Text,
            "A TCP port that accepts connections: `PORT` on 127.0.0.1, or `HOST:PORT`",
        ),
        Argument::optional("path", Shape::Path, "A path at which something stands"),
        Argument::optional(
            "http",
            Shape::Text,
            "An `http://` address that answers with a status below 400",
        ),
        Argument::optional("command", Shape::Text, "A shell line that succeeds"),
        Argument::optional("within", Shape::Duration, "How long at most; 300s"),
        Argument::optional("every", Shape::Duration, "The pause between two looks; 1s"),
    ],
    exclusive: &[&["port", "path", "http", "command"]],
    example: "\
- wait_for: the application
  port: 8000
  within: 30s
",
};

impl WaitFor {
    fn until(&self) -> Result<Until, PlanError> {
        match (&self.port, &self.path, &self.http, &self.command) {
            (Some(port), None, None, None) => address(port).map(Until::Port),
            (None, Some(path), None, None) => Ok(Until::Path(path.clone())),
            (None, None, Some(http), None) if http.starts_with("http://") => {
                Ok(Until::Http(http.clone()))
            }
            (None, None, Some(http), None) => {
                Err(PlanError::new(format!("{http} is not an `http://` address"))
                    .help("wait with `command` and a client of the host for others"))
            }
            (None, None, None, Some(command)) => Ok(Until::Command(command.clone())),
            _ => Err(PlanError::new(format!("it is not said what `{}` waits for", self.name))
                .help("give one of `port`, `path`, `http` and `command`")),
        }
    }
}

/// A port as it is written, as `HOST:PORT`.
fn address(port: &str) -> Result<String, PlanError> {
    let (host, number) = port.rsplit_once(':').unwrap_or(("127.0.0.1", port));
    let problem = || PlanError::new(format!("`{port}` is neither a port nor `HOST:PORT`"));
    match number.parse::<u16>() {
        Ok(number) if number != 0 && !host.is_empty() => Ok(format!("{host}:{number}")),
        _ => Err(problem()),
    }
}

impl Kind for WaitFor {
    fn footprint(&self) -> Footprint {
        // What it waits for may be the doing of anything before it.
        Footprint::default().reading(Claim::World)
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        self.until().map(drop)
    }

    /// Only a path is looked at here: whether something answers is seen when it is waited for,
    /// and a wait that is over at once is none. So it never depends on what is pending either.
    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let until = self.until()?;
        if let Until::Path(path) = &until
            && planning.world().entry(path)?.value != Entry::Absent
        {
            return Ok(());
        }
        let wait = Wait { until, within: self.within, every: self.every };
        planning.push(Change::Act(Act::Wait(wait)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn ports_are_read() {
        for (written, wanted) in [
            ("8000", Some("127.0.0.1:8000")),
            ("db.example.com:5432", Some("db.example.com:5432")),
            ("[::1]:80", Some("[::1]:80")),
            ("0", None),
            ("70000", None),
            (":80", None),
            ("http", None),
        ] {
            assert_eq!(address(written).ok().as_deref(), wanted, "{written}");
        }
    }
}
