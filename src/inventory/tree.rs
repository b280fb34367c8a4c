//! Hosts and groups while the sources are read, and how they hang together afterwards.

use std::path::Path;
use std::sync::Arc;

use indexmap::{IndexMap, IndexSet};

use super::pattern::LOCAL_NAMES;
use super::range;
use super::variables::{Layer, Origin, Variable};
use crate::diagnostic::{Diagnostic, Diagnostics, Span};
use crate::lang::yaml::{Node, Resolved};

/// The group that has all others below it.
pub(super) const ALL: usize = 0;
/// The group of the hosts that are in no other.
pub(super) const UNGROUPED: usize = 1;

/// A group as the sources declare it.
#[derive(Debug)]
pub(super) struct Group {
    /// Where it was named first.
    pub(super) span: Option<Span>,
    /// Hosts named in the group itself.
    pub(super) hosts: IndexSet<usize>,
    /// Groups directly below, each with the place that says so.
    pub(super) children: IndexMap<usize, Option<Span>>,
    /// Variables from inventory sources, in the order in which they were read.
    pub(super) variables: Vec<Variable>,
    /// Variables from `group_vars`, one list for each folder that may have them.
    pub(super) files: Vec<Vec<Variable>>,
    /// Greater ones win over groups of the same depth.
    priority: i64,
    /// The longest way down from `all`.
    depth: usize,
}

/// A host as the sources declare it.
#[derive(Debug)]
pub(super) struct Host {
    /// Where it was named first.
    pub(super) span: Option<Span>,
    /// The inventory source that named it first.
    pub(super) file: Option<Arc<Path>>,
    /// Variables from inventory sources, in the order in which they were read.
    pub(super) variables: Vec<Variable>,
    /// Variables from `host_vars`, one list for each folder that may have them.
    pub(super) files: Vec<Vec<Variable>>,
    /// All groups it is in, `all` left out, in the order in which their variables apply.
    pub(super) groups: Vec<usize>,
    /// Nobody declared it: the controller itself.
    pub(super) implicit: bool,
}

/// All hosts and groups; `settle` makes what is derived valid.
#[derive(Debug)]
pub(super) struct Tree {
    /// By name, in the order of their first mention; `all` and `ungrouped` lead.
    pub(super) groups: IndexMap<Arc<str>, Group>,
    /// By name, in the order of their first mention.
    pub(super) hosts: IndexMap<Arc<str>, Host>,
    /// The source that is being read.
    pub(super) current: Option<Arc<Path>>,
}

impl Tree {
    /// An inventory without hosts.
    pub(super) fn new() -> Self {
        let mut tree = Self { groups: IndexMap::new(), hosts: IndexMap::new(), current: None };
        tree.add_group("all", None);
        tree.add_group("ungrouped", None);
        tree.groups[ALL].children.insert(UNGROUPED, None);
        tree
    }

    /// The group of that name, made if it is new.
    pub(super) fn add_group(&mut self, name: &str, span: Option<Span>) -> usize {
        if let Some(index) = self.groups.get_index_of(name) {
            return index;
        }
        let group = Group {
            span,
            hosts: IndexSet::new(),
            children: IndexMap::new(),
            variables: Vec::new(),
            files: Vec::new(),
            priority: 1,
            depth: 0,
        };
        self.groups.insert_full(Arc::from(name), group).0
    }

    /// The host of that name, made if it is new, and put into a group.
    pub(super) fn add_host(
        &mut self,
        name: &str,
        group: Option<usize>,
        span: Option<Span>,
    ) -> usize {
        let host = match self.hosts.get_index_of(name) {
            Some(index) => index,
            None => {
                let host = Host {
                    span,
                    file: self.current.clone(),
                    variables: Vec::new(),
                    files: Vec::new(),
                    groups: Vec::new(),
                    implicit: false,
                };
                self.hosts.insert_full(Arc::from(name), host).0
            }
        };
        if let Some(group) = group {
            self.groups[group].hosts.insert(host);
        }
        host
    }

    /// All hosts of a pattern such as `web[1:3]:2222`, put into a group; their names.
    pub(super) fn add_hosts(
        &mut self,
        pattern: &str,
        span: Span,
        group: usize,
        diagnostics: &mut Diagnostics,
    ) -> Vec<Arc<str>> {
        let (names, port) = range::address(pattern).unwrap_or((pattern, None));
        if names.trim().is_empty() {
            diagnostics
                .push(Diagnostic::error("inventory-host", "a host needs a name").at(span, ""));
            return Vec::new();
        }
        let expanded = match range::expand(names) {
            Ok(expanded) => expanded,
            Err(bad) => {
                // In quotes, the place inside is not known exactly.
                let exact = (span.end - span.start) as usize == pattern.len();
                let offset = pattern.find(names).unwrap_or(0);
                let at = if exact {
                    span.part(bad.at.start + offset, bad.at.end + offset)
                } else {
                    span
                };
                let message = format!("the range in `{pattern}` cannot be expanded");
                diagnostics.push(Diagnostic::error("inventory-range", message).at(at, bad.message));
                return Vec::new();
            }
        };
        let mut added = Vec::with_capacity(expanded.len());
        for name in expanded {
            let known = self.hosts.contains_key(name.as_str());
            let host = self.add_host(&name, Some(group), Some(span));
            let name = self.name_of_host(host);
            if let (Some(port), false) = (port.filter(|port| *port > 0), known) {
                self.set_port(host, &name, port, span);
            }
            added.push(name);
        }
        added
    }

