//! Plans that outlive the run that made them: all that it takes to do exactly what was shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use crate::graph::{Graph, Node, Work};
use crate::lang::ContentStore;
use crate::report::{RunInfo, Verdict};
use crate::wire::{self, AddedNode, PlannedNode};
use crate::world::ContentId;

/// The version of a saved plan's form.
const VERSION: u32 = 1;
/// The first word of a saved plan's first line.
const MARK: &str = "converge-plan";

/// A plan of several hosts.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedPlan {
    /// The build that made it.
    pub build: String,
    /// The dry run that it was made in.
    pub run: RunInfo,
    /// The inventories as they were named.
    pub inventory: Vec<String>,
    /// The state file as it was named.
    pub state_file: String,
    /// By play: whether a failed host keeps later ones from beginning.
    pub any_errors_fatal: Vec<bool>,
    /// In the order in which plays select them.
    pub hosts: Vec<SavedHost>,
    /// Contents that the hosts may need, by digest, in Base64.
    pub contents: BTreeMap<String, String>,
}

/// A plan of one host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SavedHost {
    /// Its name in the inventory.
    pub name: String,
    /// By what means it is reached: `ssh`, `local` or `sandbox`.
    pub connection: String,
    /// Who logs in, if that is said.
    pub user: Option<String>,
    /// Whether the agent runs as root.
    pub becomes: bool,
    /// The plan.
    pub plan: HostPlan,
}

/// What is declared for a host, and what was planned.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostPlan {
    /// What is declared for it.
    pub graph: Arc<Graph>,
    /// What its records have added to that.
    pub added: Vec<AddedNode>,
    /// What was planned.
    pub planned: Vec<PlannedNode>,
}

impl HostPlan {
    /// Whether the numbers in it are those of nodes.
    fn is_sound(&self) -> bool {
        let all = self.graph.nodes.len() + self.added.len();
        self.graph.is_sound() && self.planned.iter().all(|planned| (planned.node as usize) < all)
    }
}

/// A saved plan is not to be relied upon.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is something else, or was changed since it was saved.
    #[error("{0}")]
    Tampered(String),
    /// It was made by another build, whose plans this one may read otherwise.
    #[error("it was made by another build of converge; plan again")]
    OtherBuild,
    /// It would hold what not everybody may read.
    #[error("{0}")]
    Private(String),
}

/// A saved plan's file, taken apart: its body is not looked at before its signature is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanFile {
    /// The plan as JSON, or that encrypted.
    pub body: Vec<u8>,
    /// Whether it is encrypted, with age.
    pub encrypted: bool,
    /// The signature over the body, armoured as `ssh-keygen -Y sign` makes it.
    pub signature: Option<String>,
}

/// What stands in the first line of the file, after [`MARK`].
#[derive(Serialize, Deserialize)]
struct Head {
    version: u32,
    /// BLAKE3 of the body: tells corruption, and nothing about who made it.
    digest: String,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    encrypted: bool,
    signature: Option<String>,
}

impl PlanFile {
    /// The file's bytes: a line that says what it is, and the body.
    pub fn encode(&self) -> Vec<u8> {
        let head = Head {
            version: VERSION,
            digest: blake3::hash(&self.body).to_string(),
            encrypted: self.encrypted,
            signature: self.signature.clone(),
        };
        // A struct of strings is always JSON.
        let head = serde_json::to_string(&head).unwrap_or_default();
        let mut bytes = format!("{MARK} {head}\n").into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Takes a file apart, and sees that it came whole.
    pub fn decode(bytes: &[u8]) -> Result<Self, SavedError> {
        let tampered = |what: &str| SavedError::Tampered(what.to_owned());
        let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
        let head: Head = std::str::from_utf8(&bytes[..end])
            .ok()
            .and_then(|line| line.strip_prefix(MARK))
            .and_then(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| tampered("it is not a plan that `converge plan --out` saved"))?;
        if head.version != VERSION {
            return Err(SavedError::OtherBuild);
        }
        let body = bytes.get(end + 1..).unwrap_or_default().to_vec();
        if blake3::hash(&body).to_string() != head.digest {
            return Err(tampered("it was changed or cut off since it was saved"));
        }
        Ok(Self { body, encrypted: head.encrypted, signature: head.signature })
    }
}

impl SavedPlan {
    /// A plan from a file's body; only those of this build are understood.
    pub fn parse(body: &[u8]) -> Result<Self, SavedError> {
        /// What every build's plans have.
        #[derive(Deserialize)]
        struct Build {
            build: String,
        }
        let wrong =
            |error: serde_json::Error| SavedError::Tampered(format!("it is not a plan: {error}"));
        let Build { build } = serde_json::from_slice(body).map_err(wrong)?;
        if build != wire::BUILD {
            return Err(SavedError::OtherBuild);
        }
        let plan: Self = serde_json::from_slice(body).map_err(wrong)?;
        if !plan.hosts.iter().all(|host| host.plan.is_sound()) {
            return Err(SavedError::Tampered(String::from("its numbers mean nothing")));
        }
        Ok(plan)
    }

