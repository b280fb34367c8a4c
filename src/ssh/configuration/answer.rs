//! What `ssh -G` prints: a keyword in lower case and its value, a line each.

use std::collections::HashMap;
use std::time::Duration;

/// The settings for one host.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer(HashMap<String, Vec<String>>);

impl Answer {
    pub(super) fn parse(text: &str) -> Self {
        let mut settings: HashMap<String, Vec<String>> = HashMap::new();
        for line in text.lines() {
            let (keyword, value) = line.split_once(' ').unwrap_or((line, ""));
            settings.entry(keyword.to_owned()).or_default().push(value.trim().to_owned());
        }
        Self(settings)
    }

    /// The value of a setting, if it has one.
    pub(super) fn one(&self, keyword: &str) -> Option<&str> {
        self.0.get(keyword)?.first().map(String::as_str).filter(|value| !value.is_empty())
    }

    /// All values of a setting that may be given several times.
    pub(super) fn all(&self, keyword: &str) -> &[String] {
        self.0.get(keyword).map_or(&[], Vec::as_slice)
    }

    pub(super) fn seconds(&self, keyword: &str) -> Option<Duration> {
        self.one(keyword)?.parse().ok().map(Duration::from_secs)
    }

    /// The same settings for another host of the same class.
    pub(super) fn for_host(&self, host: &str) -> Self {
        let mut settings = self.0.clone();
        settings.insert("hostname".into(), vec![host.to_lowercase()]);
        Self(settings)
    }
}

/// Splits a list of files. `ssh -G` neither quotes nor escapes: a blank belongs to a path unless another path begins
/// after it.
pub(super) fn split_paths(list: &str) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for word in list.split(' ').filter(|word| !word.is_empty()) {
        match paths.last_mut() {
            Some(last) if !word.starts_with(['/', '~']) => {
                last.push(' ');
                last.push_str(word);
            }
            _ => paths.push(word.to_owned()),
        }
    }
    paths.retain(|path| path != "none");
    paths
}
