//! What outlives a run on a host: who is changing it, what was done, what is owed.
//!
//! The journal is the only truth: lines of JSON, one file a run, written before and after each
//! change and synced. The ledger is folded from journals, so that not all of them have to be read
//! each time, and outlives those that are dropped. Losing all of it is harmless: nothing is pruned
//! then, and nothing can be undone.

mod folder;
mod lazy;
mod ledger;
mod objects;
mod read;
mod record;

use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags};

pub(super) use folder::{Lock, NotLocked, StateFolder, try_lock_account};
use ledger::Ledger;
pub(super) use ledger::{Left, Scope, Thing, by_debtor};
pub(super) use objects::Objects;
use read::Debts;
pub(super) use read::PastJournal;
pub(super) use record::{
    Begin, Debt, Done, End, Header, How, Line, Owes, Purpose, Reacting, VERSION, target_of_path,
    without_secrets,
};

use crate::change::{Change, Content};
use crate::graph::Graph;
use crate::report::{PastRun, RunInfo};
use crate::resource::ResourceId;
use crate::world::Digest;

/// Journals that are kept.
const KEPT_RUNS: usize = 20;
/// Largest ledger that is believed, in bytes.
const LEDGER_LIMIT: u64 = 256 << 20;
const LEDGER: &str = "ledger.json";

/// The records of a host as a run found them.
#[derive(Debug, Default)]
pub(super) struct Records {
    ledger: Ledger,
    /// Runs that died, oldest first.
    pub(super) cut_off: Vec<PastJournal>,
    /// Why nothing can be pruned, if records are unreadable.
    pub(super) unreadable: Option<String>,
}

impl Records {
    /// Reads what is there; no folder is no records.
    pub(super) fn read(folder: &StateFolder) -> Self {
        match Self::look(folder) {
            Ok(records) => records,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => {
                let place = folder.path().display();
                Self { unreadable: Some(format!("{place}: {error}")), ..Self::default() }
            }
        }
    }

    fn look(folder: &StateFolder) -> io::Result<Self> {
        let runs = folder.open("runs", false)?;
        let mut records = Self::default();
        match read_ledger(&runs)? {
            Some(Some(ledger)) => records.ledger = ledger,
            Some(None) => records.unreadable = Some(format!("{LEDGER} is not a ledger")),
            None => {}
        }
        let folded = records.ledger.folded.clone();
        let (journals, unreadable) = read::read_all(&runs, |id| !folded.contains(id))?;
        for journal in journals {
            records.ledger.fold(&journal);
            if journal.done.is_none() {
                records.cut_off.push(journal);
            }
        }
        if let Some(what) = unreadable.into_iter().next() {
            let place = folder.path().join("runs");
            records.unreadable = Some(format!(
                "{what}; what cannot be read may be removed from {}",
                place.display()
            ));
        }
        Ok(records)
    }

    /// Removes what a run that was killed has left half-written; only the holder of the lock may.
    pub(super) fn tidy(&self, folder: &StateFolder) {
        // What is not there need not be removed.
        if let Ok(runs) = folder.open("runs", false) {
            let _ = rustix::fs::unlinkat(&runs, format!(".{LEDGER}.new"), AtFlags::empty());
        }
        if !self.cut_off.is_empty()
            && let Ok(objects) = folder.open("objects", false)
        {
            Objects::new(objects).tidy();
        }
    }

    /// Takes over what is declared by now of things that are known, and writes that down.
    pub(super) fn refresh(
        &mut self,
        folder: &StateFolder,
        run: &RunInfo,
        graph: &Graph,
        adopted: bool,
    ) -> io::Result<()> {
        let new = self.ledger.refresh(&run.scope(), graph) || adopted;
        // With runs that are not closed yet, it is written when this run ends.
        if self.unreadable.is_none() && new && self.cut_off.is_empty() {
            let runs = folder.open("runs", true)?;
            folder::replace(&runs, LEDGER, &serde_json::to_vec(&self.ledger)?)?;
        }
        Ok(())
    }

