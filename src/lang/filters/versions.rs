//! The orders of versions that the test `version` knows.

use std::cmp::Ordering;
use std::sync::LazyLock;

use minijinja::Error;
use regex::{Captures, Regex};

use super::wrong;

/// A part of a version; words come before numbers, and a missing part before both.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Word(String),
    Number(u128),
}

/// As Python's `LooseVersion`: runs of digits and of letters.
fn parts(version: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = version.trim();
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let same = |one: char| {
            if digits { one.is_ascii_digit() } else { !one.is_ascii_digit() && one != '.' }
        };
        let end = rest.find(|one| !same(one)).unwrap_or(rest.len());
        if end == 0 {
            rest = &rest[first.len_utf8()..];
            continue;
        }
        parts.push(match rest[..end].parse() {
            Ok(number) => Part::Number(number),
            Err(_) => Part::Word(rest[..end].to_owned()),
        });
        rest = &rest[end..];
    }
    parts
}

/// Runs of digits and of letters, one by one.
pub(super) fn loose(left: &str, right: &str) -> Ordering {
    parts(left).cmp(&parts(right))
}

fn compiled(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

fn number(found: &Captures<'_>, name: &str) -> Option<u128> {
    found.name(name).map(|digits| digits.as_str().parse().unwrap_or(u128::MAX))
}

/// As Python's `StrictVersion`: `1.2`, `1.2.3`, `1.2a1`, `1.2.3b4`.
pub(super) fn strict(left: &str, right: &str) -> Result<Ordering, Error> {
    static FORM: LazyLock<Option<Regex>> = LazyLock::new(|| {
        compiled(r"^(?<a>\d+)\.(?<b>\d+)(\.(?<c>\d+))?((?<stage>[ab])(?<n>\d+))?$")
    });
    let key = |version: &str| {
        let found = FORM.as_ref().and_then(|form| form.captures(version.trim()));
        let found = found
            .ok_or_else(|| wrong(format!("`{version}` is not a strict version: `1.2.3b4`")))?;
        let numbers = ["a", "b", "c"].map(|name| number(&found, name).unwrap_or(0));
        let stage = found.name("stage").map_or("c", |stage| stage.as_str()).to_owned();
        Ok::<_, Error>((numbers, stage, number(&found, "n")))
    };
    Ok(key(left)?.cmp(&key(right)?))
}

/// The versions of Python packages: PEP 440, "Summary of permitted suffixes and relative ordering".
pub(super) fn pep440(left: &str, right: &str) -> Result<Ordering, Error> {
    static FORM: LazyLock<Option<Regex>> = LazyLock::new(|| {
        compiled(
            r"(?xi)^ v? ((?<epoch>\d+)!)? (?<release>\d+(\.\d+)*)
                ([-_.]?(?<stage>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?<pre>\d*))?
                (-(?<implicit>\d+) | (?<ispost>[-_.]?(post|rev|r)[-_.]?(?<post>\d*)))?
                (?<isdev>[-_.]?dev[-_.]?(?<dev>\d*))?
                (\+(?<local>[a-z0-9]+([-_.][a-z0-9]+)*))? $",
        )
    });
    let key = |version: &str| {
        let found = FORM.as_ref().and_then(|form| form.captures(version.trim()));
        let found = found
            .ok_or_else(|| wrong(format!("`{version}` is not a version as PEP 440 has them")))?;
        let mut release: Vec<u128> =
            found["release"].split('.').map(|digits| digits.parse().unwrap_or(u128::MAX)).collect();
        while release.len() > 1 && release.last() == Some(&0) {
            release.pop();
        }
        let after = |name: &str, digits: &str| {
            found.name(name).map(|_| number(&found, digits).filter(|_| !found[digits].is_empty()))
        };
        let dev = after("isdev", "dev").map(|dev| dev.unwrap_or(0));
        let post = number(&found, "implicit")
            .or_else(|| after("ispost", "post").map(|post| post.unwrap_or(0)));
        let stage = found.name("stage").map(|stage| match stage.as_str().to_lowercase().as_str() {
            "a" | "alpha" => 1,
            "b" | "beta" => 2,
            _ => 3,
        });
        let pre = number(&found, "pre").filter(|_| !found["pre"].is_empty()).unwrap_or(0);
        // A release in development comes before its stages, a final release after them.
        let stage = match stage {
            Some(stage) => (stage, pre),
            None if dev.is_some() && post.is_none() => (0, 0),
            None => (4, 0),
        };
        let local = found.name("local").map(|local| {
            let parts = local.as_str().to_lowercase().replace(['-', '_'], ".");
            let part = |part: &str| match part.parse() {
                Ok(number) => Part::Number(number),
                Err(_) => Part::Word(part.to_owned()),
            };
            parts.split('.').map(part).collect::<Vec<Part>>()
        });
        let epoch = number(&found, "epoch").unwrap_or(0);
        Ok::<_, Error>((epoch, release, stage, post, dev.unwrap_or(u128::MAX), local))
    };
    Ok(key(left)?.cmp(&key(right)?))
}

/// Semantic Versioning 2.0.0, section 11.
pub(super) fn semantic(left: &str, right: &str) -> Result<Ordering, Error> {
    fn split(version: &str) -> Result<([u64; 3], Option<&str>), Error> {
        let version = version.trim().trim_start_matches('v');
        let bare = version.split('+').next().unwrap_or_default();
        let (core, pre_release) = match bare.split_once('-') {
            Some((core, pre_release)) => (core, Some(pre_release)),
            None => (bare, None),
        };
        let numbers: Vec<u64> = core.split('.').map_while(|part| part.parse().ok()).collect();
        match <[u64; 3]>::try_from(numbers) {
            Ok(numbers) if core.split('.').count() == 3 => Ok((numbers, pre_release)),
            _ => Err(wrong(format!("`{version}` is not a semantic version"))),
        }
    }
    let ((left, left_pre), (right, right_pre)) = (split(left)?, split(right)?);
    Ok(left.cmp(&right).then_with(|| match (left_pre, right_pre) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
        (Some(left), Some(right)) => pre_release(left).cmp(&pre_release(right)),
    }))
}

