//! `lookup(…)` and `query(…)`: what templates may read of the controller, and lists made of values.

mod lists;
mod tables;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use minijinja::value::{Kwargs, Object, ObjectRepr, Rest, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};

use super::scope::with_line_ends_of;
use super::template::{Form, LookupEnvironment, TemplateFiles, stays_inside, unreadable};
use super::value;

/// Longest time that a command may take.
const PIPE_TIME: Duration = Duration::from_secs(60);
/// What parts the names of files in a text, and those of folders.
const FILE_ENDS: &[char] = &[',', ';'];
const FOLDER_ENDS: &[char] = &[',', ';', ':'];
/// Largest file or output, in bytes.
const SIZE_LIMIT: u64 = 16 << 20;

/// All lookups.
pub(super) const KNOWN: [&str; 20] = [
    "csvfile",
    "dict",
    "env",
    "file",
    "fileglob",
    "first_found",
    "indexed_items",
    "ini",
    "items",
    "lines",
    "list",
    "nested",
    "pipe",
    "sequence",
    "subelements",
    "template",
    "together",
    "unvault",
    "varnames",
    "vars",
];

/// The function `lookup`.
pub(super) struct Lookup {
    environment: LookupEnvironment,
    untrusted: bool,
    /// Reads template files.
    templates: TemplateFiles,
    /// What commands printed: each runs once, so that all hosts and both passes see the same.
    outputs: Mutex<HashMap<String, Arc<str>>>,
}

impl Lookup {
    pub(super) fn new(
        environment: LookupEnvironment,
        untrusted: bool,
        templates: TemplateFiles,
    ) -> Self {
        Self { environment, untrusted, templates, outputs: Mutex::new(HashMap::new()) }
    }

    /// Answers a call. Several results give a list if one is `wanted` or if they are no texts, and
    /// otherwise a text joined with commas, as in Ansible.
    fn answer(
        &self,
        state: &State<'_, '_>,
        plugin: &str,
        terms: &[Value],
        options: &Kwargs,
        wanted: bool,
    ) -> Result<Value, Error> {
        let list = options.get::<Option<bool>>("wantlist")?.unwrap_or(wanted);
        let ignored = match options.get::<Option<&str>>("errors")?.unwrap_or("strict") {
            "strict" => false,
            "ignore" => true,
            other => return Err(refusal(format!("`lookup` knows no `errors='{other}'`"))),
        };
        let plugin = plugin.strip_prefix("ansible.builtin.").unwrap_or(plugin);
        let results = match self.results(state, plugin, terms, options) {
            // A stranger does not say which refusals count.
            Err(_) if ignored && !self.untrusted => {
                let none: Vec<Value> = Vec::new();
                return Ok(if list { Value::from(none) } else { Value::from(()) });
            }
            results => results?,
        };
        options.assert_all_used()?;
        Ok(match results.as_slice() {
            [] => Value::from(results),
            _ if list => Value::from(results),
            [one] => one.clone(),
            several if several.iter().all(|one| one.as_str().is_some()) => {
                let texts: Vec<String> = several.iter().map(Value::to_string).collect();
                Value::from(texts.join(","))
            }
            _ => Value::from(results),
        })
    }

