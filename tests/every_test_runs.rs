//! Is every file of tests part of the binary? A file that is missing in `main.rs` would pass without
//! running.

use std::path::Path;

#[test]
fn every_file_beside_main_is_declared_in_it() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let main = std::fs::read_to_string(tests.join("main.rs")).unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir(&tests).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let is_module = path.extension().is_some_and(|extension| extension == "rs")
            || path.join("mod.rs").exists();
        if is_module && name != "main" {
            seen += 1;
            let declared = main.lines().any(|line| line == format!("mod {name};"));
            assert!(declared, "tests/main.rs does not say `mod {name};`: its tests would not run");
        }
    }
    assert!(seen >= 2, "read only {seen} files in {}", tests.display());
}
