use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::arguments::{InventorySource, KeyArguments, LintArguments};
use super::converge::bound_memory;
use super::keys;
use super::load;
use super::{CliError, EXIT_OK, EXIT_USAGE, Surroundings};
use crate::diagnostic::{Diagnostic, Diagnostics, Severity, Sources, Span, Style};
use crate::lang::{CompileOptions, Fetch, Layer, Program};
use crate::lint::{Finding, Format, Level, Levels, Linter, RULES, Subject, UnknownRule, rule};
use crate::project::{Compilation, LintSettings, Nothing, Project, texts_below};
use crate::secret::Keyring;

/// `converge lint`: all that a run would say before it connects, and what is likely wrong.
pub(super) fn run(surroundings: &Surroundings, arguments: &LintArguments) -> Result<u8, CliError> {
    if arguments.rules {
        let lines = RULES.iter().map(|rule| format!("{:<24} {}\n", rule.name, rule.summary));
        return surroundings.print(&lines.collect::<String>()).map(|()| EXIT_OK);
    }
    if let Some(name) = &arguments.explain {
        let rule = rule(name).ok_or_else(|| CliError::Usage(UnknownRule::new(name).to_string()))?;
        return surroundings.print(&rule.page()).map(|()| EXIT_OK);
    }
    let format: Format = arguments.format.parse().map_err(CliError::Usage)?;
    let deny = |levels: &mut Levels| {
        arguments.deny.iter().try_for_each(|name| levels.set(name, Level::Deny))
    };
    deny(&mut Levels::default()).map_err(|error| CliError::Usage(format!("--deny: {error}")))?;
    if arguments.untrusted {
        bound_memory();
    }
    let finder =
        Project::find(&surroundings.directory, &Sources::default(), &mut Diagnostics::default());
    let mut paths: Vec<PathBuf> = Vec::new();
    for name in &arguments.state_files {
        let path = finder.state_file(name)?;
        if arguments.untrusted {
            load::stays_inside(&finder, Some(&path))?;
        }
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    let terminal = surroundings.output_terminal && format == Format::Text;
    let style = match surroundings.colours(terminal) && !arguments.no_color {
        true => Style::Coloured,
        false => Style::Plain,
    };
    let mut findings: Vec<Finding> = Vec::new();
    for path in without_included(&finder, paths, arguments.untrusted) {
        for finding in one(surroundings, arguments, &path, style)? {
            // Files are included by several.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
    }
    surroundings.print(&format.print(&findings))?;
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (errors, warnings) = (count(Severity::Error), count(Severity::Warning));
    if errors + warnings > 0 {
        let numbered = |count: usize, word: &str| match count {
            1 => format!("1 {word}"),
            many => format!("{many} {word}s"),
        };
        let said = [numbered(errors, "error"), numbered(warnings, "warning")];
        surroundings.complain(&said.join(", "));
    }
    Ok(if errors > 0 { EXIT_USAGE } else { EXIT_OK })
}

/// The files that no other one of them includes: an included file is looked at where it belongs, and
/// means nothing by itself.
fn without_included(project: &Project, paths: Vec<PathBuf>, untrusted: bool) -> Vec<PathBuf> {
    if paths.len() < 2 {
        return paths;
    }
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let whole: Vec<(PathBuf, BTreeSet<PathBuf>)> = paths
        .iter()
        .map(|path| {
            let shown = PathBuf::from(project.shown(path));
            let sources = Sources::default();
            let confined = untrusted.then_some(project.root.as_path());
            let program = Program::load(
                &sources,
                &shown,
                confined,
                &Keyring::default().optional(true),
                &mut Diagnostics::default(),
            );
            (real(path), program.files.into_iter().collect())
        })
        .collect();
    let included = |path: &Path| {
        let (own, files) = match whole.iter().find(|(own, _)| own == path) {
            Some(found) => found,
            None => return false,
        };
        whole
            .iter()
            .any(|(other, theirs)| other != own && theirs.contains(own) && !files.contains(other))
    };
    paths.into_iter().filter(|path| !included(&real(path))).collect()
}

/// All that is to be said of one state file.
fn one(
    surroundings: &Surroundings,
    arguments: &LintArguments,
    path: &Path,
    style: Style,
) -> Result<Vec<Finding>, CliError> {
    let mut diagnostics = Diagnostics::default();
    let folder = load::folder_of(Some(path));
    let keys = KeyArguments::default();
    // What is encrypted need not be read in order to look at the rest.
    let keyring = keys::keyring(surroundings, &keys, arguments.untrusted).optional(true);
    let mut keyring = Arc::new(keyring);
    let (project, sources, inventory) = if arguments.inventory.is_empty() {
        let sources = Arc::new(Sources::default());
        let project = Project::find(&surroundings.directory, &sources, &mut diagnostics);
        (project, sources, None)
    } else {
        let source = InventorySource {
            inventory: arguments.inventory.clone(),
            limit: None,
            untrusted: arguments.untrusted,
            without_keys: true,
            ..InventorySource::default()
        };
        let loaded = load::inventory(surroundings, &source, &folder, &mut diagnostics)?;
        keyring = loaded.keyring;
        (loaded.project, loaded.sources, Some(loaded.inventory))
    };
    let mut levels = levels(&project.settings.lint, &mut diagnostics);
    for name in &arguments.deny {
        // That it is known was seen before.
        let _ = levels.set(name, Level::Deny);
    }
    let confined = arguments.untrusted.then_some(project.root.as_path());
    let shown = PathBuf::from(project.shown(path));
    let program = Program::load(&sources, &shown, confined, &keyring, &mut diagnostics);
    let extra = &arguments.extra_vars;
    let extra = load::extra_variables(
        extra,
        &surroundings.directory,
        &sources,
        &keyring,
        &mut diagnostics,
    )?;
    let templates = load::templates(surroundings, &project, &sources, arguments.untrusted, keyring);
    // A stranger's project is refused what a plan of it would be refused.
    let fetch: Option<Arc<dyn Fetch>> = match arguments.untrusted {
        true => None,
        false => Some(Arc::new(Nothing)),
    };
    let options = CompileOptions {
        extra: Some(Arc::<Layer>::new(extra)),
        fetch,
        ..CompileOptions::default()
    };
    let known = inventory.is_some();
    let compilation = match inventory {
        Some(inventory) => Compilation::new(
            sources.clone(),
            inventory,
            program,
            templates.clone(),
            options,
            None,
            &mut diagnostics,
        ),
        None => {
            Compilation::without_inventory(sources.clone(), program, templates.clone(), options)
        }
    };
    let mut linter = Linter::new(&sources);
    compilation.check_each(&mut diagnostics, |plays| linter.host(plays));
    if known {
        load::connections(&compilation, arguments.untrusted, &mut diagnostics);
    } else if let Some(place) = compilation.check_connections(&mut diagnostics)
        && arguments.untrusted
    {
        diagnostics.push(load::not_here("localhost", Some(place)));
    }
    let subject = Subject {
        program: &compilation.program,
        templates: &templates,
        beside: beside(&project, &compilation.program, arguments.untrusted),
        inventory: known,
    };
    let said = linter.finish(&subject, &levels, diagnostics);
    Ok(Finding::all(&said, &sources, style))
}

/// The levels that the project sets.
fn levels(settings: &LintSettings, diagnostics: &mut Diagnostics) -> Levels {
    let mut levels = Levels::default();
    let set: [(&[(String, Span)], Level); 3] = [
        (&settings.allow, Level::Allow),
        (&settings.warn, Level::Warn),
        (&settings.deny, Level::Deny),
    ];
    for (names, level) in set {
        for (name, span) in names {
            if let Err(error) = levels.set(name, level) {
                diagnostics
                    .push(Diagnostic::warning("unknown-rule", error.to_string()).at(*span, ""));
            }
        }
    }
    levels
}

/// Texts that may use the variables of a state file, beside those that were read: templates that were
/// not rendered, and inventories.
fn beside(project: &Project, program: &Program, untrusted: bool) -> Vec<Arc<str>> {
    let states = program.plays.iter().flat_map(|play| play.states());
    let mut folders: BTreeSet<PathBuf> = states.flat_map(|state| state.folders()).collect();
    folders = folders
        .into_iter()
        .flat_map(|folder| {
            [folder.join("templates"), folder.join("group_vars"), folder.join("host_vars")]
        })
        .collect();
    folders.insert(project.root.join("inventory"));
    folders
        .iter()
        .filter(|folder| !untrusted || project.holds(folder))
        .flat_map(|folder| texts_below(folder))
        .collect()
}