    /// Gives a new host the port that its name carries.
    pub(super) fn set_port(&mut self, host: usize, name: &Arc<str>, port: u32, span: Span) {
        let variable = Variable {
            name: Arc::from("ansible_port"),
            key: span,
            value: super::plain_node(span, port.to_string()),
            origin: Origin { layer: Layer::Host, owner: name.clone() },
        };
        self.hosts[host].variables.push(variable);
    }

    /// The name of a host.
    pub(super) fn name_of_host(&self, host: usize) -> Arc<str> {
        self.hosts.get_index(host).map_or_else(|| Arc::from(""), |(name, _)| name.clone())
    }

    /// The name of a group.
    pub(super) fn name_of_group(&self, group: usize) -> Arc<str> {
        self.groups.get_index(group).map_or_else(|| Arc::from(""), |(name, _)| name.clone())
    }

    /// Sets a variable of a group.
    pub(super) fn set_on_group(
        &mut self,
        group: usize,
        key: &Node,
        value: &Node,
        diagnostics: &mut Diagnostics,
    ) {
        let Some(name) = key.as_text() else { return };
        if name == "ansible_group_priority" {
            let number = match value.scalar().map(|scalar| scalar.resolve()) {
                Some(Resolved::Integer(number)) => Some(number),
                Some(Resolved::Text(text)) => text.trim().parse().ok(),
                _ => None,
            };
            match number {
                Some(number) => self.groups[group].priority = number,
                None => {
                    let message = "`ansible_group_priority` takes a whole number";
                    let found = format!("this is {}", value.describe());
                    diagnostics
                        .push(Diagnostic::error("wrong-type", message).at(value.span, found));
                }
            }
            return;
        }
        let owner = self.name_of_group(group);
        self.groups[group].variables.push(Variable {
            name: Arc::from(name),
            key: key.span,
            value: value.clone(),
            origin: Origin { layer: Layer::Group, owner },
        });
    }

    /// Sets a variable of a host; where a group has the same name, Ansible gives it to the group.
    pub(super) fn set_on_host(
        &mut self,
        host: &Arc<str>,
        key: &Node,
        value: &Node,
        diagnostics: &mut Diagnostics,
    ) {
        if let Some(group) = self.groups.get_index_of(host) {
            self.set_on_group(group, key, value, diagnostics);
            return;
        }
        let (Some(name), Some(entry)) = (key.as_text(), self.hosts.get_mut(host)) else { return };
        entry.variables.push(Variable {
            name: Arc::from(name),
            key: key.span,
            value: value.clone(),
            origin: Origin { layer: Layer::Host, owner: host.clone() },
        });
    }

    /// Puts a group below another; a cycle is an error that shows each of its edges.
    pub(super) fn add_child(
        &mut self,
        parent: usize,
        child: usize,
        span: Option<Span>,
        diagnostics: &mut Diagnostics,
    ) {
        if self.groups[parent].children.contains_key(&child) {
            return;
        }
        let Some(way) = self.way_down(child, parent) else {
            self.groups[parent].children.insert(child, span);
            return;
        };
        let (above, below) = (self.name_of_group(parent), self.name_of_group(child));
        let mut diagnostic = if parent == child {
            let message = format!("the group `{above}` is its own child");
            Diagnostic::error("inventory-cycle", message)
        } else {
            let message = format!("`{below}` cannot be below `{above}`, which is below `{below}`");
            Diagnostic::error("inventory-cycle", message)
        };
        if let Some(span) = span {
            diagnostic = diagnostic.at(span, format!("puts `{below}` below `{above}`"));
        }
        for edge in way.windows(2) {
            let place = self.groups[edge[0]].children.get(&edge[1]).copied().flatten();
            let (above, below) = (self.name_of_group(edge[0]), self.name_of_group(edge[1]));
            let text = format!("puts `{below}` below `{above}`");
            diagnostic = match place {
                Some(place) => diagnostic.at(place, text),
                None => diagnostic.note(format!("`{below}` is below `{above}`")),
            };
        }
        diagnostics.push(diagnostic);
    }

