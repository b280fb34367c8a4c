use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags};

use super::record::{Begin, Debt, Done, End, Header, Line, Owes, Purpose, VERSION};
use crate::change::PackageMove;
use crate::report::{PastOutcome, PastResource, PastRun, PastVerdict};
use crate::resource::ResourceId;

/// Longest journal that is read, in bytes.
const JOURNAL_LIMIT: u64 = 512 << 20;

/// A journal as it was found.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::agent) struct PastJournal {
    pub(in crate::agent) header: Header,
    events: Vec<Event>,
    /// How the run ended; none if it was cut off, or is going on.
    pub(in crate::agent) done: Option<Done>,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    Begin(Begin),
    End(End),
}

/// A journal cannot be relied upon.
#[derive(Debug, thiserror::Error)]
pub(in crate::agent) enum Unreadable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("line {0} is not one of a journal of this version")]
    Line(usize),
    #[error("it does not begin as a journal does")]
    Header,
}

impl PastJournal {
    /// Reads a journal. A last line that was cut off by a power loss is as if it were not there:
    /// what it announced had not begun.
    pub(in crate::agent) fn parse(source: impl Read) -> Result<Self, Unreadable> {
        let mut reader = BufReader::new(source.take(JOURNAL_LIMIT));
        let mut header = None;
        let mut events = Vec::new();
        let mut done = None;
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            reader.read_until(b'\n', &mut line)?;
            if line.last() != Some(&b'\n') {
                break;
            }
            match serde_json::from_slice(&line) {
                Ok(Line::Run(run)) if header.is_none() && run.version == VERSION => {
                    header = Some(run);
                }
                Ok(Line::Begin(begin)) if header.is_some() => events.push(Event::Begin(begin)),
                Ok(Line::End(end)) if header.is_some() => events.push(Event::End(end)),
                Ok(Line::Done(end)) if header.is_some() => done = Some(end),
                _ => return Err(Unreadable::Line(number)),
            }
        }
        Ok(Self { header: header.ok_or(Unreadable::Header)?, events, done })
    }

    /// A journal of which nothing is written yet but which run it is of.
    pub(in crate::agent) fn begun(header: Header) -> Self {
        Self { header, events: Vec::new(), done: None }
    }

    /// Takes in lines that were written.
    pub(in crate::agent) fn add(&mut self, lines: Vec<Line>) {
        self.events.extend(lines.into_iter().filter_map(|line| match line {
            Line::Begin(begin) => Some(Event::Begin(begin)),
            Line::End(end) => Some(Event::End(end)),
            Line::Run(_) | Line::Done(_) => None,
        }));
    }

    /// All of it, with its end.
    pub(in crate::agent) fn take(&mut self, done: Option<Done>) -> Self {
        let events = std::mem::take(&mut self.events);
        Self { header: self.header.clone(), events, done }
    }

    /// What it touched, in the order in which it was through with it, and how it left that.
    /// Where packages moved, with those that did.
    pub(in crate::agent) fn touched(&self) -> Vec<(&Begin, PastOutcome, &[PackageMove])> {
        let touched = self.ended().into_iter();
        touched
            .map(|(begin, end)| {
                (begin, outcome(end), end.map_or(&[][..], |end| end.moved.as_slice()))
            })
            .collect()
    }

    /// In the order in which it was through with them: what was in hand when it died comes last.
    fn ended(&self) -> Vec<(&Begin, Option<&End>)> {
        let mut touched: Vec<(&Begin, Option<&End>)> = Vec::new();
        let mut open: BTreeMap<usize, &Begin> = BTreeMap::new();
        let mut places: HashMap<u32, usize> = HashMap::new();
        for (place, event) in self.events.iter().enumerate() {
            match event {
                Event::Begin(begin) => {
                    places.insert(begin.node, place);
                    open.insert(place, begin);
                }
                Event::End(end) => {
                    let begin = places.remove(&end.node).and_then(|place| open.remove(&place));
                    touched.extend(begin.map(|begin| (begin, Some(end))));
                }
            }
        }
        touched.extend(open.into_values().map(|begin| (begin, None)));
        touched
    }

    /// Resources that were being changed when the run died.
    pub(in crate::agent) fn in_hand(&self) -> impl Iterator<Item = &Begin> {
        let open = self.ended().into_iter().filter(|(_, end)| end.is_none());
        open.map(|(begin, _)| begin)
    }

    /// All that is owed after it, if that was owed before.
    pub(in crate::agent) fn owed(&self, before: Vec<Debt>) -> Vec<Debt> {
        if let Some(done) = &self.done {
            return done.owed.clone();
        }
        let mut debts = Debts::new(before);
        let mut owes: HashMap<u32, &[Owes]> = HashMap::new();
        for event in &self.events {
            match event {
                // Whether it came to be is not known: better a reaction too many.
                Event::Begin(begin) => {
                    debts.incur(begin, &self.header);
                    owes.insert(begin.node, &begin.owes);
                }
                Event::End(end) => {
                    debts.settle(end, owes.get(&end.node).copied().unwrap_or_default());
                }
            }
        }
        debts.all()
    }

    /// The run as people read it.
    pub(in crate::agent) fn past(&self, running: bool) -> PastRun {
        let resources = self.ended().into_iter().map(|(begin, end)| PastResource {
            id: begin.id.to_string(),
            at: begin.at.clone(),
            outcome: outcome(end),
            because: end.map(|end| end.because.clone()).unwrap_or_default(),
            changes: begin.shown.clone(),
        });
        PastRun {
            info: self.header.run.clone(),
            purpose: match &self.header.purpose {
                Purpose::Converge => String::from("converge"),
                Purpose::Undo(run) => format!("undo {run}"),
            },
            verdict: match &self.done {
                None if running => PastVerdict::Running,
                None | Some(Done { cut_off: true, .. }) => PastVerdict::CutOff,
                Some(Done { failed: true, .. }) => PastVerdict::Failed,
                Some(_) => PastVerdict::Ok,
            },
            verified: self.done.as_ref().is_some_and(|done| done.verified),
            resources: resources.collect(),
        }
    }
}

