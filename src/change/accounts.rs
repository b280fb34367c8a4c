//! Users and groups: shown, and applied with the tools of shadow-utils.
//!
//! A password's hash goes to `chpasswd -e` through standard input: arguments are seen by all.

use std::time::Duration;

use super::diff::sanitize;
use super::runner::{ApplyError, Execution, Runner};
use super::{Account, HomeDirectory};
use crate::world::{Answer, GroupEntry, UserEntry};

/// Attempts at a change while another program holds the account database. The tools wait about
/// 15 s for it by themselves each time.
const ATTEMPTS: usize = 4;

/// Bound of one call: a home directory may have much to copy or to remove.
const TIMEOUT: Duration = Duration::from_secs(600);

/// A user or group change in lines of `+`, `-` and `~`. A password is never shown.
pub fn render(before: Option<&Account>, after: Option<&Account>) -> String {
    match (before, after) {
        (Some(Account::User { entry: before, .. }), Some(Account::User { entry: after, .. })) => {
            render_user(before, after)
        }
        (Some(Account::Group { entry: before, .. }), Some(Account::Group { entry: after, .. })) => {
            let mut lines = Lines::default();
            lines.differ("gid", &number(before.gid), &number(after.gid));
            lines.text
        }
        (before, after) => {
            let mut lines = Lines::default();
            if let Some(account) = before {
                lines.whole('-', account);
            }
            if let Some(account) = after {
                lines.whole('+', account);
            }
            lines.text
        }
    }
}

/// Makes, changes or removes a user or group as root.
///
/// A user that came half-way (made, but without its password) is an ordinary difference for the
/// next plan.
pub fn apply(
    before: Option<&Account>,
    after: Option<&Account>,
    runner: &dyn Runner,
) -> Result<(), ApplyError> {
    let tools = Tools { runner };
    match (before, after) {
        (None, Some(Account::User { entry, system, home })) => {
            tools.add_user(entry, *system, *home)
        }
        (None, Some(Account::Group { entry, system })) => tools.add_group(entry, *system),
        (Some(Account::User { entry: before, .. }), Some(Account::User { entry: after, .. })) => {
            tools.change_user(before, after)
        }
        (Some(Account::Group { entry: before, .. }), Some(Account::Group { entry: after, .. })) => {
            tools.change_group(before, after)
        }
        (Some(Account::User { entry, home, .. }), None) => tools.remove_user(entry, *home),
        (Some(Account::Group { entry, .. }), None) => tools.remove_group(entry),
        (Some(Account::User { .. }), Some(Account::Group { .. }))
        | (Some(Account::Group { .. }), Some(Account::User { .. }))
        | (None, None) => Err(ApplyError::new(
            "an account change without a target: this is a bug in converge, please report it",
        )),
    }
}

/// The programs that change accounts.
struct Tools<'a> {
    runner: &'a dyn Runner,
}

