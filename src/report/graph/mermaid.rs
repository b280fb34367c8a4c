use std::fmt::Write as _;

use super::{GraphPicture, GraphPlay, GraphStanding, hosts, one_line};

/// A flow chart in Mermaid's language.
pub(super) fn draw(pictures: &[GraphPicture]) -> String {
    let mut text = String::from("flowchart TD\n");
    for (index, picture) in pictures.iter().enumerate() {
        // A string takes whatever is written to it; so below.
        let _ = writeln!(text, "  subgraph h{index}[{}]", quoted(&[hosts(picture)]));
        for (number, play) in picture.plays.iter().enumerate() {
            subgraph(&mut text, play, &format!("{index}_{number}"));
        }
        text.push_str("  end\n");
        for number in 1..picture.plays.len() {
            let _ = writeln!(text, "  p{index}_{} ==> p{index}_{number}", number - 1);
        }
    }
    text.push_str("  classDef skipped stroke:#999,color:#999\n");
    text.push_str("  classDef undecided stroke-dasharray:5 4\n");
    for standing in [GraphStanding::LeftOut, GraphStanding::Undecided] {
        let boxes: Vec<String> = standing_boxes(pictures, standing);
        if !boxes.is_empty() {
            let _ = writeln!(text, "  class {} {}", boxes.join(","), standing.class());
        }
    }
    text
}

fn standing_boxes(pictures: &[GraphPicture], standing: GraphStanding) -> Vec<String> {
    let mut names = Vec::new();
    for (index, picture) in pictures.iter().enumerate() {
        for (number, play) in picture.plays.iter().enumerate() {
            let fitting =
                play.boxes.iter().enumerate().filter(|(_, drawn)| drawn.standing == standing);
            names.extend(fitting.map(|(one, _)| format!("n{index}_{number}_{one}")));
        }
    }
    names
}

fn subgraph(text: &mut String, play: &GraphPlay, id: &str) {
    let _ = writeln!(text, "    subgraph p{id}[{}]", quoted(&[one_line(&play.name)]));
    for (number, drawn) in play.boxes.iter().enumerate() {
        let lines: Vec<String> = drawn.lines.iter().map(|line| one_line(line)).collect();
        let (open, close) = match drawn.standing {
            GraphStanding::Reaction => ("([", "])"),
            _ => ("[", "]"),
        };
        let _ = writeln!(text, "      n{id}_{number}{open}{}{close}", quoted(&lines));
    }
    for edge in &play.edges {
        let arrow = if edge.said { "-->" } else { "-.->" };
        let label = quoted(&[one_line(&edge.labels.join(", "))]);
        let _ = writeln!(text, "      n{id}_{} {arrow}|{label}| n{id}_{}", edge.from, edge.to);
    }
    text.push_str("    end\n");
}

/// Lines in quotes. Quotes have no escape: entities stand for all that could end the text, or be
/// Markdown or HTML in it.
fn quoted(lines: &[String]) -> String {
    let lines: Vec<String> = lines.iter().map(|line| escaped(line)).collect();
    format!("\"{}\"", lines.join("<br/>"))
}

fn escaped(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut before = ' ';
    let mut characters = line.chars().peekable();
    while let Some(character) = characters.next() {
        // Within a word it emphasizes nothing.
        let within = character == '_'
            && before.is_alphanumeric()
            && characters.peek().is_some_and(|next| next.is_alphanumeric());
        let plain = !character.is_ascii()
            || character.is_ascii_alphanumeric()
            || " :/.,-=+@()".contains(character);
        if plain || within {
            text.push(character);
        } else {
            let _ = write!(text, "#{};", u32::from(character));
        }
        before = character;
    }
    text
}
