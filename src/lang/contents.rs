use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use serde_json::{Value, json};

use crate::world::{ContentId, Digest, Digests};

/// Bytes that are read from a file at a time.
const CHUNK: usize = 256 << 10;

/// Fetches what a state names by an `http(s)` address.
pub trait Fetch: Send + Sync {
    /// The bytes behind `url`; an error if they do not match `checksum`: `sha256:HEX`, or
    /// `openpgp:HEX` for a key with that fingerprint.
    fn fetch(&self, url: &str, checksum: &str) -> Result<Vec<u8>, String>;
}

/// The contents that declarations name, by digest; shared by all hosts of a run.
///
/// Texts are held in memory; of local files only the place is held, and reading them again checks
/// that they are still what was hashed. A file or folder is hashed once however many hosts use it.
#[derive(Default)]
pub struct ContentStore {
    held: Mutex<HashMap<ContentId, Held>>,
    files: Mutex<HashMap<PathBuf, Seen>>,
    folders: Mutex<Listings>,
    fetched: Mutex<Fetched>,
    digests: Digests,
}

/// The listing of each folder, by what is left out of it.
type Listings = HashMap<(PathBuf, Vec<String>), Arc<Value>>;

/// What came of each address and checksum.
type Fetched = HashMap<(String, String), Result<ContentId, String>>;

#[derive(Clone)]
enum Held {
    Bytes(Arc<[u8]>),
    File(PathBuf),
}

/// A file as it was when it was hashed.
#[derive(Clone, Copy)]
struct Seen {
    size: u64,
    modified: (i64, i64),
    id: ContentId,
}

/// Why a local folder could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file or folder in it could not be read.
    #[error("{}: {error}", .path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// Names have to be UTF-8, because listings are text.
    #[error("the name of {} is not UTF-8", .0.display())]
    Name(PathBuf),
    /// A socket, a device, a pipe.
    #[error("{} is neither a file, a folder nor a link", .0.display())]
    Special(PathBuf),
    /// A glob of `exclude` cannot be read.
    #[error("{0}")]
    Glob(#[from] globset::Error),
}

impl ContentStore {
    /// A store that knows local files from earlier runs.
    pub fn remembering(digests: Digests) -> Self {
        Self { digests, ..Self::default() }
    }

    /// Remembers the digests of local files for the next run.
    pub fn remember(&self) {
        self.digests.save();
    }

    /// Holds a text.
    pub fn text(&self, bytes: impl Into<Vec<u8>>) -> ContentId {
        let bytes = bytes.into();
        let id = ContentId::of(&bytes);
        lock(&self.held).entry(id).or_insert_with(|| Held::Bytes(bytes.into()));
        id
    }