    /// As a file's body.
    pub fn to_body(&self) -> Result<Vec<u8>, SavedError> {
        serde_json::to_vec(self).map_err(|error| SavedError::Tampered(error.to_string()))
    }

    /// What is in it that not everybody may read, if there is something.
    pub fn private(&self) -> Result<(), SavedError> {
        for host in &self.hosts {
            for node in &host.plan.graph.nodes {
                if let Some(what) = private_part(node) {
                    return Err(private(&host.name, node.id.as_str(), what));
                }
            }
            for planned in &host.plan.planned {
                let hidden =
                    planned.changes.iter().any(|shown| shown.view.diff.contains("(hidden)"));
                if is_pending(planned) && hidden {
                    let node = host.plan.graph.nodes.get(planned.node as usize);
                    let id = node.map_or("a resource", |node| node.id.as_str());
                    return Err(private(&host.name, id, "contents that not everybody may read"));
                }
            }
        }
        Ok(())
    }

    /// Takes in the contents that its changes need.
    pub fn take_contents(&mut self, store: &ContentStore) {
        for host in &self.hosts {
            for planned in &host.plan.planned {
                let pending = is_pending(planned);
                let node = host.plan.graph.nodes.get(planned.node as usize);
                // Not what the host says that it needs: it might name contents of others. What it
                // makes by itself (an edited file) is made there again.
                for id in node.filter(|_| pending).map(named_contents).unwrap_or_default() {
                    if let Some(Ok(mut reader)) = store.open(&id) {
                        let mut bytes = Vec::new();
                        let read = std::io::Read::read_to_end(&mut reader, &mut bytes);
                        if read.is_ok() && ContentId::of(&bytes) == id {
                            self.contents.insert(id.digest.to_string(), BASE64.encode(&bytes));
                        }
                    }
                }
            }
        }
    }

    /// Its contents, for the hosts to ask for.
    pub fn contents(&self) -> Result<ContentStore, SavedError> {
        let store = ContentStore::default();
        for (digest, text) in &self.contents {
            let bytes = BASE64.decode(text.as_bytes()).unwrap_or_default();
            let id = store.text(bytes);
            if id.digest.to_string() != *digest {
                return Err(SavedError::Tampered(String::from("a content in it was changed")));
            }
        }
        Ok(store)
    }
}

fn is_pending(planned: &PlannedNode) -> bool {
    matches!(planned.verdict, Verdict::Change | Verdict::Depends)
}

fn private(host: &str, id: &str, what: &str) -> SavedError {
    SavedError::Private(format!("it would hold {what} ({id} on {host}), and is not encrypted"))
}

/// What of a node may be secret.
fn private_part(node: &Node) -> Option<&'static str> {
    if !node.environment.is_empty() {
        return Some("an `environment`");
    }
    if node.sensitive == Some(true) {
        return Some("what is `sensitive`");
    }
    if !node.mask.is_empty() {
        return Some("a secret");
    }
    match &node.work {
        Work::Resource(declared) => declared.kind().private_part(),
        _ => None,
    }
}

/// The contents that a declaration names.
pub(super) fn named_contents(node: &Node) -> Vec<ContentId> {
    fn look(value: &serde_json::Value, found: &mut Vec<ContentId>) {
        match value {
            serde_json::Value::Object(entries) => {
                if entries.len() == 2
                    && let Ok(id) = serde_json::from_value::<ContentId>(value.clone())
                {
                    found.push(id);
                }
                entries.values().for_each(|value| look(value, found));
            }
            serde_json::Value::Array(items) => items.iter().for_each(|item| look(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Work::Resource(declared) = &node.work
        && let Ok(value) = serde_json::to_value(declared)
    {
        look(&value, &mut found);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_changed_or_cut_off_is_seen() {
        let file =
            PlanFile { body: b"{\"build\": \"x\"}".to_vec(), encrypted: false, signature: None };
        let bytes = file.encode();
        assert_eq!(PlanFile::decode(&bytes).unwrap(), file);
        let mut changed = bytes.clone();
        *changed.last_mut().unwrap() = b' ';
        for wrong in [&changed[..], &bytes[..bytes.len() - 1], b"", b"{}", &bytes[..20]] {
            let error = PlanFile::decode(wrong).unwrap_err();
            assert!(matches!(error, SavedError::Tampered(_)), "{error}");
        }
        let error = SavedPlan::parse(&file.body).unwrap_err();
        assert!(matches!(error, SavedError::OtherBuild), "{error}");
    }

    #[test]
    fn numbers_that_are_those_of_no_resource_are_refused() {
        let body = include_str!("../../tests/fuzz/seeds/plan_file/body.json");
        let body = body.replace("@BUILD@", wire::BUILD);
        SavedPlan::parse(body.as_bytes()).unwrap();
        for (right, forged) in [
            ("\"after\":[0]", "\"after\":[9999]"),
            ("\"play\":0", "\"play\":7"),
            ("{\"node\":0", "{\"node\":9999"),
        ] {
            assert!(body.contains(right), "{right}");
            let error = SavedPlan::parse(body.replace(right, forged).as_bytes()).unwrap_err();
            assert!(matches!(error, SavedError::Tampered(_)), "{error}");
        }
    }
}
