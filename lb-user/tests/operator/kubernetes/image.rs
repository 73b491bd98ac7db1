//! The image, built from `deploy/container/Dockerfile` by buildah, which needs no service.

use crate::stage::{Stage, WEIR, text};
use serde_json::Value;
use std::{fs, path::Path, process::Command};

const IMAGE: &str = "weir";

/// Builds it of the program that is tested, and has its files in `root`; returns what it starts.
pub(super) fn unpack(stage: &Stage, root: &Path) -> Vec<String> {
    let context = stage.folder.path().join("context");
    fs::create_dir_all(context.join("bin")).expect("a folder");
    fs::copy(WEIR, context.join("bin/weir")).expect("a copy");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/container/Dockerfile");
    let buildah = |arguments: &[&str], path: Option<&Path>| buildah(stage, arguments, path);
    let file = file.to_string_lossy();
    buildah(&["build", "--quiet", "--isolation", "chroot", "--tag", IMAGE, "--file", &file], Some(&context));
    let container = buildah(&["from", IMAGE], None);
    let files = buildah(&["mount", container.trim()], None);
    fs::rename(files.trim(), root).expect("on one file system");
    let image: Value = serde_json::from_str(&buildah(&["inspect", "--type", "image", IMAGE], None)).expect("JSON");
    let entrypoint = image["OCIv1"]["config"]["Entrypoint"].as_array().expect("what it starts");
    entrypoint.iter().map(|word| word.as_str().expect("a word").to_owned()).collect()
}

fn buildah(stage: &Stage, arguments: &[&str], path: Option<&Path>) -> String {
    let place = |name| stage.folder.path().join(name);
    let output = Command::new("buildah")
        .args(["--storage-driver", "vfs", "--root"])
        .arg(place("images"))
        .arg("--runroot")
        .arg(place("buildah"))
        .args(arguments)
        .args(path)
        .output()
        .expect("buildah is installed: `cargo xtask setup` does it");
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}