    fn results(
        &self,
        state: &State<'_, '_>,
        plugin: &str,
        terms: &[Value],
        options: &Kwargs,
    ) -> Result<Vec<Value>, Error> {
        let caller = state.name();
        match plugin {
            "env" => {
                let default = default_of(options)?;
                texts(terms)?.map(|name| self.variable(name, default.as_ref())).collect()
            }
            "file" => {
                let end = options.get::<Option<bool>>("rstrip")?.unwrap_or(true);
                let start = options.get::<Option<bool>>("lstrip")?.unwrap_or(false);
                let file = |name| {
                    let text = self.file(caller, name, end)?;
                    Ok(Value::from(if start { text.trim_start() } else { &text }))
                };
                texts(terms)?.map(file).collect()
            }
            "pipe" => texts(terms)?.map(|command| self.pipe(command).map(Value::from)).collect(),
            "lines" => {
                let mut lines = Vec::new();
                for command in texts(terms)? {
                    lines.extend(self.pipe(command)?.lines().map(Value::from));
                }
                Ok(lines)
            }
            "vars" => {
                let default = default_of(options)?;
                let found = |name: &str| {
                    let value = state.lookup(name).filter(|value| !value.is_undefined());
                    let value = value.or_else(|| default.clone());
                    value.filter(|value| !value.is_undefined()).ok_or_else(|| {
                        refusal(format!("`lookup('vars', …)` found no variable `{name}`"))
                    })
                };
                texts(terms)?.map(found).collect()
            }
            "dict" => {
                let mut pairs = Vec::new();
                for term in terms {
                    for key in term.try_iter()?.checked() {
                        let key = key?;
                        let entry = term.get_item(&key)?;
                        pairs.push(Value::from_pairs([("key", key), ("value", entry)]));
                    }
                }
                Ok(pairs)
            }
            "list" => Ok(terms.to_vec()),
            "items" => flattened(terms),
            "indexed_items" => {
                let items = flattened(terms)?.into_iter().enumerate();
                Ok(items.map(|(index, item)| Value::from(vec![Value::from(index), item])).collect())
            }
            "together" => lists::together(terms),
            "nested" | "cartesian" => lists::nested(terms),
            "subelements" => lists::subelements(terms),
            "sequence" => lists::sequence(terms, options),
            "varnames" => variable_names(terms),
            "first_found" => self.first_found(caller, terms, options),
            "fileglob" => {
                let found: Result<Vec<_>, Error> =
                    texts(terms)?.map(|pattern| self.matching(caller, pattern)).collect();
                Ok(found?.concat().into_iter().map(Value::from).collect())
            }
            "unvault" => {
                texts(terms)?.map(|name| self.file(caller, name, false).map(Value::from)).collect()
            }
            "ini" => texts(terms)?.map(|term| self.ini(caller, term, options)).collect(),
            "csvfile" => {
                let found: Result<Vec<_>, Error> =
                    texts(terms)?.map(|term| self.csv(caller, term, options)).collect();
                Ok(found?.into_iter().flatten().collect())
            }
            "template" => {
                let given: Option<Value> = options.get("template_vars")?;
                let given = given.unwrap_or_else(|| Value::from_pairs([("", ""); 0]));
                texts(terms)?.map(|name| self.template(state, name, &given)).collect()
            }
            _ => {
                let known = KNOWN.join(", ");
                Err(refusal(format!("there is no lookup `{plugin}`, only {known}")))
            }
        }
    }

    /// The first of some files that is there.
    fn first_found(
        &self,
        caller: &str,
        terms: &[Value],
        options: &Kwargs,
    ) -> Result<Vec<Value>, Error> {
        let given = |name: &str| -> Result<Vec<Value>, Error> {
            let given: Option<Value> = options.get(name)?;
            Ok(given.into_iter().collect())
        };
        let folders = lists::names(&given("paths")?, FOLDER_ENDS)?;
        let mut skip = options.get::<Option<bool>>("skip")?.unwrap_or(false);
        let mut candidates = Vec::new();
        for term in flattened(terms)? {
            if term.kind() != ValueKind::Map {
                candidates.extend(lists::below(&folders, texts(&[term])?));
                continue;
            }
            for key in term.try_iter()?.checked() {
                let key = key?;
                if !matches!(key.as_str(), Some("files" | "paths" | "skip")) {
                    let message = "`lookup('first_found', …)` takes `files`, `paths` and `skip`";
                    return Err(refusal(format!("{message}, not `{key}`")));
                }
            }
            let entry = |name: &str| term.get_item(&Value::from(name));
            let folders = lists::names(&[entry("paths")?], FOLDER_ENDS)?;
            let files = lists::names(&[entry("files")?], FILE_ENDS)?;
            candidates.extend(lists::below(&folders, files.iter().map(String::as_str)));
            skip |= entry("skip")?.is_true();
        }
        let files = lists::names(&given("files")?, FILE_ENDS)?;
        candidates.extend(lists::below(&folders, files.iter().map(String::as_str)));
        for candidate in candidates {
            self.stays(&candidate)?;
            if let Some(path) = self.find(caller, &candidate)
                && (!self.untrusted || stays_inside(&path, &self.environment.project))
            {
                return Ok(vec![Value::from(path.to_string_lossy())]);
            }
        }
        if skip { Ok(Vec::new()) } else { Err(refusal(String::from("none of the files is there"))) }
    }

