use std::collections::{BTreeMap, HashMap};

use crate::kind::{Claim, Footprint};
use crate::world::RemotePath;

/// Finds what a step overlaps with among the steps visited before it, through indexes by path and
/// name; pairs are never compared.
#[derive(Default)]
pub(super) struct Hazards {
    paths: BTreeMap<RemotePath, Cell>,
    named: HashMap<Claim, Cell>,
    /// The latest step that conflicts with everything.
    barrier: Option<usize>,
    /// All steps visited since then.
    since_barrier: Vec<usize>,
}

/// Who touched one thing since it was last written.
#[derive(Default)]
struct Cell {
    writer: Option<usize>,
    readers: Vec<usize>,
    /// Who wrote, and read, all that lies below (paths only).
    subtree_writer: Option<usize>,
    subtree_readers: Vec<usize>,
}

impl Hazards {
    /// The steps that have to be done before this one; remembers it for later ones.
    pub(super) fn visit(&mut self, step: usize, footprint: &Footprint) -> Vec<usize> {
        let mut before = Vec::new();
        // Package transactions are barriers, so whoever only reads packages comes after them anyway.
        let whole = footprint.reads.contains(&Claim::World)
            || footprint.writes.iter().any(|claim| matches!(claim, Claim::World | Claim::Packages));
        if whole {
            before.append(&mut self.since_barrier);
            before.extend(self.barrier);
            *self = Self { barrier: Some(step), ..Self::default() };
            return before;
        }
        before.extend(self.barrier);
        for claim in &footprint.writes {
            self.write(step, claim, &mut before);
        }
        for claim in &footprint.reads {
            self.read(step, claim, &mut before);
        }
        self.since_barrier.push(step);
        before.sort_unstable();
        before.dedup();
        before.retain(|earlier| *earlier != step);
        before
    }

    fn write(&mut self, step: usize, claim: &Claim, before: &mut Vec<usize>) {
        match claim {
            Claim::Path(path) => {
                self.read_above(step, path, before);
                self.meet_subtree_readers(path, before);
                self.paths.entry(path.clone()).or_default().write(step, before);
            }
            Claim::Subtree(folder) => {
                self.read_above(step, folder, before);
                self.meet_subtree_readers(folder, before);
                let below: Vec<_> = self
                    .paths
                    .range(folder.clone()..)
                    .take_while(|(path, _)| path.as_bytes().starts_with(folder.as_bytes()))
                    .filter(|(path, _)| path.is_within(folder))
                    .map(|(path, _)| path.clone())
                    .collect();
                for path in below {
                    if let Some(mut cell) = self.paths.remove(&path) {
                        cell.write(step, before);
                        before.extend(cell.subtree_writer);
                        before.append(&mut cell.subtree_readers);
                    }
                }
                let cell = self.paths.entry(folder.clone()).or_default();
                cell.writer = Some(step);
                cell.subtree_writer = Some(step);
            }
            other => self.named.entry(other.clone()).or_default().write(step, before),
        }
    }

    fn read(&mut self, step: usize, claim: &Claim, before: &mut Vec<usize>) {
        match claim {
            Claim::Path(path) => {
                self.read_above(step, path, before);
                self.paths.entry(path.clone()).or_default().read(step, before);
            }
            Claim::Subtree(folder) => {
                self.read_above(step, folder, before);
                let below = self
                    .paths
                    .range(folder.clone()..)
                    .take_while(|(path, _)| path.as_bytes().starts_with(folder.as_bytes()))
                    .filter(|(path, _)| path.is_within(folder));
                before.extend(below.filter_map(|(_, cell)| cell.writer));
                self.paths.entry(folder.clone()).or_default().subtree_readers.push(step);
            }
            other => self.named.entry(other.clone()).or_default().read(step, before),
        }
    }

    /// Whoever touches a path reads the folders above it, and meets those that wrote all below.
    fn read_above(&mut self, step: usize, path: &RemotePath, before: &mut Vec<usize>) {
        for folder in path.ancestors() {
            let cell = self.paths.entry(folder).or_default();
            before.extend(cell.subtree_writer);
            cell.read(step, before);
        }
        if let Some(cell) = self.paths.get(path) {
            before.extend(cell.subtree_writer);
        }
    }

    /// Whoever writes a path meets those that read all below it or below a folder above it.
    fn meet_subtree_readers(&self, path: &RemotePath, before: &mut Vec<usize>) {
        for folder in std::iter::once(path.clone()).chain(path.ancestors()) {
            if let Some(cell) = self.paths.get(&folder) {
                before.extend(&cell.subtree_readers);
            }
        }
    }
}

impl Cell {
    fn write(&mut self, step: usize, before: &mut Vec<usize>) {
        before.extend(self.writer);
        before.append(&mut self.readers);
        self.writer = Some(step);
    }

    fn read(&mut self, step: usize, before: &mut Vec<usize>) {
        before.extend(self.writer);
        if self.readers.last() != Some(&step) {
            self.readers.push(step);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> Claim {
        Claim::Path(path.into())
    }

    fn subtree(path: &str) -> Claim {
        Claim::Subtree(path.into())
    }

    #[test]
    fn overlaps_keep_the_order_and_nothing_else_does() {
        let writes = |claim: Claim| Footprint::default().writing(claim);
        let steps = [
            (writes(path("/srv")), vec![]),
            (writes(path("/srv/a")), vec![0]),
            (writes(path("/srv/b")), vec![0]),
            (writes(path("/srv/a")), vec![0, 1]),
            (writes(path("/srv-other")), vec![]),
            (writes(subtree("/srv")), vec![0, 1, 2, 3]),
            (writes(path("/srv/c/d")), vec![5]),
            (writes(Claim::User("shop".into())), vec![]),
            (Footprint::default().owned_by(Some("shop"), None).writing(path("/etc/x")), vec![7]),
            (writes(Claim::World), vec![0, 1, 2, 3, 4, 5, 6, 7, 8]),
            (writes(path("/etc/y")), vec![9]),
            (Footprint::default().reading(subtree("/etc")), vec![9, 10]),
            (Footprint::default().reading(path("/etc/y")), vec![9, 10]),
            (writes(path("/etc/z")), vec![9, 11]),
            (writes(Claim::Packages), vec![9, 10, 11, 12, 13]),
        ];
        let mut hazards = Hazards::default();
        for (step, (footprint, expected)) in steps.into_iter().enumerate() {
            let mut before = hazards.visit(step, &footprint);
            before.sort_unstable();
            assert_eq!(before, expected, "step {step}");
        }
    }

    #[test]
    fn many_paths_are_visited_in_little_more_than_linear_time() {
        let mut hazards = Hazards::default();
        hazards.visit(0, &Footprint::default().writing(path("/srv")));
        let mut edges = 0;
        for step in 1..20_000 {
            let footprint = Footprint::default().writing(path(&format!("/srv/{step}")));
            edges += hazards.visit(step, &footprint).len();
        }
        assert_eq!(edges, 19_999, "one edge to the folder each");
    }
}
