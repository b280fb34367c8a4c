use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, OFlags};

use super::links::{self, Last};
use super::process::{self, Identity, Job};
use super::{
    Answer, ContentId, Digest, Digests, EDIT_LIMIT, Entry, GroupEntry, Metadata, ObserveError,
    PackageEntry, Probe, RemotePath, System, UnitEntry, UserEntry, accounts, dpkg, systemd,
};

/// Most bytes of a file that are read at a time.
const CHUNK: usize = 64 << 10;

/// Largest file that is read as a whole, in bytes: a disk takes some minutes for it.
const READ_LIMIT: u64 = 64 << 30;

/// How many things a thread looks at before it sees what is left.
const AT_A_TIME: usize = 64;

/// The real host that the agent runs on.
#[derive(Default)]
pub struct Host {
    memory: Mutex<Memory>,
    digests: Digests,
    instead: OnceLock<HashMap<RemotePath, Option<RemotePath>>>,
}

/// What was read once and holds until something changes it.
#[derive(Default)]
struct Memory {
    accounts: Option<Arc<Accounts>>,
    packages: Option<Arc<BTreeMap<String, PackageEntry>>>,
    units: HashMap<String, UnitEntry>,
}

struct Accounts {
    users: Arc<BTreeMap<String, UserEntry>>,
    groups: Arc<BTreeMap<String, GroupEntry>>,
    user_names: HashMap<u32, String>,
    group_names: HashMap<u32, String>,
}

thread_local! {
    /// As whom this thread looks at files; none for the agent's own user.
    static READER: RefCell<Option<Identity>> = const { RefCell::new(None) };
}

impl Host {
    /// A host of which digests of files are remembered.
    pub fn remembering(digests: Digests) -> Self {
        Self { digests, ..Self::default() }
    }

    /// Sees something else at some paths from now on: what stands at another path, or nothing.
    pub fn see_instead(&self, instead: HashMap<RemotePath, Option<RemotePath>>) {
        let _ = self.instead.set(instead);
    }

    /// Where what is seen at a path really stands; none for nothing.
    fn seen<'p>(&'p self, path: &'p RemotePath) -> Option<&'p RemotePath> {
        match self.instead.get().and_then(|instead| instead.get(path)) {
            Some(other) => other.as_ref(),
            None => Some(path),
        }
    }

    /// Remembers the digests that were taken for the next run.
    pub fn remember(&self) {
        self.digests.save();
    }

    /// Lets this thread look at files with a user's rights, so that root does not read for a user
    /// what that user may not.
    pub fn reading_as<T>(&self, user: &str, look: impl FnOnce() -> T) -> T {
        let own = rustix::process::geteuid().as_raw();
        // A user that is yet to come owns nothing.
        let reader = self.identity(user).ok().filter(|identity| own == 0 && identity.uid != own);
        let before = READER.replace(reader);
        let result = look();
        READER.set(before);
        result
    }

    /// Opens a regular file for reading, as this thread looks at files.
    pub fn open(&self, path: &RemotePath) -> io::Result<fs::File> {
        let path = self.seen(path).ok_or(io::ErrorKind::NotFound)?;
        as_reader(|| open_regular(path))
    }

