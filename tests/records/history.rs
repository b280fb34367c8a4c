use crate::hosts::{Hosts, play};

#[test]
fn runs_are_remembered_with_who_what_and_how_it_ended() {
    let Some(hosts) = Hosts::new(&["a", "b"]) else { return };
    let git = |arguments: &[&str]| {
        let status = std::process::Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
            .args(arguments)
            .current_dir(hosts.path("."))
            .status();
        assert!(status.unwrap().success());
    };
    hosts.write("states/one.yml", &play("- file: /srv/x\n  content: \"1\\n\""));
    git(&["init", "-q"]);
    git(&["add", "states"]);
    git(&["commit", "-q", "-m", "one"]);
    let first = hosts.run(&["-i", "test", "one"]).succeeds();
    // A run that changes nothing leaves nothing.
    hosts.run(&["-i", "test", "one"]).succeeds().assert_unchanged();
    hosts.write("states/one.yml", &play("- file: /srv/x\n  content: \"2\\n\"\n- command: 'false'"));
    let second = hosts.run(&["-i", "test", "one", "--limit", "b"]).report();
    assert_eq!(second.exit_code, 3, "{second}");
    hosts.write("states/two.yml", &play("- file: /srv/y\n  content: secret\n  mode: 0600"));
    let third = hosts.run(&["-i", "inventory/test.yml", "two"]).succeeds();

    let past = hosts.run(&["history", "-i", "test", "--format", "json"]).ended();
    assert_eq!(past.code, 0, "{past}");
    let runs: serde_json::Value = serde_json::from_str(&past.stdout).unwrap();
    let names: Vec<&str> =
        runs.as_array().unwrap().iter().map(|run| run["id"].as_str().unwrap()).collect();
    assert_eq!(names, [&third.run, &second.run, &first.run]);
    let (second_run, first_run) = (&runs[1], &runs[2]);
    assert_eq!(first_run["state_file"], "states/one.yml");
    assert_eq!(first_run["inventory"], "test");
    assert_eq!(runs[0]["inventory"], "test", "an inventory has one name, however it was given");
    let commit = first_run["commit"].as_str().unwrap();
    assert_eq!(second_run["commit"], format!("{commit}-dirty"));
    assert_eq!(commit.len(), 40);
    assert_ne!(first_run["digest"], second_run["digest"]);
    assert_eq!(first_run["hosts"].as_object().unwrap().len(), 2);
    assert_eq!(first_run["hosts"]["a"]["verdict"], "ok");
    assert_eq!(first_run["hosts"]["a"]["verified"], true);
    assert_eq!(second_run["hosts"]["b"]["verdict"], "failed");

    let text = hosts.run(&["history", "-i", "test", "one"]).ended();
    assert_eq!(text.stdout.matches("states/one.yml for test").count(), 2, "{text}");
    assert!(text.stdout.contains("2 resources changed, 2 hosts of 2"), "{text}");

    let one = hosts.run(&["history", "-i", "test", &second.run]).ended();
    assert!(one.stdout.contains("      -1\n      +2\n"), "{one}");
    assert!(one.stdout.contains("command:"), "{one}");
    let secret = hosts.run(&["history", "-i", "test", &third.run]).ended();
    assert!(secret.stdout.contains("(hidden)") && !secret.stdout.contains("secret"), "{secret}");

    let unknown = hosts.run(&["history", "-i", "test", "20200101T000000Z-0000"]).ended();
    assert_eq!(unknown.code, 3, "{unknown}");
    assert!(unknown.stderr.contains("no host has a run `20200101T000000Z-0000`"), "{unknown}");
}
