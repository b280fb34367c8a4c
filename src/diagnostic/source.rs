use std::sync::{Arc, RwLock};

/// Names one text that was read: a file, or a command-line argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// A piece of a source, in bytes, end exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The text.
    pub source: SourceId,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

impl Span {
    /// A span of `source` from `start` to `end`; ends past 4 GiB are cut.
    pub fn new(source: SourceId, start: usize, end: usize) -> Self {
        let cut = |offset: usize| u32::try_from(offset).unwrap_or(u32::MAX);
        Self { source, start: cut(start), end: cut(end.max(start)) }
    }

    /// A piece of this span, given relative to its start and kept within it.
    #[must_use]
    pub fn part(self, start: usize, end: usize) -> Self {
        let limit = (self.end - self.start) as usize;
        let base = self.start as usize;
        Self::new(self.source, base + start.min(limit), base + end.min(limit))
    }
}

/// A place as people read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The source's name, as the user would type it.
    pub name: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
}

impl std::fmt::Display for Place {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}:{}:{}", self.name, self.line, self.column)
    }
}

#[derive(Debug)]
struct Source {
    name: String,
    text: Arc<str>,
    /// Whether messages show its places only.
    hidden: bool,
    /// Byte offsets at which lines begin.
    lines: Vec<u32>,
}

/// All texts that were read so far; only ever grows, and can be shared between threads.
#[derive(Debug, Default)]
pub struct Sources {
    list: RwLock<Vec<Source>>,
}

impl Sources {
    /// Remembers a text under the name that messages show.
    pub fn add(&self, name: impl Into<String>, text: impl Into<Arc<str>>) -> SourceId {
        self.push(name.into(), text.into(), false)
    }

    /// The same of a text that was decrypted: messages show places in it, and none of its lines.
    pub fn add_hidden(&self, name: impl Into<String>, text: impl Into<Arc<str>>) -> SourceId {
        self.push(name.into(), text.into(), true)
    }

    fn push(&self, name: String, text: Arc<str>, hidden: bool) -> SourceId {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let lines = std::iter::once(0)
            .chain(starts.map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX)))
            .collect();
        let mut list = self.list.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        list.push(Source { name, text, hidden, lines });
        SourceId(u32::try_from(list.len() - 1).unwrap_or(u32::MAX))
    }

    fn with<T>(&self, id: SourceId, read: impl FnOnce(&Source) -> T) -> Option<T> {
        let list = self.list.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        list.get(id.0 as usize).map(read)
    }

    /// All that were read so far.
    pub fn ids(&self) -> Vec<SourceId> {
        let list = self.list.read().unwrap_or_else(|poisoned| poisoned.into_inner());
        (0..list.len()).filter_map(|index| u32::try_from(index).ok()).map(SourceId).collect()
    }

    /// The whole text; empty for an id of another list.
    pub fn text(&self, id: SourceId) -> Arc<str> {
        self.with(id, |source| source.text.clone()).unwrap_or_else(|| Arc::from(""))
    }

    /// Whether messages show nothing of it.
    pub fn is_hidden(&self, id: SourceId) -> bool {
        self.with(id, |source| source.hidden).unwrap_or(false)
    }

    /// The name that messages show.
    pub fn name(&self, id: SourceId) -> String {
        self.with(id, |source| source.name.clone()).unwrap_or_default()
    }

    /// The text of a span.
    pub fn slice(&self, span: Span) -> String {
        let text = self.text(span.source);
        text.get(span.start as usize..span.end as usize).unwrap_or_default().to_owned()
    }

    /// Line and column right behind a span's last character.
    pub fn end(&self, span: Span) -> Place {
        self.place(Span { start: span.end, ..span })
    }

    /// Line and column of a span's start.
    pub fn place(&self, span: Span) -> Place {
        self.with(span.source, |source| {
            let line = source.lines.partition_point(|start| *start <= span.start).max(1);
            let start = source.lines[line - 1] as usize;
            let before = source.text.get(start..span.start as usize).unwrap_or_default();
            Place { name: source.name.clone(), line, column: before.chars().count() + 1 }
        })
        .unwrap_or_else(|| Place { name: String::new(), line: 1, column: 1 })
    }
}