    /// Forgets what was read; to be called whenever something may have changed that is kept.
    pub fn forget(&self) {
        *self.memory() = Memory::default();
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn accounts(&self) -> Result<Arc<Accounts>, ObserveError> {
        if let Some(accounts) = &self.memory().accounts {
            return Ok(accounts.clone());
        }
        let read = |path: &str| {
            fs::read(path).map_err(|error| ObserveError::new(format!("reading {path}"), error))
        };
        // Only root may read it, and nobody else needs it.
        let shadow = fs::read("/etc/shadow").ok();
        let groups = accounts::parse_groups(&read("/etc/group")?);
        let users = accounts::parse_users(&read("/etc/passwd")?, shadow.as_deref(), &groups);
        let mut user_names = HashMap::new();
        for user in users.values() {
            if let Some(uid) = user.uid {
                user_names.entry(uid).or_insert_with(|| user.name.clone());
            }
        }
        let mut group_names = HashMap::new();
        for group in groups.values() {
            if let Some(gid) = group.gid {
                group_names.entry(gid).or_insert_with(|| group.name.clone());
            }
        }
        let accounts = Arc::new(Accounts {
            users: Arc::new(users),
            groups: Arc::new(groups),
            user_names,
            group_names,
        });
        self.memory().accounts = Some(accounts.clone());
        Ok(accounts)
    }

    /// The numbers of a user; the name service is asked where the files do not know it.
    pub fn identity(&self, name: &str) -> Result<Identity, ObserveError> {
        let accounts = self.accounts()?;
        let doing = || format!("looking up the user {name}");
        let entry = match accounts.users.get(name) {
            Some(entry) => entry.clone(),
            None => self.ask_for_user(name)?,
        };
        let uid =
            entry.uid.ok_or_else(|| ObserveError::new(doing(), io::ErrorKind::NotFound.into()))?;
        let group = entry.group.clone().unwrap_or_default();
        let gid = self.group_number(&group)?;
        let mut groups = vec![gid];
        for group in accounts.groups.values() {
            if group.members.iter().any(|member| member == name) {
                groups.extend(group.gid);
            }
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(Identity { name: entry.name, uid, gid, groups, home: entry.home, shell: entry.shell })
    }

    /// The user that the agent itself runs as.
    pub fn own_identity(&self) -> Result<Identity, ObserveError> {
        let uid = rustix::process::geteuid().as_raw();
        let accounts = self.accounts()?;
        match accounts.user_names.get(&uid) {
            Some(name) => self.identity(name),
            None => self.identity(&uid.to_string()),
        }
    }

    fn ask_for_user(&self, name: &str) -> Result<UserEntry, ObserveError> {
        let doing = || format!("looking up the user {name}");
        let answer =
            self.getent("passwd", name).map_err(|error| ObserveError::new(doing(), error))?;
        let groups = &self.accounts()?.groups;
        accounts::parse_users(answer.output.as_bytes(), None, groups)
            .into_values()
            .next()
            .ok_or_else(|| {
                let error = io::Error::new(io::ErrorKind::NotFound, "there is no such user");
                ObserveError::new(doing(), error)
            })
    }

    fn getent(&self, database: &str, name: &str) -> io::Result<Answer> {
        let job = Job {
            argv: vec!["getent".into(), database.into(), name.into()],
            timeout: Some(Duration::from_secs(10)),
            ..Job::default()
        };
        process::run(&job, &own_numbers())
    }

    /// The addresses of `HOST:PORT`. Names are asked for with getent: this program is linked
    /// statically, and the name service of the host's C library cannot be loaded into it.
    pub fn addresses(&self, authority: &str) -> Result<Vec<SocketAddr>, ObserveError> {
        if let Ok(address) = authority.parse() {
            return Ok(vec![address]);
        }
        let fail = |error| ObserveError::new(format!("looking up {authority}"), error);
        let (name, port) = authority
            .rsplit_once(':')
            .and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)))
            .ok_or_else(|| fail(io::ErrorKind::InvalidInput.into()))?;
        let answer = self.getent("ahosts", name).map_err(fail)?;
        let mut addresses: Vec<SocketAddr> = answer
            .output
            .lines()
            .filter_map(|line| line.split_whitespace().next()?.parse::<IpAddr>().ok())
            .map(|address| SocketAddr::new(address, port))
            .collect();
        addresses.dedup();
        if addresses.is_empty() && name == "localhost" {
            addresses.push(SocketAddr::from(([127, 0, 0, 1], port)));
        }
        if addresses.is_empty() {
            return Err(fail(io::Error::new(io::ErrorKind::NotFound, "there is no such name")));
        }
        Ok(addresses)
    }

    /// The number of a user, by name or as a number.
    pub fn user_number(&self, name: &str) -> Result<u32, ObserveError> {
        match name.parse() {
            Ok(number) => Ok(number),
            Err(_) => Ok(self.identity(name)?.uid),
        }
    }

    /// The number of a group, by name or as a number.
    pub fn group_number(&self, name: &str) -> Result<u32, ObserveError> {
        if let Ok(number) = name.parse() {
            return Ok(number);
        }
        if let Some(gid) = self.accounts()?.groups.get(name).and_then(|group| group.gid) {
            return Ok(gid);
        }
        let doing = || format!("looking up the group {name}");
        let answer =
            self.getent("group", name).map_err(|error| ObserveError::new(doing(), error))?;
        accounts::parse_groups(answer.output.as_bytes())
            .into_values()
            .find_map(|group| group.gid)
            .ok_or_else(|| {
                let error = io::Error::new(io::ErrorKind::NotFound, "there is no such group");
                ObserveError::new(doing(), error)
            })
    }

    fn metadata(&self, found: &fs::Metadata) -> Result<Metadata, ObserveError> {
        let accounts = self.accounts()?;
        let name = |names: &HashMap<u32, String>, number: u32| {
            names.get(&number).cloned().unwrap_or_else(|| number.to_string())
        };
        Ok(Metadata {
            owner: name(&accounts.user_names, found.uid()),
            group: name(&accounts.group_names, found.gid()),
            mode: found.mode() & 0o7777,
        })
    }

    /// Asks for several units in one go.
    pub fn prefetch_units(&self, names: &[String]) -> Result<(), ObserveError> {
        let names: Vec<String> = {
            let memory = self.memory();
            names.iter().filter(|name| !memory.units.contains_key(*name)).cloned().collect()
        };
        if names.is_empty() {
            return Ok(());
        }
        let job = Job {
            argv: systemd::show_argv(&names),
            timeout: Some(Duration::from_secs(60)),
            ..Job::default()
        };
        let doing = || String::from("asking systemd about units");
        let answer = process::run(&job, &own_numbers())
            .map_err(|error| ObserveError::new(doing(), error))?;
        let units = systemd::parse_show(&names, &answer)
            .map_err(|message| ObserveError::new(doing(), io::Error::other(message)))?;
        let mut memory = self.memory();
        for unit in units {
            memory.units.insert(unit.name.clone(), unit);
        }
        Ok(())
    }
}