    /// Takes over the records of a state file that has another name by now; false if there are
    /// none. They are written down as this run's own are.
    pub(super) fn adopt(&mut self, run: &RunInfo, names: &[String]) -> bool {
        let own = run.scope();
        let others = names.iter().map(|name| RunInfo { state_file: name.clone(), ..run.clone() });
        let adopted: Vec<bool> =
            others.map(|other| self.ledger.adopt(&other.scope(), &own)).collect();
        adopted.contains(&true)
    }

    /// Takes the records of a scope apart.
    pub(super) fn open(&mut self, run: &RunInfo) {
        if !self.ledger.open(&run.scope()) {
            self.unreadable = Some(format!("{LEDGER} has records that are none"));
        }
    }

    /// What is known of a scope.
    pub(super) fn scope(&self, run: &RunInfo) -> Option<Cow<'_, Scope>> {
        self.ledger.scope(&run.scope())
    }

    /// Runs that lost their controller while they were not changing anything.
    pub(super) fn interrupted(&self) -> &[RunInfo] {
        &self.ledger.interrupted
    }

    /// What is owed in a scope.
    pub(super) fn owed(&self, run: &RunInfo) -> Vec<Debt> {
        self.scope(run).map(|scope| scope.owed.clone()).unwrap_or_default()
    }
}

/// None if there is no ledger, `Some(None)` if it is not one.
fn read_ledger(runs: &OwnedFd) -> io::Result<Option<Option<Ledger>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = match rustix::fs::openat(runs, LEDGER, flags, Mode::empty()) {
        Ok(opened) => opened,
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let mut bytes = Vec::new();
    File::from(opened).take(LEDGER_LIMIT).read_to_end(&mut bytes)?;
    Ok(Some(Ledger::parse(&bytes)))
}

/// All journals of a host, oldest first, and what is wrong with those that cannot be read.
pub(super) fn past_runs(
    folder: &StateFolder,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<(Vec<PastJournal>, Vec<String>)> {
    match folder.open("runs", false) {
        Ok(runs) => read::read_all(&runs, wanted),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), Vec::new())),
        Err(error) => Err(error),
    }
}

/// How a run came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunEnd {
    /// All of it was done, and nothing differs.
    Verified,
    /// Something differs, or was left out.
    Incomplete,
    /// The controller is gone.
    CutOff,
}

/// The journal of the run that is going on.
pub(super) struct Journal {
    folder: StateFolder,
    file: File,
    runs: OwnedFd,
    pub(super) objects: Arc<Objects>,
    header: Header,
    ledger: Ledger,
    debts: Debts,
    /// The run so far, as it would be read back.
    seen: PastJournal,
    /// What the changes in hand owe, by their nodes.
    owes: HashMap<u32, Vec<Owes>>,
    failed: bool,
    /// Its last line is written.
    closed: bool,
    /// Bytes of differences that it shows so far.
    pub(super) shown: usize,
    /// Bytes of contents that were looked at for them.
    pub(super) looked_at: u64,
}

impl Journal {
    /// Begins a journal. Runs that died before are over from now on: what they owed is this run's.
    pub(super) fn create(
        folder: &StateFolder,
        records: Records,
        run: &RunInfo,
        purpose: Purpose,
        reacting: Vec<Reacting>,
    ) -> io::Result<Self> {
        let runs = folder.open("runs", true)?;
        let objects = Arc::new(Objects::new(folder.open("objects", true)?));
        for dead in &records.cut_off {
            close(folder, &runs, dead, &records.ledger)?;
        }
        let header = Header {
            version: VERSION,
            number: records.ledger.upto + 1,
            run: run.clone(),
            purpose,
            boot: boot_id(),
            reacting,
        };
        let name = format!("{}.jsonl", run.id);
        let flags = OFlags::WRONLY
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::APPEND
            | OFlags::NOFOLLOW
            | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(&runs, &name, flags, Mode::from_raw_mode(0o600))?;
        let owed = records.owed(run);
        let mut ledger = records.ledger;
        // They were told of with the plan.
        ledger.interrupted.clear();
        let mut journal = Self {
            folder: folder.clone(),
            file: File::from(opened),
            runs,
            objects,
            ledger,
            debts: Debts::new(owed),
            seen: PastJournal::begun(header.clone()),
            owes: HashMap::new(),
            failed: false,
            closed: false,
            shown: 0,
            looked_at: 0,
            header,
        };
        // The first change may be what fills the disk: what undo needs of older runs goes first.
        journal.make_room()?;
        let header = Line::Run(journal.header.clone());
        // It is on the disk with the first change.
        journal.add(&[header])?;
        rustix::fs::fsync(&journal.runs)?;
        Ok(journal)
    }

