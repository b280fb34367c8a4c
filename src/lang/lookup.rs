//! `lookup('env'|'file'|'pipe', …)`: what templates may read of the controller.

use std::collections::HashMap;
use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::template::{Form, LookupEnvironment, stays_inside, unreadable};
use super::value;

/// Longest time that a command may take.
const PIPE_TIME: Duration = Duration::from_secs(60);
/// Largest file or output, in bytes.
const SIZE_LIMIT: u64 = 16 << 20;

/// The function `lookup`.
pub(super) struct Lookup {
    environment: LookupEnvironment,
    untrusted: bool,
    /// What commands printed: each runs once, so that all hosts and both passes see the same.
    outputs: Mutex<HashMap<String, Arc<str>>>,
}

impl Lookup {
    pub(super) fn new(environment: LookupEnvironment, untrusted: bool) -> Self {
        Self { environment, untrusted, outputs: Mutex::new(HashMap::new()) }
    }

    /// Answers a call in the template named `caller`. Several terms give a list with
    /// `wantlist=true`, and otherwise a text joined with commas, as in Ansible.
    fn answer(
        &self,
        caller: &str,
        plugin: &str,
        terms: &[Value],
        options: &Kwargs,
    ) -> Result<Value, Error> {
        let default: Option<Value> = options.get("default")?;
        let list = options.get::<Option<bool>>("wantlist")?.unwrap_or(false);
        let strip = options.get::<Option<bool>>("rstrip")?.unwrap_or(true);
        options.assert_all_used()?;
        let mut results = Vec::with_capacity(terms.len());
        for term in terms {
            let Some(text) = term.as_str() else {
                let message = format!("`lookup` takes strings, not {}", value::describe(term));
                return Err(refusal(message));
            };
            results.push(match plugin {
                "env" => self.variable(text, default.as_ref())?,
                "file" => Value::from(self.file(caller, text, strip)?),
                "pipe" => Value::from(self.pipe(text)?),
                _ => {
                    let message = format!("there is no lookup `{plugin}`, only env, file and pipe");
                    return Err(refusal(message));
                }
            });
        }
        Ok(match results.as_slice() {
            _ if list => Value::from(results),
            [one] => one.clone(),
            several => {
                let texts: Vec<String> = several.iter().map(Value::to_string).collect();
                Value::from(texts.join(","))
            }
        })
    }

    fn variable(&self, name: &str, default: Option<&Value>) -> Result<Value, Error> {
        self.trusted("env")?;
        let found = self.environment.variables.get(name).map(Value::from);
        Ok(found.or_else(|| default.cloned()).unwrap_or_else(|| Value::from("")))
    }

    fn file(&self, caller: &str, name: &str, strip: bool) -> Result<String, Error> {
        let leads = Path::new(name).is_absolute()
            || Path::new(name).components().any(|part| part == Component::ParentDir);
        if leads && value::outside_used() {
            let message = format!(
                "`lookup('file', '{name}')` leaves its folder beside facts or items of loops, which are \
                 data from outside; read it in a variable of its own"
            );
            return Err(refusal(message));
        }
        let path = self.find(caller, name).ok_or_else(|| {
            unreadable(Path::new(name), "it is neither beside the template nor in the project")
        })?;
        if self.untrusted && !stays_inside(&path, &self.environment.project) {
            let message = format!(
                "`lookup('file', '{name}')` leaves the project, which `--untrusted` forbids"
            );
            return Err(refusal(message));
        }
        let file =
            std::fs::File::open(&path).map_err(|error| unreadable(&path, &error.to_string()))?;
        let text = read_bounded(file).map_err(|why| unreadable(&path, &why))?;
        Ok(if strip { text.trim_end().to_owned() } else { text })
    }

    /// Beside the template file that asks, in the `files` beside its folder, then in the project.
    fn find(&self, caller: &str, name: &str) -> Option<PathBuf> {
        let project = &self.environment.project;
        let mut folders = Vec::new();
        if let Some((Form::File, path)) = Form::of(caller)
            && let Some(folder) = Path::new(path).parent()
        {
            folders.push(folder.to_owned());
            folders.extend(folder.parent().map(|above| above.join("files")));
        }
        folders.extend([
            project.join("files"),
            project.join("states/files"),
            project.join("states"),
            project.clone(),
        ]);
        folders.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    fn pipe(&self, command: &str) -> Result<String, Error> {
        self.trusted("pipe")?;
        if value::outside_used() {
            let message = "facts and items of loops must not reach `lookup('pipe', …)`: they are \
                           data from outside, and would be run here";
            return Err(refusal(String::from(message)));
        }
        // The lock is held while it runs: the others want the same output.
        let mut outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = outputs.get(command) {
            return Ok(known.to_string());
        }
        let output = self.run(command).map_err(|why| {
            refusal(format!("the command of `lookup('pipe', …)` {why}: `{command}`"))
        })?;
        let output = output.trim_end().to_owned();
        outputs.insert(command.to_owned(), Arc::from(output.as_str()));
        Ok(output)
    }

    fn run(&self, command: &str) -> Result<String, String> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .env_clear()
            .envs(&self.environment.variables)
            .current_dir(&self.environment.project)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("could not be started ({error})"))?;
        let (sender, output) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            // Nobody may be waiting any more: then the output is of no use.
            std::thread::spawn(move || drop(sender.send(read_bounded(stdout))));
        }
        let status = wait(&mut child)?;
        if !status.success() {
            return Err(format!("failed ({status})"));
        }
        // What it left running in the background may hold the output open.
        output
            .recv_timeout(PIPE_TIME)
            .unwrap_or_else(|_| Err(String::from("did not close its output")))
    }

    fn trusted(&self, plugin: &str) -> Result<(), Error> {
        if self.untrusted {
            let message = format!("`lookup('{plugin}', …)` is not evaluated with `--untrusted`");
            return Err(refusal(message));
        }
        Ok(())
    }
}

impl fmt::Debug for Lookup {
    /// Templates can print it: nothing of the environment is shown.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("lookup")
    }
}

impl Object for Lookup {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let (plugin, terms, options): (String, Rest<Value>, Kwargs) = from_args(args)?;
        self.answer(state.name(), &plugin, &terms, &options)
    }
}

fn wait(child: &mut Child) -> Result<std::process::ExitStatus, String> {
    let end = Instant::now() + PIPE_TIME;
    let mut pause = Duration::from_millis(1);
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < end => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            Ok(None) => {
                // It may have ended just now; either way it is reaped.
                let _ = child.kill();
                let _ = child.wait();
                return Err(format!("took longer than {} seconds", PIPE_TIME.as_secs()));
            }
            Err(error) => return Err(format!("could not be waited for ({error})")),
        }
    }
}

fn read_bounded(source: impl Read) -> Result<String, String> {
    let mut bytes = Vec::new();
    source.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > SIZE_LIMIT {
        return Err(format!("is larger than {} MiB", SIZE_LIMIT >> 20));
    }
    String::from_utf8(bytes).map_err(|_| String::from("is not UTF-8 text"))
}

fn refusal(message: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}
