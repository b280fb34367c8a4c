use super::literal;
use crate::diagnostic::{Diagnostic, Sources};
use crate::graph::PlayDeclarations;
use crate::kind::Declared;
use crate::lang::{Declaration, Names, Skipped, State};
use crate::lint::rule::Check;
use crate::lint::{Level, Rule};

/// Kinds that write configuration.
const FILES: [&str; 6] =
    ["file", "symlink", "tree", "line_in_file", "block_in_file", "environment_file"];

pub(super) static UNWATCHED_SERVICE: Rule = Rule {
    name: "unwatched-service",
    summary: "A `service` whose configuration is declared, and that does not take it up when it changes",
    why: "The file changes and the service goes on with what it had read: until somebody restarts it, or the host boots, \
          perhaps months later, and then the change breaks or surprises. A service's own unit file needs no mention, it \
          restarts for that by itself.",
    instead: "Let the service `watch` the files (it reloads), or `restart_on` them.",
    level: Level::Warn,
    wrong: "- file: /etc/nginx/conf.d/shop.conf\n  content: client_max_body_size 10m;\n- service: nginx\n  check: nginx -t\n",
    right: "- file: /etc/nginx/conf.d/shop.conf\n  content: client_max_body_size 10m;\n- service: nginx\n  check: nginx -t\n  \
            watch: [file:/etc/nginx/*]\n",
    check: Check::Host(unwatched),
};

fn unwatched(plays: &[PlayDeclarations], _: &Sources, found: &mut Vec<Diagnostic>) {
    for play in plays {
        let names = Names::new(&play.declarations);
        for service in play.declarations.iter().filter(|one| runs(one)) {
            let common = &service.common;
            let references = common.watch.iter().chain(&common.restart_on);
            let watched: Vec<usize> =
                references.flat_map(|reference| names.matching(reference)).collect();
            let own = play.declarations.iter().enumerate().filter(|(index, file)| {
                FILES.contains(&file.spec.name)
                    && !matches!(file.skipped, Some(Skipped::When(_)))
                    && configures(&service.key, &file.key)
                    && !watched.contains(index)
            });
            let own: Vec<&Declaration> = own.map(|(_, file)| file).collect();
            let Some(first) = own.first() else { continue };
            let message = format!("`{}` does not take up changes of `{}`", service.id, first.id);
            let more = match own.len() {
                1 => String::new(),
                2 => String::from(", nor of another file of its own"),
                count => format!(", nor of {} other files of its own", count - 1),
            };
            found.push(
                Diagnostic::warning(UNWATCHED_SERVICE.name, format!("{message}{more}"))
                    .at(service.key_span, "")
                    .at(first.key_span, "its configuration")
                    .help(format!(
                        "`watch: [{}:{}]` reloads it, `restart_on` restarts it",
                        first.spec.name, first.key
                    )),
            );
        }
    }
}

/// Whether it is a service that is to run.
fn runs(declaration: &Declaration) -> bool {
    !matches!(declaration.skipped, Some(Skipped::When(_)))
        && matches!(&declaration.declared, Some(Declared::Service(service)) if service.wants_active())
}

/// Whether a path is configuration that a service reads when it starts.
fn configures(service: &str, path: &str) -> bool {
    // An instance, `NAME@x`, reads what its template does; of other units only services do.
    let name = service.split('@').next().unwrap_or(service);
    if name.is_empty() || name.contains('.') || name.contains('{') {
        return false;
    }
    if path.starts_with(&format!("/etc/systemd/system/{service}.service.d/")) {
        return true;
    }
    match name {
        // ssh_config beside it is the client's.
        "ssh" | "sshd" => path.starts_with("/etc/ssh/sshd_config"),
        "mysql" | "mariadb" => path.starts_with("/etc/mysql/"),
        "bind9" | "named" => path.starts_with("/etc/bind/"),
        "postgresql" => path.starts_with("/etc/postgresql/"),
        _ => {
            let single = ["/etc/NAME.conf", "/etc/NAME.env", "/etc/NAME.ini", "/etc/default/NAME"];
            path.starts_with(&format!("/etc/{name}/"))
                || single.iter().any(|form| form.replace("NAME", name) == path)
        }
    }
}