    /// Hashes a local file and holds its place.
    pub fn file(&self, path: &Path) -> io::Result<ContentId> {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() {
            // A pipe would be waited for, and a device may have no end.
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
        }
        let modified = (metadata.mtime(), metadata.mtime_nsec());
        let seen = lock(&self.files).get(path).copied();
        if let Some(seen) =
            seen.filter(|seen| seen.size == metadata.len() && seen.modified == modified)
        {
            return Ok(seen.id);
        }
        if let Some(id) = self.known(path, &metadata) {
            lock(&self.files).insert(path.to_owned(), Seen { size: id.size, modified, id });
            return Ok(id);
        }
        let mut file = File::open(path)?;
        let metadata = file.metadata()?;
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; CHUNK.min(usize::try_from(metadata.len()).unwrap_or(CHUNK) + 1)];
        let mut size = 0;
        loop {
            let count = file.read(&mut chunk)?;
            if count == 0 {
                break;
            }
            hasher.update(&chunk[..count]);
            size += count as u64;
        }
        let id = ContentId { digest: Digest::finish(&hasher), size };
        self.digests.learn(&file, &metadata, id);
        lock(&self.files).insert(path.to_owned(), Seen { size, modified, id });
        lock(&self.held).entry(id).or_insert_with(|| Held::File(path.to_owned()));
        Ok(id)
    }

    /// The content of a local file that is as an earlier run has seen it.
    fn known(&self, path: &Path, metadata: &fs::Metadata) -> Option<ContentId> {
        let id = self.digests.get(metadata)?;
        lock(&self.held).entry(id).or_insert_with(|| Held::File(path.to_owned()));
        Some(id)
    }

    /// Lists a local folder for `tree`: `TreeEntry`s sorted by path, as JSON; all files are hashed,
    /// by several threads. The same listing is given for the whole run.
    ///
    /// `exclude` has globs of paths relative to the folder; one without `/` fits names at any depth.
    /// Links are kept as links. Modes are those that version control keeps: 0755 for folders and
    /// for files that their owner may execute, 0644 for other files.
    pub fn folder(&self, path: &Path, exclude: &[String]) -> Result<Arc<Value>, FolderError> {
        let known = (path.to_owned(), exclude.to_vec());
        if let Some(listing) = lock(&self.folders).get(&known) {
            return Ok(listing.clone());
        }
        let mut found = Vec::new();
        walk(path, "", &excluded(exclude)?, &mut found)?;
        found.sort_by(|left, right| left.path.cmp(&right.path));
        let ids = self.hash_all(path, &found)?;
        let entries = found.iter().zip(ids).map(|(entry, id)| {
            let node = match (&entry.what, id) {
                (What::Link(target), _) => json!({ "Link": target }),
                (What::File(_), Some(id)) => json!({ "File": [id.digest, id.size] }),
                (What::File(_) | What::Folder, _) => json!("Folder"),
            };
            // Structs as lists of their fields: maps would weigh as much as all the rest.
            json!([entry.path, node, entry.mode])
        });
        let listing = Arc::new(Value::Array(entries.collect()));
        lock(&self.folders).insert(known, listing.clone());
        Ok(listing)
    }

    /// The ids of all files of a listing, in its order; none for what is not a file.
    fn hash_all(
        &self,
        root: &Path,
        found: &[Found],
    ) -> Result<Vec<Option<ContentId>>, FolderError> {
        let next = AtomicUsize::new(0);
        let hash_some = || {
            let mut done = Vec::new();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                let Some(entry) = found.get(index) else { return Ok(done) };
                if let What::File(metadata) = &entry.what {
                    let path = root.join(&entry.path);
                    match self.known(&path, metadata).map_or_else(|| self.file(&path), Ok) {
                        Ok(id) => done.push((index, id)),
                        Err(error) => return Err(FolderError::Unreadable { path, error }),
                    }
                }
            }
        };
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.min(found.len() / 32 + 1);
        let mut ids = vec![None; found.len()];
        let parts = std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(hash_some)).collect();
            let mut parts = vec![hash_some()];
            for other in others {
                parts.push(other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
            }
            parts
        });
        for part in parts {
            for (index, id) in part? {
                ids[index] = Some(id);
            }
        }
        Ok(ids)
    }

    /// Fetches an address once, and holds the bytes.
    pub fn fetched(
        &self,
        fetch: &dyn Fetch,
        url: &str,
        checksum: &str,
    ) -> Result<ContentId, String> {
        // Held while fetching, so that twenty hosts do not fetch twenty times.
        let mut fetched = lock(&self.fetched);
        let known = (url.to_owned(), checksum.to_owned());
        if let Some(result) = fetched.get(&known) {
            return result.clone();
        }
        let result = fetch.fetch(url, checksum).map(|bytes| self.text(bytes));
        fetched.insert(known, result.clone());
        result
    }

    /// Reads a content from its start; none if the store does not hold it.
    ///
    /// The reader fails with [`io::ErrorKind::InvalidData`] instead of giving the last bytes of a
    /// local file that is no longer what was hashed.
    pub fn open(&self, id: &ContentId) -> Option<io::Result<ContentReader>> {
        let held = lock(&self.held).get(id).cloned()?;
        let input = match held {
            Held::Bytes(bytes) => Ok(Input::Bytes(io::Cursor::new(bytes))),
            Held::File(path) => File::open(&path).map(|file| Input::File {
                file,
                path,
                hasher: Box::default(),
                left: id.size,
                digest: id.digest,
            }),
        };
        Some(input.map(|input| ContentReader { input }))
    }

    /// All bytes of a content; see [`ContentStore::open`].
    pub fn get(&self, id: &ContentId) -> io::Result<Arc<[u8]>> {
        if let Some(Held::Bytes(bytes)) = lock(&self.held).get(id) {
            return Ok(bytes.clone());
        }
        let mut reader = self.open(id).unwrap_or_else(|| {
            let message = format!("no declaration named the content {}", id.digest);
            Err(io::Error::new(io::ErrorKind::NotFound, message))
        })?;
        let mut bytes = Vec::with_capacity(usize::try_from(id.size).unwrap_or_default());
        reader.read_to_end(&mut bytes)?;
        Ok(bytes.into())
    }

    /// Whether the store holds a content.
    pub fn holds(&self, id: &ContentId) -> bool {
        lock(&self.held).contains_key(id)
    }
}

/// A content that is being read.
pub struct ContentReader {
    input: Input,
}

enum Input {
    Bytes(io::Cursor<Arc<[u8]>>),
    File { file: File, path: PathBuf, hasher: Box<blake3::Hasher>, left: u64, digest: Digest },
}

