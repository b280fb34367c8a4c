use std::time::Duration;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::lines::expression;
use super::{Argument, Claim, Footprint, Key, Kind, PlanError, Planning, Shape, Spec};
use crate::change::{Act, Change, HttpAnswer, Wait, WaitFor as Until};
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
    status: Vec<u16>,
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    header: IndexMap<String, String>,
    #[serde(default)]
    command: Option<String>,
    /// In milliseconds.
    #[serde(default = "five_minutes")]
    within: u64,
    /// In milliseconds.
    #[serde(default = "one_second")]
    every: u64,
    #[serde(default = "once")]
    successes: u32,
    /// In milliseconds.
    #[serde(default, rename = "for")]
    soak: u64,
}

fn once() -> u32 {
    1
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
        Argument::optional(
            "status",
            Shape::List(&Shape::Integer),
            "With `http`: the answer has one of these",
        ),
        Argument::optional(
            "body",
            Shape::Text,
            "With `http`: a regular expression that the answer's body matches somewhere",
        ),
        Argument::optional(
            "header",
            Shape::Mapping(&Shape::Text),
            "With `http`: names of headers, with a regular expression for the value of each",
        ),
        Argument::optional("command", Shape::Text, "A shell line that succeeds"),
        Argument::optional("within", Shape::Duration, "How long at most").with_default("300s"),
        Argument::optional("every", Shape::Duration, "The pause between two looks")
            .with_default("1s"),
        Argument::optional(
            "successes",
            Shape::Integer,
            "So many looks in a row have to find that it holds",
        )
        .with_default("1"),
        Argument::optional(
            "for",
            Shape::Duration,
            "From then on it has to go on holding for so long; not at all",
        ),
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
                Ok(Until::Http(HttpAnswer {
                    address: http.clone(),
                    status: self.status.clone(),
                    body: self.body.clone(),
                    header: self.header.clone().into_iter().collect(),
                }))
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
    fn takes(&self) -> Duration {
        Duration::from_millis(self.within.saturating_add(self.soak))
    }

    fn footprint(&self) -> Footprint {
        // What it waits for may be the doing of anything before it.
        Footprint::default().reading(Claim::World)
    }

    fn check_arguments(&self) -> Result<(), PlanError> {
        let asks_more = !self.status.is_empty() || self.body.is_some() || !self.header.is_empty();
        if asks_more && self.http.is_none() {
            return Err(PlanError::new("`status`, `body` and `header` are about an `http` answer"));
        }
        if let Some(status) = self.status.iter().find(|status| !(100..600).contains(*status)) {
            return Err(PlanError::new(format!("`status`: {status} is not one of HTTP")));
        }
        if let Some(body) = &self.body {
            expression("body", body)?;
        }
        for pattern in self.header.values() {
            expression("header", pattern)?;
        }
        if self.successes == 0 {
            return Err(PlanError::new("`successes` is at least 1"));
        }
        self.until().map(drop)
    }

    /// Only a path is looked at here: whether something answers is seen when it is waited for,
    /// and a wait that is over at once is none. So it never depends on what is pending either.
    fn plan(&self, planning: &mut Planning<'_>) -> Result<(), PlanError> {
        let until = self.until()?;
        if let Until::Path(path) = &until
            && self.soak == 0
            && planning.world().entry(path)?.value != Entry::Absent
        {
            return Ok(());
        }
        let Self { within, every, successes, soak, .. } = *self;
        let wait = Wait { until, within, every, successes, soak };
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
