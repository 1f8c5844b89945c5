//! Links the stub by `linker.ld`, and puts a built stub where `embedded.rs` includes it: what `CKPT_STUB` names; else one that is built here.
//!
//! In this repository `cargo xtask` builds the stub: `CKPT_WITHOUT_STUB` is `debug` there (.cargo/config.toml), and a debug build without `CKPT_STUB` has
//! none. Any other value means all builds.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn main() {
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"));
    let root = here.join("..");
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
    println!("cargo::rerun-if-env-changed=CKPT_WITHOUT_STUB");
    let dir = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    let out = dir.join("restart-stub");
    if let Some(stub) = env::var_os("CKPT_STUB").map(PathBuf::from) {
        println!("cargo::rerun-if-changed={}", stub.display());
        fs::copy(&stub, &out).expect("CKPT_STUB names the built stub");
    } else if env::var_os("CARGO_FEATURE_EMBED").is_none() || is_unwanted() {
        fs::write(&out, []).expect("OUT_DIR is writable");
    } else {
        fs::copy(build(&here, &root, &dir), &out).expect("the stub was built");
    }
}

/// Whether this build does without.
fn is_unwanted() -> bool {
    let debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    env::var_os("CKPT_WITHOUT_STUB").is_some_and(|builds| builds != "debug" || debug)
}

/// Builds the stub for `cargo install`, or for a crate elsewhere that depends on `ckpt`, with this repository's profile and locked versions.
fn build(here: &Path, root: &Path, dir: &Path) -> PathBuf {
    for part in ["Cargo.toml", "sys", "image-format", "state", "loader"] {
        println!("cargo::rerun-if-changed={}", root.join(part).display());
    }
    let target = env::var("TARGET").expect("cargo sets it");
    let args = fs::read_to_string(here.join("stub-llvm-args.txt")).expect("it lies beside build.rs");
    let mut cargo = Command::new(env::var_os("CARGO").expect("cargo sets it"));
    // What was set for the program that depends on it is not for the stub.
    for name in
        ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"]
    {
        cargo.env_remove(name);
    }
    // As `cargo xtask dist` builds it.
    cargo.env("RUSTFLAGS", "-Cno-redzone=yes");
    cargo.env("CKPT_WITHOUT_STUB", "1").current_dir(here);
    cargo.args(["rustc", "--locked", "--bin", "restart-stub", "--features", "freestanding", "--profile", "stub"]);
    cargo.args(["--target", &target, "--target-dir"]).arg(dir.join("stub"));
    cargo.args(["--", "-C", &format!("llvm-args={}", args.trim())]);
    let status = cargo.status().expect("cargo starts");
    assert!(status.success(), "the restart stub does not build: {cargo:?}");
    dir.join("stub").join(target).join("stub/restart-stub")
}