fn outcome(end: Option<&End>) -> PastOutcome {
    end.map_or(PastOutcome::CutOff, |end| end.outcome)
}

/// What is owed, while a run goes on.
#[derive(Clone, Debug, Default)]
pub(in crate::agent) struct Debts {
    /// By whom it is owed to, then by what changed.
    owed: BTreeMap<ResourceId, BTreeMap<ResourceId, Debt>>,
}

impl Debts {
    pub(in crate::agent) fn new(owed: Vec<Debt>) -> Self {
        let mut debts = Self::default();
        for debt in owed {
            debts.owed.entry(debt.to.clone()).or_default().insert(debt.from.clone(), debt);
        }
        debts
    }

    /// All of it, in one order.
    pub(in crate::agent) fn all(&self) -> Vec<Debt> {
        self.owed.values().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Whether something is owed to a resource.
    pub(in crate::agent) fn owe(&self, to: &ResourceId) -> bool {
        self.owed.contains_key(to)
    }

    /// A change has begun: from now on it may have happened.
    pub(in crate::agent) fn incur(&mut self, begin: &Begin, header: &Header) {
        for Owes { to, how } in &begin.owes {
            let debt = Debt {
                to: to.clone(),
                how: *how,
                from: begin.id.clone(),
                run: header.run.id.clone(),
                boot: header.boot.clone(),
                finished: None,
            };
            self.owed.entry(to.clone()).or_default().insert(begin.id.clone(), debt);
        }
    }

    /// A resource is done: what was owed to it is settled, and what it owes has a time now.
    pub(in crate::agent) fn settle(&mut self, end: &End, owes: &[Owes]) {
        if matches!(end.outcome, PastOutcome::Changed | PastOutcome::Met) {
            self.owed.remove(&end.id);
        }
        for Owes { to, .. } in owes {
            let Some(debts) = self.owed.get_mut(to) else { continue };
            if let Some(debt) = debts.get_mut(&end.id) {
                debt.finished = Some(end.finished);
            }
        }
    }
}

/// All journals of a folder, oldest first, and what is wrong with those that cannot be read.
pub(in crate::agent) fn read_all(
    folder: &OwnedFd,
    wanted: impl Fn(&str) -> bool,
) -> io::Result<(Vec<PastJournal>, Vec<String>)> {
    let mut journals = Vec::new();
    let mut unreadable = Vec::new();
    for name in names(folder)? {
        let Some(id) = name.strip_suffix(".jsonl").filter(|id| wanted(id)) else { continue };
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let read = rustix::fs::openat(folder, &name, flags, Mode::empty())
            .map_err(|error| Unreadable::Io(error.into()))
            .and_then(|opened| PastJournal::parse(File::from(opened)));
        match read {
            Ok(journal) if journal.header.run.id == id => journals.push(journal),
            Ok(_) => unreadable.push(format!("{name}: it is of another run")),
            // A run that died before its first line changed nothing.
            Err(Unreadable::Header) => {}
            Err(error) => unreadable.push(format!("{name}: {error}")),
        }
    }
    journals.sort_by_key(|journal| journal.header.number);
    Ok((journals, unreadable))
}

/// The names of a folder's journals.
pub(in crate::agent) fn names(folder: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let entry = entry?;
        if let Ok(name) = entry.file_name().to_str()
            && name.ends_with(".jsonl")
        {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
}