/// Enough of the agent's own identity to start programs without a change of user.
fn own_numbers() -> Identity {
    let root = rustix::process::geteuid().is_root();
    Identity {
        name: if root { String::from("root") } else { String::new() },
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: Vec::new(),
        home: String::from(if root { "/root" } else { "/" }),
        shell: String::from("/bin/sh"),
    }
}

/// Looks at a file as whom this thread reads.
fn as_reader<T>(look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    match READER.with_borrow(Clone::clone) {
        None => look(),
        Some(identity) => process::acting_as(&identity, look)?,
    }
}

impl System for Host {
    fn entry(&self, path: &RemotePath) -> Result<Entry, ObserveError> {
        let doing = || format!("looking at {path}");
        let Some(path) = self.seen(path) else { return Ok(Entry::Absent) };
        let found = match as_reader(|| fs::symlink_metadata(path.as_path())) {
            Ok(found) => found,
            Err(error) => {
                return match error.raw_os_error() {
                    Some(code)
                        if code == rustix::io::Errno::NOENT.raw_os_error()
                            || code == rustix::io::Errno::NOTDIR.raw_os_error() =>
                    {
                        Ok(Entry::Absent)
                    }
                    _ => Err(ObserveError::new(doing(), error)),
                };
            }
        };
        let metadata = self.metadata(&found)?;
        let kind = found.file_type();
        if kind.is_file() {
            return Ok(Entry::File { size: found.len(), metadata });
        }
        if kind.is_symlink() {
            let target = as_reader(|| fs::read_link(path.as_path()))
                .map_err(|error| ObserveError::new(doing(), error))?;
            return Ok(Entry::Link { target: RemotePath::new(target), metadata });
        }
        if kind.is_dir() {
            return Ok(Entry::Folder { metadata });
        }
        debug_assert!(
            kind.is_block_device() || kind.is_char_device() || kind.is_fifo() || kind.is_socket()
        );
        Ok(Entry::Other { metadata })
    }

    fn read(&self, path: &RemotePath) -> Result<Vec<u8>, ObserveError> {
        let doing = || format!("reading {path}");
        let fail = |error| ObserveError::new(doing(), error);
        let file = self.open(path).map_err(fail)?;
        let mut bytes = Vec::new();
        io::Read::read_to_end(&mut io::Read::take(file, EDIT_LIMIT + 1), &mut bytes)
            .map_err(fail)?;
        if bytes.len() as u64 > EDIT_LIMIT {
            let message = format!("it is larger than {} MiB", EDIT_LIMIT >> 20);
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
        Ok(bytes)
    }

    fn may_write(&self, folder: &RemotePath, user: &str) -> Result<bool, ObserveError> {
        self.reading_as(user, || {
            let root = as_reader(|| Ok(rustix::process::geteuid().is_root()));
            if root.is_ok_and(|root| root) {
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let opened = as_reader(|| links::open(folder.as_path(), flags, Last::Followed))
                    .map_err(|error| ObserveError::new(format!("looking at {folder}"), error))?;
                // Not even root writes where the file system is read-only.
                let access = rustix::fs::accessat(opened, ".", Access::WRITE_OK, AtFlags::EACCESS);
                return Ok(access != Err(rustix::io::Errno::ROFS));
            }
            let access = Access::WRITE_OK | Access::EXEC_OK;
            let answer = as_reader(|| {
                rustix::fs::accessat(CWD, folder.as_path(), access, AtFlags::EACCESS)
                    .map_err(io::Error::from)
            });
            match answer {
                Ok(()) => Ok(true),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                    ) =>
                {
                    Ok(false)
                }
                Err(error) => Err(ObserveError::new(format!("looking at {folder}"), error)),
            }
        })
    }