impl Tools<'_> {
    fn add_user(
        &self,
        user: &UserEntry,
        system: bool,
        home: HomeDirectory,
    ) -> Result<(), ApplyError> {
        let mut argv = Argv::new("useradd");
        argv.option("--uid", user.uid.map(|uid| uid.to_string()).as_deref());
        match &user.group {
            Some(group) => argv.option("--gid", Some(group)),
            None => argv.flag("--user-group"),
        }
        if !user.groups.is_empty() {
            argv.option("--groups", Some(&user.groups.join(",")));
        }
        argv.option("--home-dir", Some(&user.home));
        argv.flag(match home {
            HomeDirectory::Create => "--create-home",
            HomeDirectory::Leave | HomeDirectory::Remove => "--no-create-home",
        });
        argv.option("--shell", Some(&user.shell));
        if !user.comment.is_empty() {
            argv.option("--comment", Some(&user.comment));
        }
        if system {
            argv.flag("--system");
        }
        self.call(argv.of(&user.name), None, &[])?;
        match &user.password_hash {
            Some(hash) => self.set_password(&user.name, hash),
            None => Ok(()),
        }
    }

    fn change_user(&self, before: &UserEntry, after: &UserEntry) -> Result<(), ApplyError> {
        let mut argv = Argv::new("usermod");
        if before.uid != after.uid {
            argv.option("--uid", after.uid.map(|uid| uid.to_string()).as_deref());
        }
        if before.group != after.group {
            argv.option("--gid", after.group.as_deref());
        }
        if before.home != after.home {
            argv.option("--home", Some(&after.home));
        }
        if before.shell != after.shell {
            argv.option("--shell", Some(&after.shell));
        }
        if before.comment != after.comment {
            argv.option("--comment", Some(&after.comment));
        }
        let added = missing_from(&before.groups, &after.groups);
        if !added.is_empty() {
            argv.flag("--append");
            argv.option("--groups", Some(&added.join(",")));
        }
        if argv.has_options() {
            self.call(argv.of(&after.name), None, &[])?;
        }
        // One by one, so that memberships which nobody planned to end stay.
        for group in missing_from(&after.groups, &before.groups) {
            let argv = ["gpasswd", "--delete", &after.name, group].map(str::to_owned).into();
            self.call(argv, None, &[])?;
        }
        match &after.password_hash {
            Some(hash) if before.password_hash.as_ref() != Some(hash) => {
                self.set_password(&after.name, hash)
            }
            _ => Ok(()),
        }
    }

    fn remove_user(&self, user: &UserEntry, home: HomeDirectory) -> Result<(), ApplyError> {
        let mut argv = Argv::new("userdel");
        if home == HomeDirectory::Remove {
            argv.flag("--remove");
        }
        const NO_SUCH_USER: i32 = 6;
        self.call(argv.of(&user.name), None, &[NO_SUCH_USER])
    }

    fn add_group(&self, group: &GroupEntry, system: bool) -> Result<(), ApplyError> {
        let mut argv = Argv::new("groupadd");
        argv.option("--gid", group.gid.map(|gid| gid.to_string()).as_deref());
        if system {
            argv.flag("--system");
        }
        self.call(argv.of(&group.name), None, &[])?;
        for member in &group.members {
            let argv = ["gpasswd", "--add", member, &group.name].map(str::to_owned).into();
            self.call(argv, None, &[])?;
        }
        Ok(())
    }

    fn change_group(&self, before: &GroupEntry, after: &GroupEntry) -> Result<(), ApplyError> {
        if before.gid == after.gid {
            return Ok(());
        }
        let mut argv = Argv::new("groupmod");
        argv.option("--gid", after.gid.map(|gid| gid.to_string()).as_deref());
        self.call(argv.of(&after.name), None, &[])
    }

    fn remove_group(&self, group: &GroupEntry) -> Result<(), ApplyError> {
        // Gone with the user of its name, perhaps.
        const NO_SUCH_GROUP: i32 = 6;
        self.call(Argv::new("groupdel").of(&group.name), None, &[NO_SUCH_GROUP])
    }

    fn set_password(&self, name: &str, hash: &str) -> Result<(), ApplyError> {
        let line = format!("{name}:{hash}\n");
        let argv = ["chpasswd", "--encrypted"].map(str::to_owned).into();
        self.call(argv, Some(line.into_bytes()), &[])
    }

    /// Runs one of the tools, again while another program holds the database.
    fn call(
        &self,
        argv: Vec<String>,
        stdin: Option<Vec<u8>>,
        also_fine: &[i32],
    ) -> Result<(), ApplyError> {
        let execution = Execution {
            argv,
            user: None,
            cwd: None,
            // What the tools say is looked at below.
            environment: vec![(String::from("LC_ALL"), String::from("C"))],
            stdin,
            timeout: Some(TIMEOUT),
        };
        let mut attempt = 1;
        loop {
            let answer = self.runner.run(&execution)?;
            if answer.code == 0 || also_fine.contains(&answer.code) {
                return Ok(());
            }
            if attempt == ATTEMPTS || !is_locked(&answer) {
                let tool = execution.argv.first().map_or("", String::as_str);
                return Err(ApplyError::new(format!("{tool}: {}", complaint(tool, &answer))));
            }
            attempt += 1;
        }
    }
}

/// Whether a tool could not get `/etc/.pwd.lock` or one of the files' own locks.
fn is_locked(answer: &Answer) -> bool {
    answer.error.contains("cannot lock") || answer.error.contains("try again later")
}

/// What a tool said, on one line, without its name before each sentence.
fn complaint(tool: &str, answer: &Answer) -> String {
    let prefix = format!("{tool}: ");
    let sentences: Vec<_> = answer
        .error
        .lines()
        .map(|line| line.strip_prefix(&prefix).unwrap_or(line).trim())
        .filter(|line| !line.is_empty())
        .collect();
    if sentences.is_empty() { format!("exit code {}", answer.code) } else { sentences.join("; ") }
}

/// A program, its options, and at last the name that it is about.
struct Argv(Vec<String>);

