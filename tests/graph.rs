//! `converge graph`: pictures and answers are those in `tests/graph`, and what is in them is right in
//! the languages that they are written in.
//!
//! With `CONVERGE_ACCEPT=1` in the environment the expectations are written anew.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use converge::report::{
    GraphBox, GraphEdge, GraphFormat, GraphPicture, GraphPlay, GraphStanding, draw,
};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/graph")
}

fn converge(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_converge"))
        .args(["graph", "-i", "inventory.yml"])
        .args(arguments)
        .current_dir(folder())
        .output()
        .unwrap()
}

fn graph(arguments: &[&str]) -> String {
    let output = converge(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn check(path: &Path, made: &str) {
    if std::env::var_os("CONVERGE_ACCEPT").is_some() {
        fs::write(path, made).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert!(made == expected, "{}\n---- expected\n{expected}---- made\n{made}", path.display());
}

#[test]
fn pictures_are_drawn_in_each_language() {
    for format in ["dot", "mermaid", "svg"] {
        let made = graph(&["site.yml", "--format", format]);
        check(&folder().join(format!("site.{format}")), &made);
        assert_eq!(
            made,
            graph(&["site.yml", "--format", format]),
            "the same graph is the same text"
        );
    }
    let one = graph(&["site.yml", "--limit", "db1"]);
    assert!(one.contains("label=\"db1\"") && !one.contains("web1"), "{one}");
}

#[test]
fn the_picture_of_the_book_is_this_one() {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("book/src");
    check(&book.join("order.svg"), &graph(&["shop.yml", "--format", "svg"]));
    let page = fs::read_to_string(book.join("order.md")).unwrap();
    assert!(page.contains("](order.svg)"));
    let shop = fs::read_to_string(folder().join("shop.yml")).unwrap();
    assert!(page.contains(&shop), "the page shows another state file than tests/graph/shop.yml");
    let why = graph(&["shop.yml", "--why", "user:shop", "service:shop"]);
    assert!(page.contains(&why), "the page has another answer than\n{why}");
}

#[test]
fn what_orders_two_resources_is_said() {
    let questions = [
        // An edge.
        ["user:shop", "directory:/srv/shop"],
        // The other way round.
        ["directory:/srv/shop", "user:shop"],
        // A path; a glob; an `id`.
        ["group:shop", "file:*/robots.txt"],
        ["user:shop", "tidy"],
        // Both the project and what is touched.
        ["user:shop", "file:/srv/a*"],
        // Nothing.
        ["file:/etc/motd", "group:shop"],
        // One transaction, and what comes after it.
        ["package:nginx", "package:curl"],
        ["package:curl", "group:shop"],
        // What may not be there.
        ["directory:/srv/shop", "file:/srv/shop/debian"],
        ["directory:/srv/shop", "file:/srv/shop/database"],
        // In the other play; a reaction; only hosts of that play have it.
        ["user:shop", "service:nginx"],
        ["file:/etc/nginx/nginx.conf", "reaction:service:nginx"],
        ["service:nginx", "service:nginx"],
        // What is no resource, or several.
        ["user:shp", "user:shop"],
        ["robots", "user:shop"],
        ["file:/srv/shop/*", "user:shop"],
    ];
    let mut made = String::new();
    for [one, other] in questions {
        let output = converge(&["site.yml", "--why", one, other]);
        made += &format!("$ converge graph -i inventory.yml site.yml --why {one:?} {other:?}\n");
        made += &String::from_utf8_lossy(&output.stdout);
        made += &String::from_utf8_lossy(&output.stderr);
        let right = output.status.success();
        assert_eq!(output.status.code(), Some(i32::from(!right)), "0, or bad usage");
        made.push('\n');
    }
    check(&folder().join("why.txt"), &made);
}

#[test]
fn nothing_is_drawn_of_what_is_wrong() {
    let text = "hosts: all\nstates:\n  - file: /a\n    content: a\n    require: [file:/b]\n  - file: /b\n    content: b\n    require: [file:/a]\n";
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("cycle.yml"), text).unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_converge"))
            .args(["graph", "-i", "web1,", "cycle.yml"])
            .args(arguments)
            .current_dir(project.path())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stdout).unwrap(), "");
        String::from_utf8(output.stderr).unwrap()
    };
    for arguments in [&[][..], &["--why", "file:/a", "file:/b"]] {
        let said = run(arguments);
        assert!(said.contains("requisites go round in a circle: "), "{said}");
        assert!(!said.contains("is no resource"), "{said}");
    }
    assert!(run(&["--limit", "web2"]).contains("web2"));
}