/// The identifiers of a pre-release; numbers come before words.
fn pre_release(text: &str) -> Vec<Result<u64, String>> {
    text.split('.').map(|part| part.parse().map_err(|_| part.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered() {
        let rising = ["1.9", "1.10", "1.10.1", "1.10.2rc1", "2"];
        for pair in rising.windows(2) {
            assert_eq!(loose(pair[0], pair[1]), Ordering::Less, "{pair:?}");
        }
        let rising = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-beta.2", "1.0.0-beta.11", "1.0.0"];
        for pair in rising.windows(2) {
            assert_eq!(semantic(pair[0], pair[1]).unwrap(), Ordering::Less, "{pair:?}");
        }
        let rising = ["1.0a1", "1.0b2", "1.0", "1.0.1", "1.1"];
        for pair in rising.windows(2) {
            assert_eq!(strict(pair[0], pair[1]).unwrap(), Ordering::Less, "{pair:?}");
        }
        // The example of PEP 440, and what follows from its text.
        let rising = [
            "1.dev0",
            "1.0.dev456",
            "1.0a1",
            "1.0a2.dev456",
            "1.0a12.dev456",
            "1.0a12",
            "1.0b1.dev456",
            "1.0b2",
            "1.0b2.post345.dev456",
            "1.0b2.post345",
            "1.0rc1.dev456",
            "1.0rc1",
            "1.0",
            "1.0+abc.5",
            "1.0+abc.7",
            "1.0+5",
            "1.0.post456.dev34",
            "1.0.post456",
            "1.0.15",
            "1.1.dev1",
            "1!0.1",
        ];
        for pair in rising.windows(2) {
            assert_eq!(pep440(pair[0], pair[1]).unwrap(), Ordering::Less, "{pair:?}");
        }
        assert_eq!(pep440("v1.0-RC_1", "1.0.0rc1").unwrap(), Ordering::Equal);
        assert!(strict("1.0.1.1", "1.0").is_err() && pep440("x.y", "1.0").is_err());
    }
}
