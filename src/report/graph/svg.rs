use std::fmt::Write as _;

use super::layout::{Layout, Size, layout};
use super::{GraphBox, GraphPicture, GraphPlay, GraphStanding, hosts, one_line};

/// Around the whole, and around the boxes of a play.
const MARGIN: f64 = 24.0;
/// The height of a line of text.
const LINE: f64 = 17.0;
/// Between the side of a box and its text.
const PADDING: f64 = 9.0;
/// The width of a character in the fonts that `monospace` stands for, at 13 pixels.
const CHARACTER: f64 = 7.85;
/// Room for the name of a play, or of hosts.
const HEADING: f64 = 28.0;
/// Between plays, for the arrow.
const PLAY_GAP: f64 = 44.0;
/// How far the tip of an arrow reaches beyond the end of its line.
const TIP: f64 = 7.0;

const STYLE: &str = "\
:root{--paper:#fff;--ink:#1c2024;--quiet:#8b8d98;--frame:#d9d9e0;--box:#f4f6fb;--line:#7f8490;--said:#3451b2}\n\
@media (prefers-color-scheme:dark){:root{--paper:#16181b;--ink:#edeef0;--quiet:#7b7f87;--frame:#363a40;\
--box:#22262c;--line:#8b919b;--said:#8da4ef}}\n\
.paper{fill:var(--paper)}\n\
text{font:13px monospace;fill:var(--ink)}\n\
.hosts{font:bold 15px sans-serif}.play{font:13px sans-serif;fill:var(--quiet)}\n\
.frame{fill:none;stroke:var(--frame)}\n\
.box{fill:var(--box);stroke:var(--line)}\n\
.skipped .box{fill:none;stroke:var(--frame)}.skipped text{fill:var(--quiet)}\n\
.undecided .box{stroke-dasharray:5 4}\n\
.edge path{fill:none;stroke:var(--line);stroke-width:1.2}.edge .tip{fill:var(--line);stroke:none}\n\
.said path{stroke:var(--said)}.said .tip{fill:var(--said)}\n\
.edge .near{stroke:transparent;stroke-width:9}.edge:hover path:not(.near){stroke-width:2.4}\n";

/// A picture for browsers. The reason and the places of an edge are shown when it is pointed at.
pub(super) fn draw(pictures: &[GraphPicture]) -> String {
    let mut body = String::new();
    let (mut width, mut y) = (0.0_f64, MARGIN);
    for picture in pictures {
        y += LINE;
        write(&mut body, format_args!("<text class=\"hosts\" x=\"{MARGIN}\" y=\"{y}\">"));
        body.push_str(&escaped(&hosts(picture)));
        body.push_str("</text>\n");
        width = width.max(text_width(&hosts(picture)) * 1.2);
        y += HEADING - LINE;
        let mut frame_before: Option<(f64, f64)> = None;
        for play in &picture.plays {
            if let Some((x, bottom)) = frame_before {
                y += PLAY_GAP;
                then(&mut body, x, bottom, y);
            }
            let (play_width, play_height) = draw_play(&mut body, play, y);
            width = width.max(play_width);
            y += play_height;
            frame_before = Some((MARGIN + HEADING, y));
        }
        y += MARGIN;
    }
    let (width, height) = (number(width + 2.0 * MARGIN), number(y));
    let mut text = String::new();
    write(
        &mut text,
        format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             width=\"{width}\" height=\"{height}\">\n<style>\n{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        ),
    );
    text
}

/// Draws a play below `top`, and says how large it is.
fn draw_play(body: &mut String, play: &GraphPlay, top: f64) -> (f64, f64) {
    let sizes: Vec<Size> = play.boxes.iter().map(size).collect();
    let edges: Vec<(usize, usize)> = play.edges.iter().map(|edge| (edge.from, edge.to)).collect();
    let Layout { corners, routes, width, height } = layout(&sizes, &edges);
    let name = one_line(&play.name);
    let width = width.max(text_width(&name)) + 2.0 * MARGIN;
    let height = HEADING + height + MARGIN;
    write(
        body,
        format_args!(
            "<rect class=\"frame\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n\
             <text class=\"play\" x=\"{}\" y=\"{}\">{}</text>\n",
            number(MARGIN),
            number(top),
            number(width),
            number(height),
            number(MARGIN + PADDING),
            number(top + LINE),
            escaped(&name),
        ),
    );
    let (left, top) = (2.0 * MARGIN, top + HEADING);
    for (edge, route) in play.edges.iter().zip(&routes) {
        let class = if edge.said { "edge said" } else { "edge" };
        let title: Vec<String> = edge.title.iter().map(|line| one_line(line)).collect();
        write(
            body,
            format_args!(
                "<g class=\"{class}\"><title>{}</title>{}</g>\n",
                escaped(&title.join("\n")),
                arrow(route, left, top),
            ),
        );
    }
    for ((drawn, size), (x, y)) in play.boxes.iter().zip(&sizes).zip(&corners) {
        draw_box(body, drawn, *size, left + x, top + y);
    }
    (width, height)
}