/// Contents that stand elsewhere are nothing to a graph.
#[test]
fn nothing_is_fetched() {
    let text = "hosts: all\nstates:\n  - file: /a\n    source: http://127.0.0.1:1/a\n    checksum: sha256:00\n";
    let project = tempfile::tempdir().unwrap();
    fs::write(project.path().join("one.yml"), text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_converge"))
        .args(["graph", "-i", "web1,", "one.yml"])
        .current_dir(project.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("label=\"file:/a\""));
}

/// Names with all that means something in one of the languages.
const NAMES: [&str; 6] = [
    "file:/a \"b\" 'c' <d> & e; #f #35; &lt;",
    "command:two\nlines\\n and \\",
    "file:/ü/日本/`x`/*y*/_z_/[a](b)/{c}|d|",
    "line_in_file:]]> --> <!-- ]( ]) end",
    "file:/\u{1b}[31m\u{0}\u{ffff}\u{202e}",
    "\\\"",
];

fn picture() -> GraphPicture {
    let drawn = |name: &&str| GraphBox {
        lines: vec![(*name).to_owned(), (*name).to_owned()],
        title: vec![(*name).to_owned()],
        standing: GraphStanding::Certain,
    };
    let mut edge = GraphEdge::between(0, 1);
    edge.labels = NAMES.map(str::to_owned).to_vec();
    edge.title = NAMES.map(str::to_owned).to_vec();
    let boxes = NAMES.iter().map(drawn).collect();
    let play = GraphPlay { name: NAMES.concat(), boxes, edges: vec![edge] };
    GraphPicture { hosts: NAMES.map(str::to_owned).to_vec(), plays: vec![play] }
}

/// How a name is shown in one line.
fn shown(name: &str) -> String {
    let text = name.replace('\n', "\\n").replace('\u{1b}', "\\x1b").replace('\0', "\\x00");
    text.replace('\u{ffff}', "\u{fffd}").replace('\u{202e}', "\\u{202e}")
}

/// The strings of a text in Graphviz's language, unquoted; whatever is not of the language, as far
/// as it is used, fails.
fn dot_strings(text: &str) -> Vec<String> {
    let mut strings = Vec::new();
    let mut depth = 0;
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => {
                let mut string = String::new();
                loop {
                    match characters.next().expect("the string is closed") {
                        '"' => break,
                        '\\' => match characters.next().expect("something is escaped") {
                            'n' => string.push('\n'),
                            one @ ('"' | '\\') => string.push(one),
                            other => panic!("\\{other} is an escape for something else"),
                        },
                        one => string.push(one),
                    }
                }
                strings.push(string);
            }
            '{' => depth += 1,
            '}' => depth -= 1,
            one if one.is_ascii_alphanumeric() || " \n[]=,_".contains(one) => {}
            '-' => assert_eq!(characters.next(), Some('>')),
            other => panic!("{other:?} outside of a string"),
        }
    }
    assert_eq!(depth, 0);
    strings
}

#[test]
fn names_are_escaped_in_dot() {
    let strings = dot_strings(&draw(&[picture()], GraphFormat::Dot));
    for name in NAMES {
        let name = shown(name);
        assert!(strings.contains(&name), "{name} among {strings:?}");
        assert!(strings.contains(&format!("{name}\n{name}")), "{name} among {strings:?}");
    }
    dot_strings(&fs::read_to_string(folder().join("site.dot")).unwrap());
}

#[test]
fn names_are_escaped_in_mermaid() {
    let text = draw(&[picture()], GraphFormat::Mermaid);
    let plain = |piece: &str| -> String {
        // Entities are the only escapes: `#` and a number.
        let mut pieces = piece.split('#');
        let mut text = pieces.next().unwrap().to_owned();
        for piece in pieces {
            let (number, rest) = piece.split_once(';').unwrap();
            text.push(char::from_u32(number.parse().unwrap()).unwrap());
            text += rest;
        }
        text
    };
    let mut found = Vec::new();
    for line in text.lines().filter(|line| line.contains('"')) {
        let pieces: Vec<&str> = line.split('"').collect();
        assert_eq!(pieces.len(), 3, "one string in a line: {line}");
        found.extend(pieces[1].split("<br/>").map(plain));
        let markup = pieces[1].replace("<br/>", "");
        assert!(!markup.contains(['<', '>', '`', '*', '\\', '&', '|', '[', '{']), "{line}");
    }
    for name in NAMES.map(shown) {
        assert!(found.contains(&name), "{name} among {found:?}");
    }
}

#[test]
fn names_are_escaped_in_svg() {
    let text = draw(&[picture()], GraphFormat::Svg);
    let document = roxmltree::Document::parse(&text).unwrap();
    let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
    for name in NAMES.map(shown) {
        assert!(texts.contains(&name.as_str()), "{name} among {texts:?}");
    }
    for file in [folder().join("site.svg"), folder().join("../../book/src/order.svg")] {
        let text = fs::read_to_string(file).unwrap();
        let document = roxmltree::Document::parse(&text).unwrap();
        let names = document.descendants().map(|node| node.tag_name().name());
        let foreign =
            names.filter(|name| ["script", "image", "use", "foreignObject"].contains(name));
        assert_eq!(foreign.count(), 0, "it is self-contained");
        assert!(!text.contains("url(") && !text.contains("@import"));
        let edges = document
            .descendants()
            .filter(|node| node.attribute("class").is_some_and(|class| class.starts_with("edge")));
        let reasons =
            edges.filter_map(|edge| edge.descendants().find(|one| one.has_tag_name("title")));
        let reasons: Vec<&str> = reasons.filter_map(|title| title.text()).collect();
        assert!(reasons.len() > 8);
        assert!(reasons.iter().all(|reason| reason.contains(".yml:")), "{reasons:?}");
    }
}