    /// The groups on a way from one down to another, both included.
    fn way_down(&self, from: usize, to: usize) -> Option<Vec<usize>> {
        let mut came_from: IndexMap<usize, usize> = IndexMap::from([(from, from)]);
        let mut at = 0;
        while let Some((&group, _)) = came_from.get_index(at) {
            if group == to {
                let mut way = vec![to];
                let mut last = to;
                while last != from {
                    last = came_from[&last];
                    way.push(last);
                }
                way.reverse();
                return Some(way);
            }
            for &child in self.groups[group].children.keys() {
                came_from.entry(child).or_insert(group);
            }
            at += 1;
        }
        None
    }

    /// The group and all below it, level by level.
    pub(super) fn descendants(&self, group: usize) -> IndexSet<usize> {
        let mut found = IndexSet::from([group]);
        let mut at = 0;
        while let Some(&next) = found.get_index(at) {
            found.extend(self.groups[next].children.keys().copied());
            at += 1;
        }
        found
    }

    /// The declared hosts of a group and of all groups below it, level by level.
    pub(super) fn members(&self, group: usize) -> IndexSet<usize> {
        let groups = self.descendants(group);
        groups.iter().flat_map(|group| self.groups[*group].hosts.iter().copied()).collect()
    }

    /// The controller under each of its names, if no source declares it.
    pub(super) fn add_implicit_hosts(&mut self) {
        if LOCAL_NAMES.iter().any(|name| self.hosts.contains_key(*name)) {
            return;
        }
        self.current = None;
        for name in LOCAL_NAMES {
            let host = self.add_host(name, None, None);
            self.hosts[host].implicit = true;
        }
    }

    /// Once all sources are read: every group is below `all`, every host is in a group, and depths
    /// and memberships are known.
    pub(super) fn settle(&mut self, diagnostics: &mut Diagnostics) {
        let mut has_parent = vec![false; self.groups.len()];
        for group in self.groups.values() {
            for &child in group.children.keys() {
                has_parent[child] = true;
            }
        }
        for (group, has_parent) in has_parent.iter().enumerate() {
            if group != ALL && !has_parent {
                let span = self.groups[group].span;
                self.add_child(ALL, group, span, diagnostics);
            }
        }
        let order = self.parents_first();
        let mut above: Vec<IndexSet<usize>> = vec![IndexSet::new(); self.groups.len()];
        for &group in &order {
            let depth = self.groups[group].depth;
            let mut own = above[group].clone();
            own.insert(group);
            let children: Vec<usize> = self.groups[group].children.keys().copied().collect();
            for child in children {
                above[child].extend(own.iter().copied());
                let depth = self.groups[child].depth.max(depth + 1);
                self.groups[child].depth = depth;
            }
        }
        let mut memberships: Vec<IndexSet<usize>> = vec![IndexSet::new(); self.hosts.len()];
        for (index, group) in self.groups.values().enumerate() {
            for &host in &group.hosts {
                memberships[host].extend(above[index].iter().copied());
                memberships[host].insert(index);
            }
        }
        for (host, mut groups) in memberships.into_iter().enumerate() {
            let elsewhere = groups.iter().any(|group| ![ALL, UNGROUPED].contains(group));
            if elsewhere {
                if self.groups[UNGROUPED].hosts.shift_remove(&host)
                    && !groups.iter().any(|group| above[*group].contains(&UNGROUPED))
                {
                    groups.shift_remove(&UNGROUPED);
                }
            } else {
                self.groups[UNGROUPED].hosts.insert(host);
                groups.insert(UNGROUPED);
            }
            groups.shift_remove(&ALL);
            let mut groups: Vec<usize> = groups.into_iter().collect();
            groups.sort_by_key(|group| self.rank(*group));
            self.hosts[host].groups = groups;
        }
        for (name, host) in &self.hosts {
            let Some(group) = self.groups.get(name) else { continue };
            let message = format!("`{name}` is the name of a host and of a group");
            let mut diagnostic = Diagnostic::warning("inventory-name", message);
            if let Some(span) = host.span {
                diagnostic = diagnostic.at(span, "the host");
            }
            if let Some(span) = group.span {
                diagnostic = diagnostic.at(span, "the group");
            }
            diagnostics
                .push(diagnostic.note("as in Ansible, variables of the host go to the group"));
        }
    }

    /// The order in which the variables of groups apply.
    fn rank(&self, group: usize) -> (usize, i64, Arc<str>) {
        let name = self.name_of_group(group);
        (self.groups[group].depth, self.groups[group].priority, name)
    }

    fn parents_first(&self) -> Vec<usize> {
        let mut waiting = vec![0usize; self.groups.len()];
        for group in self.groups.values() {
            for &child in group.children.keys() {
                waiting[child] += 1;
            }
        }
        let mut order: Vec<usize> =
            (0..self.groups.len()).filter(|group| waiting[*group] == 0).collect();
        let mut at = 0;
        while at < order.len() {
            for &child in self.groups[order[at]].children.keys() {
                waiting[child] -= 1;
                if waiting[child] == 0 {
                    order.push(child);
                }
            }
            at += 1;
        }
        order
    }
}
