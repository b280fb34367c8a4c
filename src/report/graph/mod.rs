//! The order of resources as a picture: Graphviz's language, Mermaid's, or SVG.
//!
//! All of it is deterministic: the same graph is the same text.

mod dot;
mod layout;
mod mermaid;
mod svg;

use super::clean;

/// What there is to draw for one host, or for several whose graphs are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphPicture {
    /// Whose graph it is.
    pub hosts: Vec<String>,
    /// In their order; each is done before the next one begins.
    pub plays: Vec<GraphPlay>,
}

/// A play.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphPlay {
    /// Its name.
    pub name: String,
    /// What is done, in an order that respects all edges.
    pub boxes: Vec<GraphBox>,
    /// What comes before what.
    pub edges: Vec<GraphEdge>,
}

/// What is done in one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphBox {
    /// What is written in it, a line for each resource.
    pub lines: Vec<String>,
    /// More about them: places, why something is left out.
    pub title: Vec<String>,
    /// Whether it is certain to have something to do.
    pub standing: GraphStanding,
}

/// How a box stands out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphStanding {
    /// It does not.
    Certain,
    /// It is left out: grey.
    LeftOut,
    /// That needs facts: dashed.
    Undecided,
    /// It is the reaction of a service: round.
    Reaction,
}

impl GraphStanding {
    /// As classes of drawings are called.
    const fn class(self) -> &'static str {
        match self {
            Self::Certain => "certain",
            Self::LeftOut => "skipped",
            Self::Undecided => "undecided",
            Self::Reaction => "reaction",
        }
    }
}

/// That a box comes before another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphEdge {
    /// The number of the box that comes before, in its play.
    pub from: usize,
    /// The number of the other one, which is larger.
    pub to: usize,
    /// Whether the project says so; otherwise they touch the same.
    pub said: bool,
    /// Why, in a word or two each.
    pub labels: Vec<String>,
    /// Why, in sentences with the places of both.
    pub title: Vec<String>,
}

impl GraphEdge {
    /// An edge without reasons so far.
    pub fn between(from: usize, to: usize) -> Self {
        Self { from, to, ..Self::default() }
    }
}

/// The languages of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GraphFormat {
    /// Graphviz (graphviz.org/doc/info/lang.html).
    Dot,
    /// Mermaid (mermaid.js.org/syntax/flowchart.html), which many forges draw in Markdown.
    Mermaid,
    /// A picture for browsers, without scripts and fonts of its own.
    Svg,
}

/// Draws graphs; equal ones are one picture already.
pub fn draw(pictures: &[GraphPicture], format: GraphFormat) -> String {
    match format {
        GraphFormat::Dot => dot::draw(pictures),
        GraphFormat::Mermaid => mermaid::draw(pictures),
        GraphFormat::Svg => svg::draw(pictures),
    }
}

/// A name in one line, of characters that every language can hold: XML 1.0 (2.2) has no place for
/// two that are none.
fn one_line(text: &str) -> String {
    clean::line(text).replace(['\u{fffe}', '\u{ffff}'], "\u{fffd}")
}

/// The names of a picture's hosts.
fn hosts(picture: &GraphPicture) -> String {
    one_line(&picture.hosts.join(", "))
}