    fn identify(&self, path: &RemotePath) -> Result<ContentId, ObserveError> {
        let fail = |error| ObserveError::new(format!("reading {path}"), error);
        let file = self.open(path).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if let Some(known) = self.digests.get(&metadata) {
            return Ok(known);
        }
        if metadata.len() > READ_LIMIT {
            let message = format!(
                "it has {} GiB, and files of more than {} GiB are not read; remove it, or leave it out",
                metadata.len() >> 30,
                READ_LIMIT >> 30
            );
            return Err(fail(io::Error::new(io::ErrorKind::FileTooLarge, message)));
        }
        // As it is now: something that is written without end would be read without end. Some files
        // of the kernel do not say how long they are.
        let end = if metadata.len() == 0 { EDIT_LIMIT } else { metadata.len() };
        let mut file = io::Read::take(file, end);
        let mut hasher = blake3::Hasher::new();
        // A small file is not worth a large buffer; one byte more leaves room to see its end.
        let room = usize::try_from(metadata.len()).unwrap_or(CHUNK).saturating_add(1);
        let mut buffer = vec![0; room.clamp(4096, CHUNK)];
        let mut size = 0;
        loop {
            let count = io::Read::read(&mut file, &mut buffer).map_err(fail)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
            size += count as u64;
        }
        let content = ContentId { digest: Digest::finish(&hasher), size };
        self.digests.learn(file.get_ref(), &metadata, content);
        Ok(content)
    }

    fn list(&self, path: &RemotePath) -> Result<Vec<RemotePath>, ObserveError> {
        let fail = |error| ObserveError::new(format!("listing {path}"), error);
        let mut names = Vec::new();
        let entries = match as_reader(|| fs::read_dir(path.as_path())) {
            // Gone since it was seen.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(names),
            entries => entries.map_err(fail)?,
        };
        for entry in entries {
            names.push(RemotePath::new(entry.map_err(fail)?.path()));
        }
        names.sort();
        Ok(names)
    }

    fn users(&self) -> Result<Arc<BTreeMap<String, UserEntry>>, ObserveError> {
        Ok(self.accounts()?.users.clone())
    }

    fn groups(&self) -> Result<Arc<BTreeMap<String, GroupEntry>>, ObserveError> {
        Ok(self.accounts()?.groups.clone())
    }

    fn packages(&self) -> Result<Arc<BTreeMap<String, PackageEntry>>, ObserveError> {
        if let Some(packages) = &self.memory().packages {
            return Ok(packages.clone());
        }
        let path = "/var/lib/dpkg/status";
        let status =
            fs::read(path).map_err(|error| ObserveError::new(format!("reading {path}"), error))?;
        let packages = Arc::new(dpkg::parse_status(&status));
        self.memory().packages = Some(packages.clone());
        Ok(packages)
    }

    fn unit(&self, name: &str) -> Result<UnitEntry, ObserveError> {
        if let Some(unit) = self.memory().units.get(name) {
            return Ok(unit.clone());
        }
        self.prefetch_units(&[name.to_owned()])?;
        Ok(self.memory().units.get(name).cloned().unwrap_or_else(|| UnitEntry::unknown(name)))
    }

    fn probe(&self, probe: &Probe) -> Result<Answer, ObserveError> {
        let identity = match &probe.user {
            Some(user) => self.identity(user)?,
            None => own_numbers(),
        };
        let job = Job {
            argv: probe.argv.clone(),
            cwd: probe.cwd.clone(),
            environment: probe.environment.clone(),
            stdin: None,
            timeout: Some(probe.timeout),
        };
        process::run(&job, &identity).map_err(|error| {
            ObserveError::new(format!("running `{}`", probe.argv.join(" ")), error)
        })
    }

    fn look_at_many(&self, count: usize, look: &(dyn Fn(usize) + Sync)) {
        let next = AtomicUsize::new(0);
        let some = || {
            loop {
                let begin = next.fetch_add(AT_A_TIME, Ordering::Relaxed);
                if begin >= count {
                    return;
                }
                (begin..count.min(begin + AT_A_TIME)).for_each(look);
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let reader = READER.with_borrow(Clone::clone);
        std::thread::scope(|scope| {
            for _ in 1..cores.min(count.div_ceil(AT_A_TIME)) {
                let (reader, some) = (reader.clone(), &some);
                scope.spawn(move || {
                    READER.set(reader);
                    some();
                });
            }
            some();
        });
    }
}

/// Opens a file that is one: never a pipe that would block, never a device.
fn open_regular(path: &RemotePath) -> io::Result<fs::File> {
    use rustix::fs::OFlags;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file =
        fs::File::from(super::links::open(path.as_path(), flags, super::links::Last::Refused)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write_in_a_folder_is_the_kernels_word() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = RemotePath::new(folder.path());
        let may = |user: &str| Host::default().may_write(&path, user).unwrap();
        assert!(may("root") && !may("nobody"));
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(folder.path(), mode).unwrap();
        assert!(may("nobody"));
    }
}