    /// The files of a folder whose names match a glob, by name.
    pub(super) fn matching(&self, caller: &str, pattern: &str) -> Result<Vec<String>, Error> {
        self.stays(pattern)?;
        let (folder, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
        let folder = if folder.is_empty() && pattern.starts_with('/') { "/" } else { folder };
        let glob = globset::GlobBuilder::new(name).literal_separator(true).build();
        let glob = glob.map_err(|error| refusal(format!("`{pattern}` is no glob: {error}")))?;
        let matcher = glob.compile_matcher();
        for beside in self.folders(caller) {
            let within = beside.join(folder);
            if self.untrusted && !stays_inside(&within, &self.environment.project) {
                continue;
            }
            let entries = std::fs::read_dir(&within).into_iter().flatten().flatten();
            let hidden = |name: &str| name.starts_with('.');
            let found: BTreeSet<String> = entries
                .filter(|entry| entry.path().is_file())
                .filter_map(|entry| entry.file_name().into_string().ok())
                .filter(|found| matcher.is_match(found) && (hidden(name) || !hidden(found)))
                .map(|found| within.join(found).to_string_lossy().into_owned())
                .collect();
            if !found.is_empty() {
                return Ok(found.into_iter().collect());
            }
        }
        Ok(Vec::new())
    }

    /// A template file's text, with some variables of its own.
    fn template(&self, state: &State<'_, '_>, name: &str, own: &Value) -> Result<Value, Error> {
        self.stays(name)?;
        let folders = self.folders(state.name()).into_iter();
        let mut candidates = folders.flat_map(|folder| {
            let beside = folder.parent().map(|above| above.join("templates").join(name));
            beside.into_iter().chain([folder.join("templates").join(name), folder.join(name)])
        });
        let path = candidates.find(|path| path.is_file()).ok_or_else(|| {
            unreadable(Path::new(name), "it is neither beside the template nor in the project")
        })?;
        if self.untrusted && !stays_inside(&path, &self.environment.project) {
            return Err(self.leaves(name));
        }
        let source = self.templates.read(&path).map_err(|why| unreadable(&path, &why))?;
        let template = state.env().get_template(&Form::File.name(&path.to_string_lossy()))?;
        let variables =
            minijinja::value::merge_maps([value::root().unwrap_or_default(), own.clone()]);
        let (text, _) = value::written(|| template.render(variables));
        Ok(Value::from(with_line_ends_of(text?, &source)))
    }

    fn ini(&self, caller: &str, term: &str, options: &Kwargs) -> Result<Value, Error> {
        let (key, inline) = lists::words(term);
        let option = |name: &str| -> Result<Option<String>, Error> {
            let named: Option<Value> = options.get(name)?;
            let inline = inline.get(name).map(|text| (*text).to_owned());
            Ok(inline.or_else(|| named.filter(|one| !one.is_none()).map(|one| one.to_string())))
        };
        let default = option("default")?.unwrap_or_default();
        let sensitive = options.get::<Option<bool>>("case_sensitive")?.unwrap_or(false);
        let file = option("file")?.unwrap_or_else(|| String::from("ansible.ini"));
        let mut text = self.file(caller, &file, false)?;
        let mut section = option("section")?.unwrap_or_else(|| String::from("global"));
        match option("type")?.as_deref() {
            None | Some("ini") => {}
            Some("properties") => {
                section = String::from("java_properties");
                text = format!("[{section}]\n{text}");
            }
            Some(other) => return Err(refusal(format!("`type={other}` is not ini or properties"))),
        }
        let found = tables::ini(&text, &section, &key, sensitive)
            .map_err(|why| unreadable(Path::new(&file), &why))?;
        Ok(Value::from(found.unwrap_or(default)))
    }

    fn csv(&self, caller: &str, term: &str, options: &Kwargs) -> Result<Option<Value>, Error> {
        let (key, inline) = lists::words(term);
        let option = |name: &str| -> Result<Option<String>, Error> {
            let named: Option<Value> = options.get(name)?;
            let inline = inline.get(name).map(|text| (*text).to_owned());
            Ok(inline.or_else(|| named.filter(|one| !one.is_none()).map(|one| one.to_string())))
        };
        let column = |name: &str, default: usize| -> Result<usize, Error> {
            let given = option(name)?.map(|text| text.parse());
            given.unwrap_or(Ok(default)).map_err(|_| refusal(format!("`{name}` is a number")))
        };
        let delimiter = match option("delimiter")?.as_deref() {
            None | Some("TAB" | "t") => '\t',
            Some(text) if text.chars().count() == 1 => text.chars().next().unwrap_or(','),
            Some(_) => return Err(refusal("`delimiter` is one character".into())),
        };
        let (column, key_column) = (column("col", 1)?, column("keycol", 0)?);
        let default = option("default")?;
        let file = option("file")?.unwrap_or_else(|| String::from("ansible.csv"));
        let rows = tables::rows(&self.file(caller, &file, false)?, delimiter);
        let row = rows.into_iter().find(|row| row.get(key_column) == Some(&key));
        Ok(row.map_or(default, |row| row.get(column).cloned()).map(Value::from))
    }

    /// Refuses a name that data from outside may have led to another folder.
    pub(super) fn stays(&self, name: &str) -> Result<(), Error> {
        let leads = Path::new(name).is_absolute()
            || Path::new(name).components().any(|part| part == Component::ParentDir);
        if leads && value::outside_used() {
            let message = format!(
                "`{name}` leaves its folder beside facts or items of loops, which are \
                 data from outside; use it in a variable of its own"
            );
            return Err(refusal(message));
        }
        Ok(())
    }

    fn variable(&self, name: &str, default: Option<&Value>) -> Result<Value, Error> {
        self.trusted("env")?;
        let found = self.environment.variables.get(name).map(Value::from);
        let found = found.or_else(|| default.cloned()).unwrap_or_else(|| Value::from(""));
        if found.is_undefined() {
            return Err(refusal(format!("the environment has no variable `{name}`")));
        }
        Ok(found)
    }

    fn file(&self, caller: &str, name: &str, strip: bool) -> Result<String, Error> {
        self.stays(name)?;
        let path = self.find(caller, name).ok_or_else(|| {
            unreadable(Path::new(name), "it is neither beside the template nor in the project")
        })?;
        if self.untrusted && !stays_inside(&path, &self.environment.project) {
            return Err(self.leaves(name));
        }
        let file =
            std::fs::File::open(&path).map_err(|error| unreadable(&path, &error.to_string()))?;
        let text = read_bounded(file).map_err(|why| unreadable(&path, &why))?;
        Ok(if strip { text.trim_end().to_owned() } else { text })
    }

    fn leaves(&self, name: &str) -> Error {
        refusal(format!(
            "`lookup('file', '{name}')` leaves the project, which `--untrusted` forbids"
        ))
    }

    fn find(&self, caller: &str, name: &str) -> Option<PathBuf> {
        self.folders(caller).into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
    }

    /// Where files are looked for: beside the template file that asks, in the `files` beside its
    /// folder, then in the project.
    fn folders(&self, caller: &str) -> Vec<PathBuf> {
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
        folders
    }

    /// An environment variable.
    pub(super) fn environment_variable(&self, name: &str) -> Result<Option<&str>, Error> {
        self.trusted("env")?;
        Ok(self.environment.variables.get(name).map(String::as_str))
    }

    /// A path of this machine: relative ones are below the project.
    pub(super) fn path(&self, name: &str) -> Result<PathBuf, Error> {
        if self.untrusted {
            let message = "files of this machine are not looked at with `--untrusted`";
            return Err(refusal(message.into()));
        }
        self.stays(name)?;
        Ok(self.environment.project.join(name))
    }

    fn pipe(&self, command: &str) -> Result<String, Error> {
        self.trusted("pipe")?;
        if value::outside_used() {
            let message = "facts and items of loops must not reach `lookup('pipe', …)`: they are \
                           data from outside, and would be run here";
            return Err(refusal(String::from(message)));
        }
        if value::secret_used() {
            let message = "secrets must not reach `lookup('pipe', …)`: arguments are seen by all; the \
                           command can read the secret itself";
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
        self.answer(state, &plugin, &terms, &options, false)
    }
}

/// The function `query`: `lookup` that always gives a list.
#[derive(Debug)]
pub(super) struct Query(pub(super) Arc<Lookup>);

impl Object for Query {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, state: &mut State<'_, '_>, args: &[Value]) -> Result<Value, Error> {
        let (plugin, terms, options): (String, Rest<Value>, Kwargs) = from_args(args)?;
        self.0.answer(state, &plugin, &terms, &options, true)
    }
}

/// `varnames`: the names of variables that match some patterns.
fn variable_names(terms: &[Value]) -> Result<Vec<Value>, Error> {
    let mut found = Vec::new();
    let root = value::root().unwrap_or_default();
    for term in texts(terms)? {
        let pattern = fancy_regex::Regex::new(term)
            .map_err(|error| refusal(format!("`{term}` is no regular expression: {error}")))?;
        for name in root.try_iter()?.checked() {
            let name = name?;
            if name.as_str().is_some_and(|name| pattern.is_match(name).unwrap_or(false)) {
                found.push(name);
            }
        }
    }
    Ok(found)
}

/// The argument `default`, which may be undefined: then what is missing is an error.
fn default_of(options: &Kwargs) -> Result<Option<Value>, Error> {
    if options.has("default") { options.get("default").map(Some) } else { Ok(None) }
}

fn texts(terms: &[Value]) -> Result<impl Iterator<Item = &str>, Error> {
    if let Some(other) = terms.iter().find(|term| term.as_str().is_none()) {
        let message = format!("`lookup` takes strings, not {}", value::describe(other));
        return Err(refusal(message));
    }
    Ok(terms.iter().filter_map(Value::as_str))
}

/// The items of the lists among some values, and the others.
fn flattened(terms: &[Value]) -> Result<Vec<Value>, Error> {
    let mut items = Vec::new();
    for term in terms {
        if matches!(term.kind(), ValueKind::Seq | ValueKind::Iterable) {
            for item in term.try_iter()?.checked() {
                items.push(item?);
            }
        } else {
            items.push(term.clone());
        }
    }
    Ok(items)
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
