//! The README's first command, as a new user runs it: throw-away hosts become web servers that
//! serve a page, and a second run finds nothing to do.

use std::path::Path;
use std::process::{Command, Output};

/// A copy of the repository's states and inventories, with throw-away hosts of its own.
struct Project {
    folder: tempfile::TempDir,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["states", "inventory"] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            let copied =
                Command::new("cp").arg("-r").arg(from).arg(folder.path()).status().unwrap();
            assert!(copied.success());
        }
        Self { folder }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_converge"))
            .args(arguments)
            .current_dir(self.folder.path())
            .env("CONVERGE_STATE_DIR", self.folder.path().join("state"))
            .output()
            .unwrap()
    }

    fn converge(&self, arguments: &[&str]) -> serde_json::Value {
        let output = self.run(arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        let output_text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{output_text}\n{error}");
        serde_json::from_str(&output_text).unwrap()
    }

    fn page(&self, host: &str) -> String {
        let address = "http://127.0.0.1/";
        let output = self.run(&["sandbox", "ssh", host, "--", "curl", "-sS", address]);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Project {
    fn drop(&mut self) {
        self.run(&["sandbox", "down"]);
    }
}

#[test]
fn a_new_user_provisions_two_web_servers() {
    if let Err(error) = converge::sandbox::requirements() {
        println!("left out: {error}");
        return;
    }
    let project = Project::new();
    let planned = project.converge(&["plan", "-i", "sandbox", "web.yml", "--format", "json"]);
    let first = project.converge(&["-i", "sandbox", "web.yml", "--format", "json"]);
    let second = project.converge(&["-i", "sandbox", "web.yml", "--format", "json"]);
    for host in ["web1", "web2"] {
        assert_eq!(planned["hosts"][host]["status"], "changed");
        assert_eq!(first["hosts"][host]["status"], "changed");
        let page = project.page(host);
        assert!(page.contains("Hello from the sandbox") && page.contains(host), "{page}");
        assert_eq!(second["hosts"][host]["status"], "ok", "{:#}", second["hosts"][host]);
        assert_eq!(second["hosts"][host]["summary"]["change"], 0);
        assert_eq!(second["hosts"][host]["summary"]["failed"], 0);
    }
}
