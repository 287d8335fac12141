//! The committed output of the proto is what the generator makes of it now. `make proto` writes it anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use prost::Message as _;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// File name to content.
fn generate() -> BTreeMap<String, Vec<u8>> {
    let files = protox::Compiler::new([root().join("proto")])
        .unwrap()
        .include_source_info(true)
        .include_imports(true)
        .open_files(["tokenbroker/v1/token_broker.proto", "tokenbroker/v1/admin.proto"])
        .unwrap()
        .file_descriptor_set();
    let out = tempfile::tempdir().unwrap();
    let mut descriptor = files.clone();
    tonic_prost_build::configure()
        // A derived Debug would print tokens.
        .skip_debug(["."])
        .out_dir(out.path())
        .compile_fds(files)
        .unwrap();
    for file in &mut descriptor.file {
        file.source_code_info = None; // reflection has no use for comments
    }
    let mut result = BTreeMap::from([("descriptor.bin".to_owned(), descriptor.encode_to_vec())]);
    for entry in std::fs::read_dir(out.path()).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        result.insert(name, std::fs::read(entry.path()).unwrap());
    }
    result
}

fn committed(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name() != "mod.rs")
        .map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap()))
        .collect()
}

#[test]
fn generated_code_is_fresh() {
    let dir = root().join("src/gen");
    let fresh = generate();
    if std::env::var_os("TOKEN_BROKER_WRITE_GENERATED").is_some() {
        for (name, content) in &fresh {
            std::fs::write(dir.join(name), content).unwrap();
        }
    }
    let committed = committed(&dir);
    assert_eq!(
        committed.keys().collect::<Vec<_>>(),
        fresh.keys().collect::<Vec<_>>(),
        "src/gen has other files than the generator makes: run `make proto`"
    );
    for (name, content) in &fresh {
        assert!(committed[name] == *content, "src/gen/{name} is stale: run `make proto`");
    }
}
