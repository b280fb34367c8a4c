use crate::hosts::Hosts;

#[test]
fn what_does_not_converge_fails_the_run_by_name() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let fighting = "\
- file: /srv/settled
  content: fine
- file: /srv/fought
  content: one
- command: echo two >/srv/fought
  id: fighter
  unless: grep -q two /srv/fought
";
    let report = hosts.converge(fighting).report();
    assert_eq!(report.exit_code, 3, "{report}");
    assert_eq!(report.only().error.as_deref(), Some("does not converge: file:/srv/fought"));
    assert_eq!(report.resource("file:/srv/fought").verdict, "failed", "{report}");
    assert_eq!(report.resource("file:/srv/settled").verdict, "change", "{report}");
    assert!(report.text.contains("it does not converge"), "{report}");
    assert!(!report.text.contains("\"verified\""), "{report}");
}

#[test]
fn what_was_changed_and_what_depends_on_it_is_verified() {
    let Some(hosts) = Hosts::new(&["a"]) else { return };
    let states = "\
- file: /srv/one
  content: one
- command: touch /srv/two
  creates: /srv/two
";
    let report = hosts.converge(states).succeeds();
    assert!(report.text.contains("\"verified\":true"), "{report}");
    // Where nothing was changed, planning was the verification.
    let again = hosts.converge(states).succeeds();
    again.assert_unchanged();
}
