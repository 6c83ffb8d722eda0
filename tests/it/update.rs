//! A newer program in the place of this one. What stands for it is a script that was signed once, with a key whose secret
//! half is gone: `tests/fixtures/release`.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::omni::{OMNI, Output, Run, World};
use crate::support::releases::{Releases, Served};

/// What the fixtures are signed with.
const KEY: &str = include_str!("../fixtures/release/key.pub");
/// A key that has signed none of them.
const OTHER: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";
const FILE: &str = "omni-9.9.9.zst";

/// A program that may be replaced, and where its releases are.
struct Place {
    world: World,
    program: PathBuf,
    releases: Releases,
}

impl Place {
    fn with(release: &str) -> Self {
        let world = World::cold();
        let program = world.home().join("bin/omni");
        fs::create_dir(world.home().join("bin")).expect("a folder");
        // Another name of the same file: it is replaced, never written to.
        fs::hard_link(OMNI, &program).or_else(|_| fs::copy(OMNI, &program).map(drop)).expect("a program");
        Self { world, program, releases: Releases::of(release) }
    }

    fn omni(&self, words: &[&str]) -> Run {
        self.under(&[], words)
    }

    fn under(&self, by: &[&str], words: &[&str]) -> Run {
        let program = self.program.display().to_string();
        let key = KEY.lines().nth(1).expect("the second line is the key");
        let run = self.world.program(&[by, &[program.as_str()], words].concat());
        run.env("OMNI_UPDATE__URL", self.releases.url()).env("OMNI_UPDATE__KEY", key)
    }

    fn update(&self) -> Output {
        self.omni(&["self", "update"]).run()
    }

    /// What the program says of itself.
    fn version(&self) -> String {
        let said = Command::new(&self.program).arg("--version").output().expect("it starts");
        String::from_utf8(said.stdout).expect("text").trim().to_owned()
    }

    /// Asserts that it was not done, and why, and that nothing is left of the attempt.
    #[track_caller]
    fn stays(&self, output: Output, why: &str) {
        let output = output.exited(1);
        assert!(output.err.contains(why), "{output}");
        assert_eq!(self.version(), concat!("omni ", env!("CARGO_PKG_VERSION")), "{output}");
        assert_eq!(self.beside(), ["omni"], "{output}");
    }

    fn beside(&self) -> Vec<String> {
        let entries = fs::read_dir(self.world.home().join("bin")).expect("a folder");
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
    }
}

#[test]
fn a_newer_program_takes_the_place() {
    let place = Place::with("newer");
    let told = place.omni(&["self", "check"]).run().succeeded();
    assert!(told.out.starts_with("there is omni 9.9.9"), "{told}");
    assert_eq!(place.version(), concat!("omni ", env!("CARGO_PKG_VERSION")));

    let told = place.update().succeeded();
    assert!(told.out.contains("is omni 9.9.9 now"), "{told}");
    assert_eq!(place.version(), "omni 9.9.9");
    assert_eq!(place.beside(), ["omni"]);
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode(&place.program), mode(OMNI.as_ref()));
}

