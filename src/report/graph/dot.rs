use std::fmt::Write as _;

use super::{GraphPicture, GraphPlay, GraphStanding, hosts, one_line};

/// A graph in Graphviz's language.
pub(super) fn draw(pictures: &[GraphPicture]) -> String {
    let mut text = String::from(
        "digraph converge {\n  compound=true\n  node [shape=box, fontname=\"monospace\"]\n  \
         edge [fontname=\"sans-serif\", fontsize=10]\n",
    );
    for (index, picture) in pictures.iter().enumerate() {
        // A string takes whatever is written to it; so below.
        let _ = writeln!(text, "  subgraph cluster_{index} {{");
        let _ = writeln!(text, "    label={}", quoted(&[hosts(picture)]));
        for (number, play) in picture.plays.iter().enumerate() {
            cluster(&mut text, play, &format!("{index}_{number}"));
        }
        for (number, pair) in picture.plays.windows(2).enumerate() {
            let [earlier, later] = pair else { continue };
            let title = format!("the play {} is done before {} begins", earlier.name, later.name);
            let _ = writeln!(
                text,
                "    n{index}_{number}_{} -> n{index}_{}_0 [ltail=cluster_{index}_{number}, \
                 lhead=cluster_{index}_{}, style=bold, tooltip={}]",
                earlier.boxes.len().saturating_sub(1),
                number + 1,
                number + 1,
                quoted(&[one_line(&title)]),
            );
        }
        text.push_str("  }\n");
    }
    text.push_str("}\n");
    text
}

fn cluster(text: &mut String, play: &GraphPlay, id: &str) {
    let _ = writeln!(text, "    subgraph cluster_{id} {{");
    let _ = writeln!(text, "      label={}", quoted(&[one_line(&play.name)]));
    for (number, drawn) in play.boxes.iter().enumerate() {
        let style = match drawn.standing {
            GraphStanding::Certain => "",
            GraphStanding::LeftOut => ", color=gray, fontcolor=gray",
            GraphStanding::Undecided => ", style=dashed",
            GraphStanding::Reaction => ", style=rounded",
        };
        let _ = writeln!(
            text,
            "      n{id}_{number} [label={}, tooltip={}{style}]",
            quoted(&lines(&drawn.lines)),
            quoted(&lines(&drawn.title)),
        );
    }
    for edge in &play.edges {
        let _ = writeln!(
            text,
            "      n{id}_{} -> n{id}_{} [label={}, tooltip={}{}]",
            edge.from,
            edge.to,
            quoted(&[one_line(&edge.labels.join(", "))]),
            quoted(&lines(&edge.title)),
            if edge.said { "" } else { ", color=gray40" },
        );
    }
    text.push_str("    }\n");
}

fn lines(lines: &[String]) -> Vec<String> {
    lines.iter().map(|line| one_line(line)).collect()
}

/// Lines as a quoted string of the type `escString`, in which a backslash begins an escape.
fn quoted(lines: &[String]) -> String {
    let escape = |line: &String| line.replace('\\', "\\\\").replace('"', "\\\"");
    let lines: Vec<String> = lines.iter().map(escape).collect();
    format!("\"{}\"", lines.join("\\n"))
}
