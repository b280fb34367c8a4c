use std::fmt;

use crate::kind::{Claim, Footprint};

/// What two steps have in common that keeps their order, one of them writing it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// One of them conflicts with everything.
    Whole { which: Which, touch: Touch },
    /// They are about the same, or one is about a part of what the other is about.
    Pair { earlier: Touch, later: Touch },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Earlier,
    Later,
}

/// What one of them does.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Touch {
    claim: Claim,
    writes: bool,
}

/// All that two footprints have in common, in the sense of [`super::hazard::Hazards`].
pub(super) fn overlaps(earlier: &Footprint, later: &Footprint) -> Vec<Overlap> {
    let whole =
        |footprint, which| whole(footprint).map(|touch| Overlap(Kind::Whole { which, touch }));
    if let Some(overlap) = whole(earlier, Which::Earlier).or_else(|| whole(later, Which::Later)) {
        return vec![overlap];
    }
    let mut found: Vec<(Touch, Touch)> = Vec::new();
    for earlier in touches(earlier) {
        for later in touches(later).filter(|later| meet(&earlier, later)) {
            // What is read and written counts as written, which comes first.
            let known = |(one, other): &(Touch, Touch)| {
                one.claim == earlier.claim && other.claim == later.claim
            };
            if !found.iter().any(known) {
                found.push((earlier.clone(), later));
            }
        }
    }
    found.into_iter().map(|(earlier, later)| Overlap(Kind::Pair { earlier, later })).collect()
}

fn touches(footprint: &Footprint) -> impl Iterator<Item = Touch> + '_ {
    let touch = |writes| move |claim: &Claim| Touch { claim: claim.clone(), writes };
    footprint.writes.iter().map(touch(true)).chain(footprint.reads.iter().map(touch(false)))
}

/// What makes a step conflict with everything.
fn whole(footprint: &Footprint) -> Option<Touch> {
    touches(footprint).find(|touch| match touch.claim {
        Claim::World => true,
        Claim::Packages => touch.writes,
        _ => false,
    })
}

fn meet(earlier: &Touch, later: &Touch) -> bool {
    match (path(&earlier.claim), path(&later.claim)) {
        (Some(_), Some(_)) if earlier.claim == later.claim => earlier.writes || later.writes,
        (Some(_), Some(_)) => match nested(earlier, later) {
            Some(Nested { outer: Touch { claim: Claim::Subtree(_), .. }, .. }) => {
                earlier.writes || later.writes
            }
            // Whoever touches what is in a folder reads the folder.
            Some(Nested { outer, .. }) => outer.writes,
            None => false,
        },
        _ => earlier.claim == later.claim && (earlier.writes || later.writes),
    }
}

/// One path in another.
struct Nested<'a> {
    outer: &'a Touch,
    inner: &'a Touch,
    outer_is: Which,
}

fn nested<'a>(earlier: &'a Touch, later: &'a Touch) -> Option<Nested<'a>> {
    let (one, other) = (path(&earlier.claim)?, path(&later.claim)?);
    // A subtree is around the path that it begins with.
    let first = if one == other {
        matches!(earlier.claim, Claim::Subtree(_))
    } else if other.is_within(one) {
        true
    } else if one.is_within(other) {
        false
    } else {
        return None;
    };
    Some(if first {
        Nested { outer: earlier, inner: later, outer_is: Which::Earlier }
    } else {
        Nested { outer: later, inner: earlier, outer_is: Which::Later }
    })
}

fn path(claim: &Claim) -> Option<&crate::world::RemotePath> {
    match claim {
        Claim::Path(path) | Claim::Subtree(path) => Some(path),
        _ => None,
    }
}

impl Touch {
    fn verb(&self) -> &'static str {
        if self.writes { "writes" } else { "reads" }
    }
}

/// A claim in the words of a sentence.
struct Thing<'a>(&'a Claim);

impl fmt::Display for Thing<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Claim::Path(path) => write!(formatter, "{path}"),
            Claim::Subtree(path) => write!(formatter, "{path} and all below it"),
            Claim::User(name) => write!(formatter, "the user {name}"),
            Claim::Group(name) => write!(formatter, "the group {name}"),
            Claim::Unit(name) => write!(formatter, "the unit {name}"),
            Claim::Packages => formatter.write_str("the packages"),
            Claim::World => formatter.write_str("anything"),
        }
    }
}

impl Overlap {
    /// What it is about, in a word or two.
    pub fn label(&self) -> String {
        let touch = match &self.0 {
            Kind::Whole { touch, .. } => touch,
            Kind::Pair { earlier, later } => {
                nested(earlier, later).map_or(earlier, |nested| nested.outer)
            }
        };
        match &touch.claim {
            Claim::Path(path) | Claim::Subtree(path) => path.to_string(),
            Claim::User(name) => format!("user {name}"),
            Claim::Group(name) => format!("group {name}"),
            Claim::Unit(name) => format!("unit {name}"),
            Claim::Packages => String::from("packages"),
            Claim::World => String::from("anything"),
        }
    }

