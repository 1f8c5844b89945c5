//! Links the stub by `linker.ld`, and puts a built stub (or an empty placeholder) where `embedded.rs` includes it.

use std::path::PathBuf;
use std::{env, fs};

fn main() {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("..");
    let script = root.join("linker.ld");
    println!("cargo::rerun-if-changed={}", script.display());
    for arg in [
        "-nostartfiles",
        "-nostdlib",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none",
        "-Wl,--gc-sections",
        "-Wl,-z,noexecstack",
    ] {
        println!("cargo::rustc-link-arg-bin=restart-stub={arg}");
    }
    println!("cargo::rustc-link-arg-bin=restart-stub=-Wl,-T,{}", script.display());

    println!("cargo::rerun-if-env-changed=CKPT_STUB");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("restart-stub");
    let tree = out.with_file_name("restart-stub-tree");
    match env::var_os("CKPT_STUB").map(PathBuf::from) {
        Some(stub) => {
            let beside = stub.with_file_name("restart-stub-tree");
            println!("cargo::rerun-if-changed={}", stub.display());
            println!("cargo::rerun-if-changed={}", beside.display());
            fs::copy(&stub, &out).expect("CKPT_STUB names the built stub");
            fs::copy(&beside, &tree).expect("the stub for trees lies beside it");
        }
        None => [out, tree].iter().for_each(|file| fs::write(file, []).expect("OUT_DIR is writable")),
    }
}