impl Argv {
    fn new(program: &str) -> Self {
        Self(vec![program.to_owned()])
    }

    fn flag(&mut self, name: &str) {
        self.0.push(name.to_owned());
    }

    /// In one word, so that a value that begins with `-` stays a value.
    fn option(&mut self, name: &str, value: Option<&str>) {
        self.0.extend(value.map(|value| format!("{name}={value}")));
    }

    fn has_options(&self) -> bool {
        self.0.len() > 1
    }

    fn of(mut self, name: &str) -> Vec<String> {
        self.0.extend(["--", name].map(str::to_owned));
        self.0
    }
}

/// The names of `some` that `base` does not have.
fn missing_from<'a>(base: &[String], some: &'a [String]) -> Vec<&'a str> {
    some.iter().filter(|name| !base.contains(name)).map(String::as_str).collect()
}

fn render_user(before: &UserEntry, after: &UserEntry) -> String {
    let mut lines = Lines::default();
    lines.differ("uid", &number(before.uid), &number(after.uid));
    let group = |user: &UserEntry| user.group.clone().unwrap_or_else(|| user.name.clone());
    lines.differ("group", &group(before), &group(after));
    lines.differ("groups", &before.groups.join(","), &after.groups.join(","));
    lines.differ("home", &before.home, &after.home);
    lines.differ("shell", &before.shell, &after.shell);
    lines.differ("comment", &before.comment, &after.comment);
    if before.password_hash != after.password_hash {
        lines.line("~ password (hidden)");
    }
    lines.text
}

fn number(number: Option<u32>) -> String {
    number.map_or_else(|| String::from("(next free)"), |number| number.to_string())
}

/// Lines that are safe to print.
#[derive(Default)]
struct Lines {
    text: String,
}

impl Lines {
    fn line(&mut self, line: &str) {
        sanitize(line, &mut self.text);
        self.text.push('\n');
    }

    fn differ(&mut self, field: &str, before: &str, after: &str) {
        if before != after {
            let shown = |value: &str| {
                if value.is_empty() { String::from("(none)") } else { value.to_owned() }
            };
            self.line(&format!("~ {field} {} → {}", shown(before), shown(after)));
        }
    }

