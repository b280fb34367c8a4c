/// How a piece of text stands out; everything is readable without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Blue,
    Cyan,
}

impl Ink {
    /// The parameter of "select graphic rendition" (ECMA-48, 8.3.117).
    const fn code(self) -> u8 {
        match self {
            Self::Bold => 1,
            Self::Dim => 2,
            Self::Red => 31,
            Self::Green => 32,
            Self::Yellow => 33,
            Self::Blue => 34,
            Self::Cyan => 36,
        }
    }
}

/// Colours text, or leaves it alone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    pub(super) fn new(colour: bool) -> Self {
        if colour { Self::Coloured } else { Self::Plain }
    }

    pub(super) fn ink(self, ink: Ink, text: &str) -> String {
        match self {
            Self::Coloured if !text.is_empty() => format!("\x1b[{}m{text}\x1b[0m", ink.code()),
            _ => text.to_owned(),
        }
    }

    /// A line of a diff in the colour of its sign.
    pub(super) fn diff_line(self, line: &str) -> String {
        let ink = if line.starts_with("@@") {
            Ink::Cyan
        } else if line.starts_with("--- ") || line.starts_with("+++ ") {
            Ink::Bold
        } else {
            match line.as_bytes().first() {
                Some(b'+') => Ink::Green,
                Some(b'-') => Ink::Red,
                Some(b'~') => Ink::Yellow,
                _ => return line.to_owned(),
            }
        };
        self.ink(ink, line)
    }
}
