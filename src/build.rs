//! Gives both programs one build identity, and makes the agent a static program.
//!
//! The agent is pushed to hosts whose C library may be another one. `crt-static` for the whole
//! build would need `--target` (procedural macros cannot be static), so only the agent's link
//! step is changed: the shared libraries that rustc names resolve to linker scripts which pull in
//! the static archives.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or(io::ErrorKind::NotFound)?);
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rustc-env=CONVERGE_BUILD={:016x}", build_identity()?);
    println!("cargo::rustc-env=CONVERGE_TARGET={}", env::var("TARGET").unwrap_or_default());
    if env::var("CARGO_CFG_TARGET_ENV").as_deref() == Ok("gnu") {
        link_agent_statically(&out.join("static"))?;
    }
    Ok(())
}

/// A hash of all that both programs are made from.
fn build_identity() -> io::Result<u64> {
    let mut files = vec![PathBuf::from("Cargo.lock")];
    collect(Path::new("src"), &mut files)?;
    files.sort();
    let mut hasher = DefaultHasher::new();
    for file in files {
        file.hash(&mut hasher);
        fs::read(&file).unwrap_or_default().hash(&mut hasher);
    }
    env::var_os("PROFILE").hash(&mut hasher);
    Ok(hasher.finish())
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn link_agent_statically(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    for library in ["m", "dl", "rt", "pthread", "util"] {
        let script = format!("INPUT(-l:lib{library}.a)\n");
        fs::write(folder.join(format!("lib{library}.so")), script)?;
    }
    let group = "GROUP(-l:libgcc_eh.a -l:libgcc.a -l:libc.a)\n";
    for library in ["c", "gcc_s"] {
        fs::write(folder.join(format!("lib{library}.so")), group)?;
    }
    println!("cargo::rustc-link-arg-bin=converge-agent=-static-pie");
    println!("cargo::rustc-link-arg-bin=converge-agent=-L{}", folder.display());
    Ok(())
}