    /// The same as a sentence about the two.
    pub fn words(&self, earlier: &str, later: &str) -> String {
        match &self.0 {
            Kind::Whole { which, touch } => {
                let name = match which {
                    Which::Earlier => earlier,
                    Which::Later => later,
                };
                match (&touch.claim, touch.writes) {
                    (Claim::Packages, _) => {
                        format!("{name} changes packages, which touch anything")
                    }
                    (_, true) => format!("{name} may touch anything"),
                    (_, false) => format!("{name} may look at anything"),
                }
            }
            Kind::Pair { earlier: one, later: other } if one.claim == other.claim => {
                let thing = Thing(&one.claim);
                match (one.writes, other.writes) {
                    (true, true) => format!("both write {thing}"),
                    (true, false) => format!("{earlier} writes {thing}, {later} reads it"),
                    (false, _) => format!("{earlier} reads {thing}, {later} writes it"),
                }
            }
            Kind::Pair { earlier: one, later: other } => {
                let Some(Nested { outer, inner, outer_is }) = nested(one, other) else {
                    return String::new();
                };
                let (outer_name, inner_name) = match outer_is {
                    Which::Earlier => (earlier, later),
                    Which::Later => (later, earlier),
                };
                let (verb, thing) = (outer.verb(), Thing(&outer.claim));
                let (other, inside) = (inner.verb(), Thing(&inner.claim));
                format!("{outer_name} {verb} {thing}, where {inner_name} {other} {inside}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::hazard::Hazards;
    use super::*;

    fn words(earlier: Footprint, later: Footprint) -> Vec<String> {
        overlaps(&earlier, &later).iter().map(|overlap| overlap.words("A", "B")).collect()
    }

    #[test]
    fn what_two_have_in_common_is_said() {
        let path = |path: &str| Claim::Path(path.into());
        let subtree = |path: &str| Claim::Subtree(path.into());
        let user = || Claim::User(String::from("shop"));
        let none = Footprint::default;
        let cases = [
            (none().writing(path("/a")), none().writing(path("/a")), "both write /a"),
            (none().writing(path("/a")), none().reading(path("/a")), "A writes /a, B reads it"),
            (none().reading(user()), none().writing(user()), "A reads the user shop, B writes it"),
            (
                none().writing(path("/srv")),
                none().writing(path("/srv/a/b")),
                "A writes /srv, where B writes /srv/a/b",
            ),
            (
                none().reading(path("/srv/a")),
                none().writing(subtree("/srv")),
                "B writes /srv and all below it, where A reads /srv/a",
            ),
            (
                none().writing(subtree("/srv")),
                none().reading(path("/srv")),
                "A writes /srv and all below it, where B reads /srv",
            ),
            (none().writing(Claim::World), none(), "A may touch anything"),
            (none(), none().reading(Claim::World), "B may look at anything"),
            (
                none().writing(Claim::Packages),
                none().writing(path("/a")),
                "A changes packages, which touch anything",
            ),
        ];
        for (earlier, later, expected) in cases {
            assert_eq!(words(earlier, later), [expected]);
        }
        assert!(words(none().writing(path("/srv/a")), none().writing(path("/srv-b"))).is_empty());
        assert!(words(none().reading(path("/srv/a")), none().reading(path("/srv"))).is_empty());
    }

    /// Every order that hazards give has a reason that can be said, and whatever has a reason is in
    /// order, if only by what is between.
    #[test]
    fn hazards_and_reasons_are_the_same() {
        let folders = ["/srv", "/srv/a", "/srv/a/x", "/srv/b", "/srv-b"];
        let mut claims: Vec<Claim> = Vec::new();
        for folder in folders {
            claims.extend([Claim::Path(folder.into()), Claim::Subtree(folder.into())]);
        }
        let name = || String::from("shop");
        claims.extend([Claim::User(name()), Claim::Group(name()), Claim::Unit(name())]);
        claims.extend([Claim::Packages, Claim::World]);
        let mut state = 7_u32;
        let mut next = |below: usize| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as usize % below
        };
        for _ in 0..300 {
            let mut hazards = Hazards::default();
            let mut steps: Vec<Footprint> = Vec::new();
            let mut all_before: Vec<u32> = Vec::new();
            for step in 0..12 {
                let mut footprint = Footprint::default();
                for _ in 0..=next(3) {
                    let claim = claims[next(claims.len())].clone();
                    footprint = match next(2) {
                        0 => footprint.reading(claim),
                        _ => footprint.writing(claim),
                    };
                }
                let mut ordered = 0;
                for earlier in hazards.visit(step, &footprint) {
                    let reasons = overlaps(&steps[earlier], &footprint);
                    assert!(!reasons.is_empty(), "{:?} before {footprint:?}", steps[earlier]);
                    ordered |= all_before[earlier] | 1 << earlier;
                }
                for (earlier, one) in steps.iter().enumerate() {
                    let apart = overlaps(one, &footprint).is_empty();
                    assert!(apart || ordered & 1 << earlier != 0, "{one:?} and {footprint:?}");
                }
                all_before.push(ordered);
                steps.push(footprint);
            }
        }
    }
}