#[test]
fn scripts_are_told_as_json() {
    let place = Place::with("newer");
    let told = place.omni(&["self", "check", "--json"]).run().succeeded().last();
    assert_eq!(told["latest"], "9.9.9");
    assert_eq!(told["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(told["installed"], false);
}

#[test]
fn a_server_may_send_us_to_another() {
    let (place, mirror) = (Place::with("newer"), Releases::of("newer"));
    let url = format!("{}/latest/download/{FILE}", mirror.url());
    place.releases.put(FILE, Served::Elsewhere(url));
    place.update().succeeded();
    assert_eq!(place.version(), "omni 9.9.9");
    let round = format!("{}/latest/download/{FILE}", place.releases.url());
    let place = Place { releases: place.releases, ..Place::with("newer") };
    place.releases.put(FILE, Served::Elsewhere(round));
    place.stays(place.update(), "it leads elsewhere too often");
}

#[test]
fn an_older_program_is_refused() {
    let place = Place::with("older");
    place.stays(place.update(), "the release there is omni 0.0.1, which is older");
    place.stays(place.omni(&["self", "check"]).run(), "the release there is omni 0.0.1, which is older");
}

#[test]
fn a_manifest_that_was_changed_is_refused() {
    let place = Place::with("newer");
    let manifest = String::from_utf8(place.releases.bytes("manifest.json")).expect("text");
    place.releases.put("manifest.json", Served::Whole(manifest.replace("9.9.9", "9.9.8").into_bytes()));
    place.stays(place.update(), "is not signed with the key");
}

#[test]
fn a_manifest_that_somebody_else_has_signed_is_refused() {
    let place = Place::with("newer");
    place.stays(
        place.omni(&["self", "update"]).env("OMNI_UPDATE__KEY", OTHER).run(),
        "is not signed with the key",
    );
    place.releases.put("manifest.json.minisig", Served::Whole(b"I have signed it".to_vec()));
    place.stays(place.update(), "is no signature");
}

#[test]
fn a_program_that_was_changed_is_refused() {
    let place = Place::with("newer");
    let right = zstd::decode_all(&*place.releases.bytes(FILE)).expect("a program");
    let wrong = String::from_utf8(right).expect("a script").replace("another", "an evil");
    let mut packing = zstd::Encoder::new(Vec::new(), 19).expect("an encoder");
    packing.include_checksum(true).expect("an encoder");
    packing.write_all(wrong.as_bytes()).expect("bytes");
    let packed = packing.finish().expect("bytes");
    // Or its length would give it away.
    assert_eq!(packed.len(), place.releases.bytes(FILE).len());
    place.releases.put(FILE, Served::Whole(packed));
    place.stays(place.update(), "its SHA-256 is");
}

#[test]
fn a_download_that_is_cut_is_refused() {
    let place = Place::with("newer");
    let program = place.releases.bytes(FILE);
    place.releases.put(FILE, Served::Cut(program.clone(), 40));
    place.stays(place.update(), "cannot fetch");
    place.releases.put(FILE, Served::Whole(program[..40].to_vec()));
    place.stays(place.update(), "it has 40 bytes instead of");
}

#[test]
fn what_never_ends_is_given_up() {
    let place = Place::with("newer");
    place.releases.put(FILE, Served::Endless);
    place.stays(place.update(), "there are more than 68 bytes");
    place.releases.put("manifest.json", Served::Endless);
    place.stays(place.update(), "there are more than 65536 bytes");
}

#[test]
fn a_program_that_does_not_run_here_is_refused() {
    let place = Place::with("broken");
    place.stays(place.update(), "omni 9.9.8 does not run on this machine");
}

#[test]
fn a_release_for_other_machines_is_none_for_this_one() {
    let place = Place::with("foreign");
    place.stays(place.update(), "omni 9.9.7 was not released for");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let place = Place::with("newer");
    let folder = place.world.home().join("bin");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o555)).expect("a folder of ours");
    // Permissions hold for root as well, without what makes it root.
    let is_root =
        fs::write(folder.join("omni2"), "").and_then(|()| fs::remove_file(folder.join("omni2"))).is_ok();
    let drop = ["setpriv", "--bounding-set=-dac_override", "--"];
    let output = place.under(if is_root { &drop } else { &[] }, &["self", "update"]).run();
    place.stays(output, &format!("cannot write in `{}`", folder.display()));
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("a folder of ours");
}

#[test]
fn what_is_set_wrongly_is_named() {
    let place = Place::with("newer");
    let set = |key: &str, value: &str| place.omni(&["self", "check"]).env(key, value).run().exited(3);
    assert!(set("OMNI_UPDATE__KEY", "secret").err.contains("`update.key` is set to `secret`"));
    assert!(set("OMNI_UPDATE__URL", "ftp://x").err.contains("`update.url` is set to `ftp://x`"));
}