    fn whole(&mut self, sign: char, account: &Account) {
        match account {
            Account::User { entry, system, home } => {
                let system = if *system && entry.uid.is_none() { "system " } else { "" };
                let mut line = format!("{sign} {system}user {}", entry.name);
                if let Some(uid) = entry.uid {
                    line.push_str(&format!(" uid={uid}"));
                }
                if let Some(group) = &entry.group {
                    line.push_str(&format!(" group={group}"));
                }
                if !entry.groups.is_empty() {
                    line.push_str(&format!(" groups={}", entry.groups.join(",")));
                }
                line.push_str(&format!(" home={} shell={}", entry.home, entry.shell));
                if !entry.comment.is_empty() {
                    line.push_str(&format!(" comment=\"{}\"", entry.comment));
                }
                self.line(&line);
                if entry.group.is_none() {
                    self.line(&format!("{sign} group {}", entry.name));
                }
                if *home != HomeDirectory::Leave {
                    self.line(&format!("{sign} directory {}", entry.home));
                }
                if sign == '+' && entry.password_hash.is_some() {
                    self.line("+ password (hidden)");
                }
            }
            Account::Group { entry, system } => {
                let system = if *system && entry.gid.is_none() { "system " } else { "" };
                let mut line = format!("{sign} {system}group {}", entry.name);
                if let Some(gid) = entry.gid {
                    line.push_str(&format!(" gid={gid}"));
                }
                if !entry.members.is_empty() {
                    line.push_str(&format!(" members={}", entry.members.join(",")));
                }
                self.line(&line);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Answers with what is given, then with success, and remembers what was run.
    struct Script {
        answers: Mutex<Vec<Answer>>,
        ran: Mutex<Vec<String>>,
    }

    impl Script {
        fn new(answers: Vec<Answer>) -> Self {
            Self { answers: Mutex::new(answers), ran: Mutex::default() }
        }

        fn ran(self) -> Vec<String> {
            self.ran.into_inner().unwrap()
        }
    }

    impl Runner for Script {
        fn run(&self, execution: &Execution) -> Result<Answer, ApplyError> {
            let mut line = execution.argv.join(" ");
            if let Some(stdin) = &execution.stdin {
                line.push_str(&format!(" < {}", String::from_utf8_lossy(stdin).trim_end()));
            }
            self.ran.lock().unwrap().push(line);
            let answer = self.answers.lock().unwrap().pop();
            Ok(answer.unwrap_or(Answer { code: 0, output: String::new(), error: String::new() }))
        }
    }

    fn shop() -> UserEntry {
        UserEntry {
            name: String::from("shop"),
            uid: Some(1001),
            group: Some(String::from("shop")),
            groups: vec![String::from("adm"), String::from("sudo")],
            home: String::from("/srv/shop"),
            shell: String::from("/bin/sh"),
            comment: String::new(),
            password_hash: Some(String::from("!")),
        }
    }

    fn user(entry: UserEntry, home: HomeDirectory) -> Account {
        Account::User { entry, system: false, home }
    }

    #[test]
    fn each_change_is_one_call_of_the_right_tool_and_hides_the_password() {
        let new = UserEntry { uid: None, group: None, groups: Vec::new(), ..shop() };
        let hashed = UserEntry { password_hash: Some(String::from("$6$salt$hash")), ..new.clone() };
        let changed = UserEntry {
            shell: String::from("/bin/bash"),
            groups: vec![String::from("adm"), String::from("docker")],
            ..shop()
        };
        let group = |gid| Account::Group {
            entry: GroupEntry { name: String::from("web"), gid, members: Vec::new() },
            system: true,
        };
        let leave = HomeDirectory::Leave;
        let cases: Vec<(Option<Account>, Option<Account>, &str, &str)> = vec![
            (
                None,
                Some(user(hashed, HomeDirectory::Create)),
                "useradd --user-group --home-dir=/srv/shop --create-home --shell=/bin/sh -- shop\n\
                 chpasswd --encrypted < shop:$6$salt$hash",
                "+ user shop home=/srv/shop shell=/bin/sh\n+ group shop\n+ directory /srv/shop\n\
                 + password (hidden)\n",
            ),
            (
                Some(user(shop(), leave)),
                Some(user(changed, leave)),
                "usermod --shell=/bin/bash --append --groups=docker -- shop\n\
                 gpasswd --delete shop sudo",
                "~ groups adm,sudo → adm,docker\n~ shell /bin/sh → /bin/bash\n",
            ),
            (
                Some(user(shop(), leave)),
                Some(user(
                    UserEntry { password_hash: Some(String::from("$y$x")), ..shop() },
                    leave,
                )),
                "chpasswd --encrypted < shop:$y$x",
                "~ password (hidden)\n",
            ),
            (
                Some(user(shop(), HomeDirectory::Remove)),
                None,
                "userdel --remove -- shop",
                "- user shop uid=1001 group=shop groups=adm,sudo home=/srv/shop shell=/bin/sh\n\
                 - directory /srv/shop\n",
            ),
            (None, Some(group(None)), "groupadd --system -- web", "+ system group web\n"),
            (
                None,
                Some(Account::Group {
                    entry: GroupEntry {
                        name: String::from("web"),
                        gid: Some(7),
                        members: vec![String::from("shop"), String::from("jack")],
                    },
                    system: false,
                }),
                "groupadd --gid=7 -- web\ngpasswd --add shop web\ngpasswd --add jack web",
                "+ group web gid=7 members=shop,jack\n",
            ),
            (
                Some(group(Some(7))),
                Some(group(Some(8))),
                "groupmod --gid=8 -- web",
                "~ gid 7 → 8\n",
            ),
            (Some(group(Some(7))), None, "groupdel -- web", "- group web gid=7\n"),
        ];
        for (before, after, commands, shown) in cases {
            let script = Script::new(Vec::new());
            apply(before.as_ref(), after.as_ref(), &script).unwrap();
            assert_eq!(script.ran().join("\n"), commands);
            assert_eq!(render(before.as_ref(), after.as_ref()), shown);
        }
    }

    #[test]
    fn a_held_lock_is_tried_again_and_not_for_ever() {
        let locked = Answer {
            code: 1,
            output: String::new(),
            error: String::from("useradd: cannot lock /etc/passwd; try again later.\n"),
        };
        let after = user(UserEntry { password_hash: None, ..shop() }, HomeDirectory::Leave);
        for (times, succeeds) in [(1, true), (3, true), (9, false)] {
            let script = Script::new(vec![locked.clone(); times]);
            assert_eq!(apply(None, Some(&after), &script).is_ok(), succeeds, "{times}");
            assert_eq!(script.ran().len(), (times + 1).min(ATTEMPTS));
        }
    }
}
