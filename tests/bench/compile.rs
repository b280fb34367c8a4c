//! How long the front takes, from files to graphs, without any host: `cargo bench --bench compile`.
//!
//! Prints how time and memory grow with the hosts; each row is a process of its own.

#![allow(missing_docs, clippy::print_stdout)]

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::Instant;

use converge::diagnostic::{Diagnostics, Sources, Style, render};
use converge::inventory::{Given, Inventory, Spec};
use converge::lang::{CompileOptions, LookupEnvironment, Program, Templates};
use converge::project::Compilation;
use converge::secret::Keyring;

/// States of the play.
const STATES: usize = 500;
/// Rows of the table.
const HOSTS: [usize; 3] = [10, 100, 1_000];
/// Says to another process of this program what it is to measure.
const INSIDE: &str = "--inside";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let result = match arguments.iter().position(|argument| argument == INSIDE) {
        Some(at) => inside(arguments.get(at + 1).map(Path::new)),
        None => table(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("left out: {error}");
            ExitCode::FAILURE
        }
    }
}

fn table() -> Result<(), Box<dyn Error>> {
    println!("{STATES} states, from files to graphs    hosts      time    a host    memory");
    for hosts in HOSTS {
        let folder = tempfile::tempdir()?;
        write_project(folder.path(), hosts)?;
        let mut best: Option<(f64, f64)> = None;
        for _ in 0..5 {
            let output = Command::new(std::env::current_exe()?)
                .args([INSIDE.as_ref(), folder.path().as_os_str()])
                .output()?;
            let text = String::from_utf8(output.stdout)?;
            let numbers: Vec<f64> =
                text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
            let [seconds, memory] = numbers[..] else { return Err(text.into()) };
            if best.is_none_or(|(least, _)| seconds < least) {
                best = Some((seconds, memory));
            }
        }
        let (seconds, memory) = best.unwrap_or_default();
        let each = seconds / hosts as f64 * 1e3;
        println!("{hosts:40} {seconds:7.2} s {each:6.2} ms {memory:5.0} MiB");
    }
    println!("goal: 1000 hosts in less than 2 s and 500 MiB");
    Ok(())
}

/// What a run does before it connects to anybody.
fn inside(folder: Option<&Path>) -> Result<(), Box<dyn Error>> {
    let folder = folder.ok_or("no folder")?;
    let begun = Instant::now();
    let sources = Arc::new(Sources::default());
    let mut diagnostics = Diagnostics::default();
    let spec = Spec::new(vec![Given::Path(folder.join("inventory.yml"))], PathBuf::new());
    let inventory = Inventory::load(&sources, &spec, &mut diagnostics);
    let program = Program::load(
        &sources,
        &folder.join("state.yml"),
        None,
        &Keyring::default(),
        &mut diagnostics,
    );
    let lookup = LookupEnvironment { project: folder.to_owned(), ..LookupEnvironment::default() };
    let templates = Arc::new(Templates::new(sources.clone(), false, lookup));
    let compilation = Compilation::new(
        sources.clone(),
        inventory,
        program,
        templates,
        CompileOptions::default(),
        None,
        &mut diagnostics,
    );
    let outlines = compilation.check(&mut diagnostics);
    for host in compilation.hosts() {
        compilation.connection(host, &mut diagnostics);
    }
    let seconds = begun.elapsed().as_secs_f64();
    if let Some(first) = diagnostics.sorted().first() {
        return Err(render(first, &sources, Style::Plain).into());
    }
    let status = fs::read_to_string("/proc/self/status")?;
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    let kilobytes: f64 = most.trim().trim_end_matches(" kB").parse()?;
    assert!(!outlines.is_empty());
    println!("{seconds} {}", kilobytes / 1024.0);
    Ok(())
}

/// A project as people have them: groups with variables, templates in keys and arguments, loops,
/// conditions, template files, requisites.
fn write_project(folder: &Path, hosts: usize) -> Result<(), Box<dyn Error>> {
    let mut inventory = String::from("all:\n  vars: { domain: example.com }\n  children:\n");
    for (group, part) in ["web", "db", "cache"].iter().zip(0..) {
        write!(
            inventory,
            "    {group}:\n      vars: {{ role: {group}, port: {} }}\n",
            8000 + part
        )?;
        inventory.push_str("      hosts:\n");
        for host in (0..hosts).filter(|host| host % 3 == part) {
            writeln!(inventory, "        {group}{host}: {{ number: {host} }}")?;
        }
    }
    fs::write(folder.join("inventory.yml"), inventory)?;
    fs::create_dir_all(folder.join("templates"))?;
    let mut template = String::new();
    for line in 0..30 {
        writeln!(template, "option{line} = {{{{ app }}}}-{line}")?;
    }
    template.push_str("{% for name in groups.web[:3] %}peer {{ name }}\n{% endfor %}host {{ inventory_hostname }} {{ port }}\n");
    fs::write(folder.join("templates/app.conf.j2"), template)?;
    let mut states = String::from(
        "hosts: all\nbecome: true\nvars:\n  app: shop\n  root: \"/srv/{{ app }}\"\n  name: \"{{ app }}-{{ role }}\"\nstates:\n",
    );
    for number in (0..STATES / 10).map(|number| number * 10) {
        write!(
            states,
            "  - package: package{number}\n\
             \x20 - user: user{number}\n    home: \"{{{{ root }}}}/{number}\"\n    system: true\n\
             \x20 - directory: \"{{{{ root }}}}/{number}\"\n    owner: user{number}\n    mode: 0755\n\
             \x20 - file: \"{{{{ root }}}}/{number}/app.conf\"\n    template: app.conf.j2\n    owner: user{number}\n\
             \x20 - file: /etc/app{number}.conf\n    content: \"name = {{{{ name }}}}\\nnumber = {{{{ number }}}}\\n\"\n\
             \x20 - line_in_file: /etc/hosts\n    line: \"10.0.0.{n} {{{{ inventory_hostname }}}}-{number}.{{{{ domain }}}}\"\n\
             \x20 - environment_file: /etc/app{number}.env\n    variables: {{ PORT: \"{{{{ port + {number} }}}}\", NAME: \"{{{{ name | upper }}}}\" }}\n\
             \x20 - unit: app{number}.service\n    content: |\n      [Service]\n      ExecStart={{{{ root }}}}/{number}/run --port {{{{ port }}}}\n\
             \x20 - service: app{number}\n    restart_on: [\"unit:app{number}.service\", \"file:/etc/app{number}.conf\"]\n    when: role != 'cache'\n\
             \x20 - command: \"{{{{ root }}}}/{number}/check\"\n    creates: \"{{{{ root }}}}/{number}/checked\"\n    require: [\"user:user{number}\"]\n",
            n = number % 250,
        )?;
    }
    fs::write(folder.join("state.yml"), states)?;
    Ok(())
}
