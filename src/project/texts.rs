use std::path::Path;
use std::sync::Arc;

/// Most files that are read below one folder.
const FILE_LIMIT: usize = 2_000;
/// Largest file that is read, in bytes.
const SIZE_LIMIT: u64 = 1 << 20;
/// Deepest folder below the first.
const DEPTH_LIMIT: usize = 8;

/// The texts of all files in a folder and in those below it, for whoever looks for words in them. Links,
/// large files and what is no text are left out.
pub fn texts_below(folder: &Path) -> Vec<Arc<str>> {
    let mut texts = Vec::new();
    add(folder, 0, &mut texts);
    texts
}

fn add(folder: &Path, depth: usize, texts: &mut Vec<Arc<str>>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        // Of the entry itself: a link is neither a file nor a folder.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() && depth < DEPTH_LIMIT {
            add(&entry.path(), depth + 1, texts);
        }
        let small = || entry.metadata().is_ok_and(|metadata| metadata.len() <= SIZE_LIMIT);
        if kind.is_file()
            && texts.len() < FILE_LIMIT
            && small()
            && let Ok(text) = std::fs::read_to_string(entry.path())
        {
            texts.push(Arc::from(text));
        }
    }
}