pub(super) static RESTART_WHERE_RELOAD: Rule = Rule {
    name: "restart-where-reload",
    summary: "A server that is restarted for a change which it could take up by a reload",
    why: "A restart drops connections, and the server stays away if the configuration is wrong; after a failed reload it goes \
          on with what it had.",
    instead: "Name the file in `watch`. The rule knows nginx, Apache, HAProxy, Caddy and sshd with their configuration, and \
              PostgreSQL with `pg_hba.conf` and `pg_ident.conf`.",
    level: Level::Warn,
    wrong: "- file: /etc/nginx/conf.d/shop.conf\n  content: client_max_body_size 10m;\n- service: nginx\n  check: nginx -t\n  \
            restart_on: [file:/etc/nginx/conf.d/shop.conf]\n",
    right: "- file: /etc/nginx/conf.d/shop.conf\n  content: client_max_body_size 10m;\n- service: nginx\n  check: nginx -t\n  \
            watch: [file:/etc/nginx/conf.d/shop.conf]\n",
    check: Check::Host(restarted),
};

fn restarted(plays: &[PlayDeclarations], _: &Sources, found: &mut Vec<Diagnostic>) {
    let all = plays.iter().flat_map(|play| &play.declarations);
    for service in all.filter(|one| runs(one)) {
        for reference in &service.common.restart_on {
            let Some((kind, path)) = reference.text.split_once(':') else { continue };
            if FILES.contains(&kind) && reloads_for(&service.key, path) {
                let message = format!("`{}` can take this up by a reload", service.id);
                found.push(
                    Diagnostic::warning(RESTART_WHERE_RELOAD.name, message)
                        .at(reference.span, "")
                        .help("name it in `watch` instead of `restart_on`"),
                );
            }
        }
    }
}

/// Whether a server is known to take up a change of a file by a reload.
fn reloads_for(service: &str, path: &str) -> bool {
    let below = match service.split('@').next().unwrap_or(service) {
        "nginx" => "/etc/nginx/",
        "apache2" => "/etc/apache2/",
        "haproxy" => "/etc/haproxy/",
        "caddy" => "/etc/caddy/",
        "ssh" | "sshd" => "/etc/ssh/sshd_config",
        "postgresql" => {
            return path.ends_with("/pg_hba.conf") || path.ends_with("/pg_ident.conf");
        }
        _ => return false,
    };
    path.starts_with(below)
}

pub(super) static REACTION_OF_STOPPED: Rule = Rule {
    name: "reaction-of-stopped",
    summary: "A `service` with `state: stopped` that watches something",
    why: "A stopped service never reloads or restarts.",
    instead: "Take `watch` and `restart_on` away, or let it run.",
    level: Level::Warn,
    wrong: "- file: /etc/apache2/ports.conf\n  content: Listen 8080\n- service: apache2\n  state: stopped\n  \
            watch: [file:/etc/apache2/*]\n",
    right: "- file: /etc/apache2/ports.conf\n  content: Listen 8080\n- service: apache2\n  state: stopped\n",
    check: Check::State(stopped),
};

fn stopped(state: &State, found: &mut Vec<Diagnostic>) {
    let is_stopped = state.argument("state").is_some_and(|node| literal(node) == Some("stopped"));
    if state.spec.name != "service" || !is_stopped {
        return;
    }
    for name in ["watch", "restart_on"] {
        if let Some(node) = state.common(name) {
            let message = format!("`{name}` of a service that is stopped");
            found.push(
                Diagnostic::warning(REACTION_OF_STOPPED.name, message)
                    .at(node.span, "a stopped service never reacts"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_configures_a_service_is_told_by_its_path() {
        let cases = [
            ("nginx", "/etc/nginx/conf.d/a.conf", true),
            ("shop", "/etc/shop.env", true),
            ("shop", "/etc/shopping/a.conf", false),
            ("ssh", "/etc/ssh/ssh_config", false),
            ("ssh", "/etc/ssh/sshd_config.d/a.conf", true),
            ("shop", "/etc/systemd/system/shop.service.d/limits.conf", true),
            ("worker@1", "/etc/default/worker", true),
            ("backup.timer", "/etc/backup/a", false),
            ("{{ app }}", "/etc/{{ app }}.env", false),
        ];
        for (service, path, expected) in cases {
            assert_eq!(configures(service, path), expected, "{service} {path}");
        }
    }
}