    /// Adds lines, and has them on the disk.
    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        self.add(lines)?;
        self.file.sync_data()
    }

    fn add(&mut self, lines: &[Line]) -> io::Result<()> {
        // After a line that came half-way, none that follows could be read.
        let length = self.file.metadata()?.len();
        let mut write = || {
            let mut text = Vec::new();
            for line in lines {
                text.clear();
                serde_json::to_writer(&mut text, line)?;
                text.push(b'\n');
                self.folder.add_line(&mut self.file, &text)?;
            }
            Ok(())
        };
        let written = write();
        if written.is_err() {
            let _ = self.file.set_len(length);
        }
        written
    }

    /// Says that changes are about to be made; nothing may be changed if that fails.
    pub(super) fn begin(&mut self, begins: Vec<Begin>) -> io::Result<()> {
        if self.closed {
            return Err(io::Error::other("it has ended"));
        }
        for begin in &begins {
            self.debts.incur(begin, &self.header);
            self.owes.insert(begin.node, begin.owes.clone());
        }
        let lines: Vec<Line> = begins.into_iter().map(Line::Begin).collect();
        self.write(&lines)?;
        self.seen.add(lines);
        Ok(())
    }

    /// Says how resources were left.
    pub(super) fn end(&mut self, ends: Vec<End>) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        for end in &ends {
            let owes = self.owes.remove(&end.node).unwrap_or_default();
            self.debts.settle(end, &owes);
        }
        let lines: Vec<Line> = ends.into_iter().map(Line::End).collect();
        self.write(&lines)?;
        self.seen.add(lines);
        Ok(())
    }

    /// Whether something is owed to a resource.
    pub(super) fn owes(&self, id: &ResourceId) -> bool {
        self.debts.owe(id)
    }

    /// Something failed or was left out.
    pub(super) fn fail(&mut self) {
        self.failed = true;
    }

    /// The last line; then the ledger takes the run in.
    pub(super) fn finish(&mut self, end: RunEnd) -> io::Result<()> {
        if std::mem::replace(&mut self.closed, true) {
            return Ok(());
        }
        let done = Done {
            failed: self.failed || end != RunEnd::Verified,
            cut_off: end == RunEnd::CutOff && !self.failed,
            verified: end == RunEnd::Verified && !self.failed,
            owed: self.debts.all(),
        };
        // Cut off here it is a run that died after all it had to do, which is as good.
        self.add(&[Line::Done(done.clone())])?;
        let own = self.seen.take(Some(done));
        if own.done.as_ref().is_some_and(|done| done.cut_off) {
            self.ledger.interrupted.push(self.header.run.clone());
        }
        self.ledger.fold(&own);
        let present: BTreeSet<String> = read::names(&self.runs)?
            .iter()
            .filter_map(|name| name.strip_suffix(".jsonl").map(str::to_owned))
            .collect();
        self.ledger.folded.retain(|run| present.contains(run));
        folder::replace(&self.runs, LEDGER, &serde_json::to_vec(&self.ledger)?)
    }

    /// Drops journals and contents of the oldest runs, as far as they are more than is kept. What
    /// the ledger has not taken in stays.
    fn make_room(&mut self) -> io::Result<()> {
        let names = read::names(&self.runs)?;
        let stat = self.objects.size()?;
        if names.len() <= KEPT_RUNS && stat <= objects::KEPT_BYTES / 2 {
            return Ok(());
        }
        let own = self.header.run.id.clone();
        let undone = match &self.header.purpose {
            Purpose::Undo(run) => Some(run.clone()),
            Purpose::Converge => None,
        };
        let (mut journals, _) = read::read_all(&self.runs, |id| id != own)?;
        // What is being taken back is needed to its end.
        if let Some(place) =
            journals.iter().position(|journal| Some(&journal.header.run.id) == undone.as_ref())
        {
            let journal = journals.remove(place);
            journals.push(journal);
        }
        // The ledger stands for what goes: it has to be on the disk first.
        folder::replace(&self.runs, LEDGER, &serde_json::to_vec(&self.ledger)?)?;
        let surplus = journals.len().saturating_sub(KEPT_RUNS);
        for old in journals.drain(..surplus) {
            let name = format!("{}.jsonl", old.header.run.id);
            rustix::fs::unlinkat(&self.runs, &name, AtFlags::empty())?;
            self.ledger.folded.remove(&old.header.run.id);
        }
        // The newest runs' contents first, as long as they fit into what is kept beside this run's.
        let mut wanted: HashSet<Digest> = HashSet::new();
        let mut room = objects::KEPT_BYTES / 2;
        for journal in journals.iter().rev() {
            let needed: HashMap<Digest, u64> = journal.contents().collect();
            let more: u64 = needed
                .iter()
                .filter(|(digest, _)| !wanted.contains(*digest))
                .map(|(_, size)| size)
                .sum();
            let Some(left) = room.checked_sub(more) else { break };
            room = left;
            wanted.extend(needed.into_keys());
        }
        self.objects.sweep(&wanted)
    }
}