fn draw_box(body: &mut String, drawn: &GraphBox, size: Size, x: f64, y: f64) {
    let title: Vec<String> = drawn.title.iter().map(|line| one_line(line)).collect();
    let round = if drawn.standing == GraphStanding::Reaction { size.height / 2.0 } else { 3.0 };
    write(
        body,
        format_args!(
            "<g class=\"{}\"><title>{}</title><rect class=\"box\" x=\"{}\" y=\"{}\" width=\"{}\" \
             height=\"{}\" rx=\"{}\"/>",
            drawn.standing.class(),
            escaped(&title.join("\n")),
            number(x),
            number(y),
            number(size.width),
            number(size.height),
            number(round),
        ),
    );
    let mut baseline = y + PADDING + LINE - 5.0;
    for line in &drawn.lines {
        let line = escaped(&one_line(line));
        let (x, y) = (number(x + PADDING), number(baseline));
        write(body, format_args!("<text x=\"{x}\" y=\"{y}\" xml:space=\"preserve\">{line}</text>"));
        baseline += LINE;
    }
    body.push_str("</g>\n");
}

fn size(drawn: &GraphBox) -> Size {
    let widest = drawn.lines.iter().map(|line| text_width(&one_line(line))).fold(0.0, f64::max);
    let lines = drawn.lines.len() as f64;
    Size { width: widest + 2.0 * PADDING, height: lines * LINE + 2.0 * PADDING - 2.0 }
}

/// How wide a text is at most; East Asian characters are as wide as two.
fn text_width(text: &str) -> f64 {
    let wide = |character: char| if character >= '\u{1100}' { 2.0 } else { 1.0 };
    text.chars().map(wide).sum::<f64>() * CHARACTER
}

/// The line of an edge, its tip, and a broad one that nobody sees and that is easy to point at.
fn arrow(route: &[(f64, f64)], left: f64, top: f64) -> String {
    let mut path = String::new();
    let last = route.len().saturating_sub(1);
    let mut before = (0.0, 0.0);
    for (index, (x, y)) in route.iter().enumerate() {
        let (x, y) = (x + left, y + top - if index == last { TIP } else { 0.0 });
        let (to_x, to_y) = (number(x), number(y));
        if index == 0 {
            write(&mut path, format_args!("M{to_x},{to_y}"));
        } else if index % 2 == 1 {
            // From layer to layer.
            let middle = number((before.1 + y) / 2.0);
            let from_x = number(before.0);
            write(&mut path, format_args!("C{from_x},{middle} {to_x},{middle} {to_x},{to_y}"));
        } else {
            write(&mut path, format_args!("L{to_x},{to_y}"));
        }
        before = (x, y);
    }
    let (x, y) = before;
    format!("<path class=\"near\" d=\"{path}\"/><path d=\"{path}\"/>{}", tip(x, y))
}

fn tip(x: f64, y: f64) -> String {
    let (left, right, end) = (number(x - 4.0), number(x + 4.0), number(y + TIP));
    let (x, y) = (number(x), number(y));
    format!("<path class=\"tip\" d=\"M{left},{y}L{right},{y}L{x},{end}z\"/>")
}

/// That a play is done before the next one begins.
fn then(body: &mut String, x: f64, from: f64, to: f64) {
    let end = to - TIP;
    write(
        body,
        format_args!(
            "<g class=\"edge\"><path d=\"M{},{}V{}\"/>{}</g>\n",
            number(x),
            number(from),
            number(end),
            tip(x, end),
        ),
    );
}

/// A length in pixels, with one decimal where it needs one.
fn number(length: f64) -> String {
    let tenths = (length * 10.0).round() / 10.0 + 0.0;
    format!("{tenths}")
}

fn write(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _ = text.write_fmt(what);
}

/// Text between tags (XML 1.0, 2.4).
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
