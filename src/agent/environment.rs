use crate::graph::Node;
use crate::world::{Host, ObserveError, System};

/// The environment of whatever a node runs: its file's variables, then its own.
pub(super) fn environment_of(
    node: &Node,
    host: &Host,
) -> Result<Vec<(String, String)>, ObserveError> {
    let mut environment = Vec::new();
    if let Some(file) = &node.environment_file {
        let bytes = host.read(file)?;
        environment = crate::kind::parse_environment_file(&String::from_utf8_lossy(&bytes));
    }
    environment.extend(node.environment.iter().cloned());
    Ok(environment)
}