impl Read for ContentReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &mut self.input {
            Input::Bytes(bytes) => bytes.read(buffer),
            Input::File { file, path, hasher, left, digest } => {
                if buffer.is_empty() {
                    return Ok(0);
                }
                let count = file.read(buffer)?;
                hasher.update(&buffer[..count]);
                let still = left.checked_sub(count as u64);
                let whole = match still {
                    None => false,
                    Some(0) => count == 0 || Digest::finish(hasher) == *digest,
                    Some(_) => count > 0,
                };
                if !whole {
                    let message = format!("{} was changed during the run", path.display());
                    return Err(io::Error::new(io::ErrorKind::InvalidData, message));
                }
                *left = still.unwrap_or_default();
                Ok(count)
            }
        }
    }
}

/// An entry of a folder, before its content is hashed.
struct Found {
    path: String,
    what: What,
    mode: u32,
}

enum What {
    /// As it is when the folder is listed.
    File(fs::Metadata),
    Folder,
    Link(String),
}

fn walk(
    folder: &Path,
    relative: &str,
    excluded: &GlobSet,
    found: &mut Vec<Found>,
) -> Result<(), FolderError> {
    let unreadable = |path: &Path, error| FolderError::Unreadable { path: path.to_owned(), error };
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let entry = entry.map_err(|error| unreadable(folder, error))?;
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else { return Err(FolderError::Name(path)) };
        let below =
            if relative.is_empty() { name.to_owned() } else { format!("{relative}/{name}") };
        if excluded.is_match(&below) {
            continue;
        }
        let metadata = entry.metadata().map_err(|error| unreadable(&path, error))?;
        let executable = metadata.is_dir() || metadata.permissions().mode() & 0o100 != 0;
        let mode = if executable { 0o755 } else { 0o644 };
        if metadata.is_dir() {
            found.push(Found { path: below.clone(), what: What::Folder, mode });
            walk(&path, &below, excluded, found)?;
        } else if metadata.is_symlink() {
            let target = fs::read_link(&path).map_err(|error| unreadable(&path, error))?;
            let Some(target) = target.to_str() else { return Err(FolderError::Name(path)) };
            found.push(Found { path: below, what: What::Link(target.to_owned()), mode: 0o777 });
        } else if metadata.is_file() {
            found.push(Found { path: below, what: What::File(metadata), mode });
        } else {
            return Err(FolderError::Special(path));
        }
    }
    Ok(())
}

/// The same reading of patterns as that of the kind `tree`, which spares what they match.
fn excluded(globs: &[String]) -> Result<GlobSet, globset::Error> {
    let mut set = GlobSetBuilder::new();
    for glob in globs {
        let glob = glob.trim_end_matches('/');
        let anchored = match glob.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if glob.contains('/') => glob.to_owned(),
            None => format!("**/{glob}"),
        };
        // What is below an excluded folder is never visited, unless the pattern says only that.
        set.add(GlobBuilder::new(&anchored).literal_separator(true).build()?);
    }
    set.build()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kind::{TreeEntry, TreeNode};

    #[test]
    fn a_file_that_changes_after_it_was_hashed_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        fs::write(&path, "before").unwrap();
        let store = ContentStore::default();
        let id = store.file(&path).unwrap();
        assert_eq!(id, ContentId::of(b"before"));
        assert_eq!(store.get(&id).unwrap().as_ref(), b"before");
        for changed in ["behind", "bef", "before and more"] {
            fs::write(&path, changed).unwrap();
            let error = store.get(&id).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{changed}");
        }
    }

    #[test]
    fn a_folder_is_listed_in_order_and_without_what_is_excluded() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir_all(root.join("b/cache")).unwrap();
        fs::write(root.join("b/one.txt"), "1").unwrap();
        fs::write(root.join("b/two.pyc"), "2").unwrap();
        fs::write(root.join("b/cache/x"), "3").unwrap();
        fs::write(root.join("a"), "4").unwrap();
        std::os::unix::fs::symlink("b/one.txt", root.join("link")).unwrap();
        let store = ContentStore::default();
        let exclude = ["*.pyc".to_owned(), "b/cache/".to_owned()];
        let listing = store.folder(root, &exclude).unwrap();
        let entries: Vec<TreeEntry> = serde_json::from_value(listing.as_ref().clone()).unwrap();
        let listed: Vec<_> = entries
            .iter()
            .map(|entry| {
                let what = match &entry.entry {
                    TreeNode::Folder => "Folder",
                    TreeNode::File(_) => "File",
                    TreeNode::Link(_) => "Link",
                };
                format!("{} {what}", entry.path)
            })
            .collect();
        assert_eq!(listed, ["a File", "b Folder", "b/one.txt File", "link Link"]);
        assert_eq!(entries[0].entry, TreeNode::File(ContentId::of(b"4")));
    }
}