impl PastJournal {
    /// The contents that undoing it takes.
    fn contents(&self) -> impl Iterator<Item = (Digest, u64)> {
        let touched = self.touched();
        let changes = touched.into_iter().flat_map(|(begin, ..)| &begin.changes);
        let needed = changes.filter_map(|change| match change {
            Change::Content { before: Content::File(id), .. } => Some((id.digest, id.size)),
            _ => None,
        });
        needed.collect::<Vec<_>>().into_iter()
    }
}

/// Writes the last line of a run that died.
fn close(
    folder: &StateFolder,
    runs: &OwnedFd,
    dead: &PastJournal,
    ledger: &Ledger,
) -> io::Result<()> {
    let owed = ledger.scope(&dead.header.run.scope()).map(|scope| scope.owed.clone());
    let done =
        Done { failed: true, cut_off: true, verified: false, owed: owed.unwrap_or_default() };
    let name = format!("{}.jsonl", dead.header.run.id);
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(rustix::fs::openat(runs, &name, flags, Mode::empty())?);
    // A line that the death cut off goes.
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    file.set_len(whole as u64)?;
    let mut line = serde_json::to_vec(&Line::Done(done))?;
    line.push(b'\n');
    std::io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
    folder.add_line(&mut file, &line)?;
    file.sync_data()
}

/// A journal as it is told to people, from the bytes of its file; none if it cannot be relied upon.
pub fn past_run(journal: &[u8]) -> Option<PastRun> {
    let journal = PastJournal::parse(journal).ok()?;
    // Whatever reads a journal gets along with each that could be parsed.
    let _ = (journal.in_hand(), journal.contents().count());
    Some(journal.past(false))
}

/// The bytes of the ledger's file after a run, from those before it and of the run's journal; none
/// if one of them cannot be relied upon.
pub fn next_ledger(ledger: &[u8], journal: &[u8]) -> Option<Vec<u8>> {
    let mut ledger = Ledger::parse(ledger)?;
    ledger.fold(&PastJournal::parse(journal).ok()?);
    serde_json::to_vec(&ledger).ok()
}

/// What the kernel calls this boot.
pub(super) fn boot_id() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}
